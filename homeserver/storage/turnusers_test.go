// SPDX-License-Identifier: Apache-2.0

package storage_test

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
)

func TestUsersOfTheRelayAreKeptByRealm(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, s *storage.Store) {
		ctx := context.Background()
		before, err := s.TURNUsersRevision(ctx)
		if err != nil {
			t.Fatal(err)
		}
		ann := storage.TURNUser{Realm: "one", Name: "ann", Key: []byte("0123456789abcdef")}
		other := storage.TURNUser{Realm: "two", Name: "ann", Key: []byte("fedcba9876543210")}
		if err := s.PutTURNUsers(ctx, other, ann); err != nil {
			t.Fatal(err)
		}
		ann.Key = []byte("another key 1234")
		if err := s.PutTURNUsers(ctx, ann); err != nil {
			t.Fatal(err)
		}
		got, err := s.TURNUsers(ctx)
		if diff := cmp.Diff([]storage.TURNUser{ann, other}, got); err != nil || diff != "" {
			t.Error(err, diff)
		}
		if err := s.RemoveTURNUser(ctx, "two", "ann"); err != nil {
			t.Error(err)
		}
		if err := s.RemoveTURNUser(ctx, "two", "ann"); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("removing again: %v", err)
		}
		if after, err := s.TURNUsersRevision(ctx); err != nil || after != before+3 {
			t.Errorf("the revision went from %d to %d, %v", before, after, err)
		}
	})
}
