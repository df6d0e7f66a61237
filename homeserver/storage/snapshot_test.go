// SPDX-License-Identifier: Apache-2.0

package storage_test

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trunkboard/trunkboard/homeserver/storage"
)

// TestASnapshotHasAllThatWasAcknowledged takes one while others write, twice into the same file.
func TestASnapshotHasAllThatWasAcknowledged(t *testing.T) {
	dir := t.TempDir()
	from, into := "sqlite:"+filepath.Join(dir, "a.db"), filepath.Join(dir, "copy", "b.db")
	if err := os.Mkdir(filepath.Dir(into), 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := storage.Open(t.Context(), from, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	put := func(name string) {
		if err := s.PutTURNUsers(t.Context(), storage.TURNUser{Realm: "r", Name: name, Key: []byte(strings.Repeat("k", 16))}); err != nil {
			t.Error(err)
		}
	}
	for i, name := range []string{"ann", "ben"} {
		put(name)
		writing, stop := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(writing)
			for {
				select {
				case <-stop:
					return
				default:
					put("ann") // again: it changes nothing that is counted
				}
			}
		}()
		err := storage.Snapshot(t.Context(), from, into)
		close(stop)
		<-writing
		if err != nil {
			t.Fatal(err)
		}
		if mode, err := os.Stat(into); err != nil || mode.Mode().Perm() != 0o600 {
			t.Errorf("%v %v; others may read it", mode, err)
		}
		// The copy stands for itself: nothing of it is in a file beside it.
		moved := filepath.Join(t.TempDir(), "moved.db")
		text, err := os.ReadFile(into)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(moved, text, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := storage.Open(t.Context(), "sqlite:"+moved, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		users, err := c.TURNUsers(t.Context())
		if err := errors.Join(err, c.Close()); err != nil {
			t.Fatal(err)
		}
		if len(users) != i+1 {
			t.Errorf("%d users in snapshot %d", len(users), i+1)
		}
	}
}

func TestASnapshotOfNothingIsRefusedAndMakesNothing(t *testing.T) {
	dir := t.TempDir()
	if err := storage.Snapshot(t.Context(), "sqlite:"+filepath.Join(dir, "none.db"), filepath.Join(dir, "copy.db")); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("%v", err)
	}
	if err := storage.Snapshot(t.Context(), "postgres://u:secret@h/n", filepath.Join(dir, "copy.db")); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("%v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("%v %v", left, err)
	}
}
