// SPDX-License-Identifier: Apache-2.0

package storage_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
)

func TestConcurrentWritesGetGaplessPositionsInCommitOrder(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, s *storage.Store) {
		const n = 200
		start := s.Pos()
		var mu sync.Mutex
		var order []int64
		var wg sync.WaitGroup
		for range n {
			wg.Add(1)
			var pos int64
			err := s.Enqueue(func(tx *storage.Tx) (err error) { pos, err = tx.NextPos(); return err }, func(err error) {
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				order = append(order, pos)
				mu.Unlock()
				wg.Done()
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		wg.Wait()
		for i, p := range order {
			if p != start+int64(i)+1 {
				t.Fatalf("position %d is %d, want %d", i, p, start+int64(i)+1)
			}
		}
		if s.Pos() != start+n {
			t.Fatalf("Pos() = %d, want %d", s.Pos(), start+n)
		}
	})
}

func TestAFailedWriteUndoesOnlyItself(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, s *storage.Store) {
		boom := errors.New("boom")
		var wg sync.WaitGroup
		results := make([]error, 60)
		for i := range results {
			wg.Add(1)
			_ = s.Enqueue(func(tx *storage.Tx) error {
				if _, err := tx.Exec(`INSERT INTO counters (name, value) VALUES ($1, $2)`, fmt.Sprintf("test%d", i), int64(i)); err != nil {
					return err
				}
				switch {
				case i%20 == 7:
					return boom
				case i%20 == 9:
					panic("boom")
				}
				return nil
			}, func(err error) { results[i] = err; wg.Done() })
		}
		wg.Wait()
		for i, err := range results {
			failed := i%20 == 7 || i%20 == 9
			if failed != (err != nil) {
				t.Errorf("write %d: error %v", i, err)
			}
			var n int64
			werr := s.Write(context.Background(), func(tx *storage.Tx) error {
				return tx.Row([]any{&n}, `SELECT COUNT(*) FROM counters WHERE name = $1`, fmt.Sprintf("test%d", i))
			})
			if werr != nil {
				t.Fatal(werr)
			}
			if (n == 1) == failed {
				t.Errorf("write %d left %d rows", i, n)
			}
		}
	})
}

func TestIDsAreUniqueAcrossStoresOfOneDatabase(t *testing.T) {
	for name, url := range map[string]func(testing.TB) string{"sqlite": storagetest.SQLiteURL, "postgres": storagetest.PostgresURL} {
		t.Run(name, func(t *testing.T) {
			u := url(t)
			seen := map[int64]bool{}
			for range 3 {
				s := storagetest.Open(t, u)
				for range 10 {
					id, err := s.NID(context.Background())
					if err != nil {
						t.Fatal(err)
					}
					if id <= 0 || seen[id] {
						t.Fatalf("id %d given twice", id)
					}
					seen[id] = true
				}
			}
		})
	}
}
