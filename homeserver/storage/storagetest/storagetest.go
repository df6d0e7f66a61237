// SPDX-License-Identifier: Apache-2.0

// Package storagetest opens throw-away stores for tests: every test runs on SQLite and on PostgreSQL.
package storagetest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/trunkboard/trunkboard/homeserver/storage"
)

// Each runs f on a new SQLite store and on a new PostgreSQL database. PostgreSQL is the server that TRUNKBOARD_TEST_POSTGRES names
// (a URL with the right to create databases); without it that half is skipped, unless TRUNKBOARD_TEST_REQUIRED is set.
func Each(t *testing.T, f func(t *testing.T, s *storage.Store)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) { f(t, Open(t, SQLiteURL(t))) })
	t.Run("postgres", func(t *testing.T) { f(t, Open(t, PostgresURL(t))) })
}

// Open opens a store and closes it with the test.
func Open(t testing.TB, dburl string) *storage.Store {
	t.Helper()
	s, err := storage.Open(context.Background(), dburl, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatalf("open store: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close store: %v", err)
		}
	})
	return s
}

// SQLiteURL names a database file in the test's own folder.
func SQLiteURL(t testing.TB) string {
	return "sqlite:" + filepath.Join(t.TempDir(), "trunkboard.db")
}

// PostgresURL makes a database that is dropped with the test.
func PostgresURL(t testing.TB) string {
	t.Helper()
	base := os.Getenv("TRUNKBOARD_TEST_POSTGRES")
	if base == "" {
		if os.Getenv("TRUNKBOARD_TEST_REQUIRED") != "" {
			t.Fatal("TRUNKBOARD_TEST_POSTGRES is not set; make test starts PostgreSQL and sets it")
		}
		t.Skip("TRUNKBOARD_TEST_POSTGRES is not set; make test starts PostgreSQL and sets it")
	}
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("pgx", base)
	if err != nil {
		t.Fatal(err)
	}
	var b [6]byte
	_, _ = rand.Read(b[:])
	name := "tb_" + hex.EncodeToString(b[:])
	if _, err := db.Exec("CREATE DATABASE " + name); err != nil {
		t.Fatalf("create database: %v", err)
	}
	t.Cleanup(func() {
		_, _ = db.Exec("DROP DATABASE " + name + " WITH (FORCE)")
		_ = db.Close()
	})
	u.Path = "/" + name
	return u.String()
}
