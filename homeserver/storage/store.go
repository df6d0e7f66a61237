// SPDX-License-Identifier: Apache-2.0

// Package storage is the homeserver's memory: one schema and one query text for SQLite and PostgreSQL, and a writer that groups the
// writes of everybody who writes at the same moment into one commit.
//
// Reads go straight to a pool (Query, QueryRow). Every write goes through Write or Enqueue: a function that runs inside the writer's
// transaction, in the order it was queued. A write is acknowledged only after its commit is on disk (SQLite: WAL with
// synchronous=FULL). Positions of the one stream that client sync tokens count in are given out by Tx.NextPos, inside the
// transaction and under a row lock, so that the order of positions is the order of commits, on one node and on many.
//
//	Enqueue ─┐
//	Enqueue ─┼─> queue ─> BEGIN · op op op · stream position · COMMIT ─> done callbacks, in order
//	Write  ──┘
//
// Ops may run twice (a batch in which one op fails is rolled back and its ops are tried one by one), so they set what they return
// and never add to it.
package storage

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	_ "github.com/jackc/pgx/v5/stdlib" // the "pgx" driver
	_ "modernc.org/sqlite"             // the "sqlite" driver
)

type engine string

const (
	sqlite   engine = "sqlite"
	postgres engine = "postgres"
)

// ErrNotFound says that a row is not there.
var ErrNotFound = errors.New("storage: not found")

// Store is one database.
type Store struct {
	engine engine
	db     *sql.DB // reads
	stmts  sync.Map
	writer *writer
	nids   nidBlock
	log    *slog.Logger
}

// Open opens or makes the database at url, brings its schema up to date and starts the writer. url is "sqlite:PATH" (the file and
// its folder are made when missing) or a PostgreSQL URL ("postgres://user@host/name?…").
func Open(ctx context.Context, dburl string, log *slog.Logger) (*Store, error) {
	s := &Store{log: log}
	var wdb *sql.DB
	switch {
	case strings.HasPrefix(dburl, "sqlite:"):
		s.engine = sqlite
		file := strings.TrimPrefix(dburl, "sqlite:")
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return nil, fmt.Errorf("database folder: %w", err)
		}
		if err := makeSQLite(ctx, file); err != nil {
			return nil, err
		}
		// FULL: with NORMAL a power cut loses acknowledged commits.
		q := url.Values{"_pragma": {"journal_mode(WAL)", "synchronous(FULL)", "busy_timeout(10000)", "foreign_keys(1)", "temp_store(2)", "cache_size(-4096)"}, "_txlock": {"immediate"}}
		var err error
		if wdb, err = sql.Open("sqlite", "file:"+file+"?"+q.Encode()); err != nil {
			return nil, err
		}
		wdb.SetMaxOpenConns(1)
		if err := migrate(ctx, wdb, s.engine); err != nil {
			return nil, errors.Join(err, wdb.Close())
		}
		// Readers share the system's cache of the file; a small one of their own is enough for the upper pages of the trees.
		q["_pragma"] = append(q["_pragma"], "query_only(1)", "cache_size(-2048)")
		if s.db, err = sql.Open("sqlite", "file:"+file+"?"+q.Encode()); err != nil {
			return nil, errors.Join(err, wdb.Close())
		}
		s.db.SetMaxOpenConns(4)
		s.db.SetMaxIdleConns(4)
	case strings.HasPrefix(dburl, "postgres://"), strings.HasPrefix(dburl, "postgresql://"):
		s.engine = postgres
		var err error
		if s.db, err = sql.Open("pgx", dburl); err != nil {
			return nil, err
		}
		s.db.SetMaxOpenConns(16)
		s.db.SetMaxIdleConns(16)
		if err := migrate(ctx, s.db, s.engine); err != nil {
			return nil, errors.Join(err, s.db.Close())
		}
		wdb = s.db
	default:
		return nil, fmt.Errorf("database url %q: want sqlite:PATH or postgres://…", redactURL(dburl))
	}
	w, err := newWriter(ctx, wdb, s.engine, log)
	if err != nil {
		if wdb != s.db {
			err = errors.Join(err, wdb.Close())
		}
		return nil, errors.Join(err, s.db.Close())
	}
	s.writer = w
	return s, nil
}

func redactURL(u string) string {
	p, err := url.Parse(u)
	if err != nil {
		return "?"
	}
	return p.Redacted()
}

// Close finishes the queued writes and closes the database.
func (s *Store) Close() error {
	err := s.writer.close()
	s.stmts.Range(func(_, v any) bool { err = errors.Join(err, v.(*sql.Stmt).Close()); return true })
	err = errors.Join(err, s.db.Close())
	if s.writer.db != s.db {
		err = errors.Join(err, s.writer.db.Close())
	}
	return err
}

// Postgres says that the store runs on PostgreSQL.
func (s *Store) Postgres() bool { return s.engine == postgres }

func (s *Store) stmt(ctx context.Context, query string) (*sql.Stmt, error) {
	if st, ok := s.stmts.Load(query); ok {
		return st.(*sql.Stmt), nil
	}
	st, err := s.db.PrepareContext(ctx, query)
	if err != nil {
		return nil, fmt.Errorf("prepare %.60q: %w", query, err)
	}
	if old, loaded := s.stmts.LoadOrStore(query, st); loaded {
		_ = st.Close()
		return old.(*sql.Stmt), nil
	}
	return st, nil
}

// rows reads every row of a query through scan. The query text must be a constant: it is prepared once and kept.
func (s *Store) rows(ctx context.Context, scan func(*sql.Rows) error, query string, args ...any) error {
	st, err := s.stmt(ctx, query)
	if err != nil {
		return err
	}
	r, err := st.QueryContext(ctx, args...)
	if err != nil {
		return err
	}
	return each(r, scan)
}

// each reads every row through scan, and closes them.
func each(r *sql.Rows, scan func(*sql.Rows) error) error {
	defer r.Close()
	for r.Next() {
		if err := scan(r); err != nil {
			return err
		}
	}
	return r.Err()
}

// row reads one row into dest; ErrNotFound when there is none. The query text must be a constant.
func (s *Store) row(ctx context.Context, dest []any, query string, args ...any) error {
	st, err := s.stmt(ctx, query)
	if err != nil {
		return err
	}
	err = st.QueryRowContext(ctx, args...).Scan(dest...)
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	return err
}

// Write runs op in the writer's next transaction and returns after its commit is durable, or with op's error.
func (s *Store) Write(ctx context.Context, op func(*Tx) error) error {
	done := make(chan error, 1)
	if err := s.Enqueue(op, func(err error) { done <- err }); err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err() // the write itself goes on
	}
}

// Enqueue queues op; done is called on the writer's goroutine after the commit (nil) or the failure of op, in queue order: it must
// be quick and must not write. The queue is bounded: when it is full Enqueue waits, which pushes back on whoever writes.
func (s *Store) Enqueue(op func(*Tx) error, done func(error)) error {
	return s.writer.enqueue(op, done)
}

// Pos is the newest committed stream position of this node.
func (s *Store) Pos() int64 { return s.writer.pos.Load() }

// NID gives a new internal id, unique over all nodes. Ids rise within a node; gaps are normal.
func (s *Store) NID(ctx context.Context) (int64, error) { return s.nids.next(ctx, s) }

// nidBlock hands out ids from blocks reserved in the database.
type nidBlock struct {
	mu        sync.Mutex
	next_     int64
	remaining int64
}

const nidBlockSize = 4096

func (b *nidBlock) next(ctx context.Context, s *Store) (int64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.remaining == 0 {
		var end int64
		if err := s.Write(ctx, func(tx *Tx) error {
			return tx.Row([]any{&end}, `UPDATE counters SET value = value + $1 WHERE name = 'nid' RETURNING value`, int64(nidBlockSize))
		}); err != nil {
			return 0, fmt.Errorf("reserve ids: %w", err)
		}
		b.next_, b.remaining = end-nidBlockSize+1, nidBlockSize
	}
	id := b.next_
	b.next_++
	b.remaining--
	return id, nil
}
