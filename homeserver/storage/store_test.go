// SPDX-License-Identifier: Apache-2.0

package storage_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
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

func TestADatabaseThatWasHalfMadeIsMadeAnew(t *testing.T) {
	file := filepath.Join(t.TempDir(), "trunkboard.db")
	if err := os.WriteFile(file+".new", []byte("a power cut left this"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s, err := storage.Open(context.Background(), "sqlite:"+file, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(file + ".new"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}

func TestADatabaseOfANewerVersionIsLeftAlone(t *testing.T) {
	for name, newURL := range map[string]func(testing.TB) string{"sqlite": storagetest.SQLiteURL, "postgres": storagetest.PostgresURL} {
		t.Run(name, func(t *testing.T) {
			url := newURL(t)
			s := storagetest.Open(t, url)
			if err := s.Write(t.Context(), func(tx *storage.Tx) error {
				_, err := tx.Exec(`INSERT INTO schema_versions (version_id, is_applied) VALUES (99999, TRUE)`)
				return err
			}); err != nil {
				t.Fatal(err)
			}
			older, err := storage.Open(t.Context(), url, slog.New(slog.DiscardHandler))
			if err == nil {
				err = errors.Join(errors.New("it was opened"), older.Close())
			}
			if !strings.Contains(err.Error(), "newer version") || !strings.Contains(err.Error(), "backup") {
				t.Error(err)
			}
		})
	}
}

func TestTheEventNextToATimeIsFoundThroughAnIndex(t *testing.T) {
	s := storagetest.Open(t, storagetest.SQLiteURL(t))
	for _, query := range []string{
		`SELECT event_nid FROM events WHERE room_nid = $1 AND stream_pos <> 0 AND status = 0 AND origin_ts >= $2 ORDER BY origin_ts, stream_pos LIMIT 1`,
		`SELECT event_nid FROM events WHERE room_nid = $1 AND stream_pos <> 0 AND status = 0 AND origin_ts <= $2 ORDER BY origin_ts DESC, stream_pos DESC LIMIT 1`,
	} {
		plan := ""
		if err := s.Write(context.Background(), func(tx *storage.Tx) error {
			plan = ""
			return tx.Rows(func(r *sql.Rows) error {
				var id, parent, unused int
				var detail string
				err := r.Scan(&id, &parent, &unused, &detail)
				plan += detail + "\n"
				return err
			}, `EXPLAIN QUERY PLAN `+query, 1, 2)
		}); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(plan, "USING INDEX events_room_time (room_nid=? AND origin_ts") && !strings.Contains(plan, "COVERING INDEX events_room_time (room_nid=? AND origin_ts") || strings.Contains(plan, "TEMP B-TREE") {
			t.Errorf("%s is planned as\n%s", query, plan)
		}
	}
}
