// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

const (
	queueSize = 1024 // ops waiting; beyond it, writers wait
	batchSize = 128  // ops in one commit
)

// ErrClosed says that the store is closing.
var ErrClosed = errors.New("storage: closed")

type op struct {
	run  func(*Tx) error
	done func(error)
}

// writer owns the one connection that writes.
type writer struct {
	db     *sql.DB
	conn   *sql.Conn
	engine engine
	log    *slog.Logger
	stmts  map[string]*sql.Stmt
	queue  chan op
	pos    atomic.Int64

	observe atomic.Pointer[func(int64, []Note)]
	share   atomic.Pointer[sharing] // nil on a node that is alone

	mu     sync.RWMutex // guards closed against a send on a closed queue
	closed bool
	ended  chan struct{}
}

func newWriter(ctx context.Context, db *sql.DB, e engine, log *slog.Logger) (*writer, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	w := &writer{db: db, conn: conn, engine: e, log: log, stmts: map[string]*sql.Stmt{}, queue: make(chan op, queueSize), ended: make(chan struct{})}
	var pos int64
	if err := conn.QueryRowContext(ctx, `SELECT value FROM counters WHERE name = 'stream'`).Scan(&pos); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	w.pos.Store(pos)
	go w.loop()
	return w, nil
}

func (w *writer) enqueue(run func(*Tx) error, done func(error)) error {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.closed {
		return ErrClosed
	}
	w.queue <- op{run, done}
	return nil
}

func (w *writer) close() error {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return nil
	}
	w.closed = true
	close(w.queue)
	w.mu.Unlock()
	<-w.ended
	var err error
	for _, st := range w.stmts {
		err = errors.Join(err, st.Close())
	}
	if w.conn != nil {
		err = errors.Join(err, w.conn.Close())
	}
	return err
}

func (w *writer) loop() {
	defer close(w.ended)
	batch := make([]op, 0, batchSize)
	for first := range w.queue {
		batch = append(batch[:0], first)
	fill:
		for len(batch) < batchSize {
			select {
			case o, ok := <-w.queue:
				if !ok {
					break fill
				}
				batch = append(batch, o)
			default:
				break fill
			}
		}
		w.commit(batch)
	}
}

// commit runs a batch in one transaction; when an op fails, or the commit does, each op gets a transaction of its own.
func (w *writer) commit(batch []op) {
	err := w.transaction(batch)
	if err == nil {
		for _, o := range batch {
			o.done(nil)
		}
		return
	}
	if len(batch) == 1 {
		batch[0].done(err)
		return
	}
	for i := range batch {
		batch[i].done(w.transaction(batch[i : i+1]))
	}
}

func (w *writer) transaction(batch []op) (err error) {
	ctx := context.Background() // a write that was queued is finished; callers stop waiting by themselves
	if err := w.begin(ctx); err != nil {
		return err
	}
	tx := &Tx{w: w, ctx: ctx}
	defer func() {
		if err != nil {
			if _, rerr := w.conn.ExecContext(ctx, "ROLLBACK"); rerr != nil {
				w.log.Error("rollback failed; the database connection is made anew", "err", rerr)
				w.drop()
			}
		}
	}()
	for _, o := range batch {
		if err := guard(o.run, tx); err != nil {
			return err
		}
	}
	share := w.share.Load()
	if share != nil {
		tx.announceQueued()
	}
	if len(tx.announced) > 0 {
		if err := tx.writeLog(share); err != nil {
			return err
		}
	}
	if tx.taken > 0 {
		if _, err := tx.Exec(`UPDATE counters SET value = $1 WHERE name = 'stream'`, tx.base+tx.taken); err != nil {
			return err
		}
	}
	if _, err := w.conn.ExecContext(ctx, "COMMIT"); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	tx.durable = true
	if tx.taken > 0 {
		if share != nil && tx.base > w.pos.Load() {
			w.follow(share, tx.base) // others were first
		}
		w.pos.Store(tx.base + tx.taken)
	}
	for _, f := range tx.after {
		f()
	}
	w.tell(tx.notes)
	if len(tx.announced) > 0 {
		share.told()
	}
	if share != nil && tx.follow {
		w.follow(share, math.MaxInt64)
	}
	return nil
}

// guard turns a panic of one op into its error: the writer serves everybody.
func guard(run func(*Tx) error, tx *Tx) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic in a write: %v", r)
		}
	}()
	return run(tx)
}

func (w *writer) drop() {
	for _, st := range w.stmts {
		_ = st.Close()
	}
	clear(w.stmts)
	_ = w.conn.Close()
	w.conn = nil
}

// begin opens the transaction. PostgreSQL may have restarted since the last one: then a new connection is tried for a few seconds.
func (w *writer) begin(ctx context.Context) error {
	text := "BEGIN IMMEDIATE"
	if w.engine == postgres {
		text = "BEGIN"
	}
	var last error
	for try := range 12 {
		if w.conn == nil {
			conn, err := w.db.Conn(ctx)
			if err != nil {
				last = err
				time.Sleep(time.Duration(try+1) * 50 * time.Millisecond)
				continue
			}
			w.conn = conn
		}
		if _, last = w.conn.ExecContext(ctx, text); last == nil {
			return nil
		}
		w.drop()
	}
	return fmt.Errorf("the database cannot be reached: %w", last)
}

// Tx is the writer's transaction as one op sees it.
type Tx struct {
	w     *writer
	ctx   context.Context
	base  int64 // newest position before this transaction
	taken int64 // positions given out
	notes []Note
	after []func()

	announced []Announcement      // for other nodes
	queued    map[string]struct{} // other servers that something was queued for; kept when there are other nodes
	durable   bool                // committed
	follow    bool                // read what other nodes committed
}

// Context is good for reads that a write needs: a write that was queued is finished, whoever waits for it.
func (tx *Tx) Context() context.Context { return tx.ctx }

// After has f called on the writer's goroutine once the transaction is durable, before the observer hears of it. f must be quick and
// must not write.
func (tx *Tx) After(f func()) { tx.after = append(tx.after, f) }

// NextPos takes the next position of the stream.
func (tx *Tx) NextPos() (int64, error) {
	if tx.taken == 0 {
		query := `SELECT value FROM counters WHERE name = 'stream'`
		if tx.w.engine == postgres {
			query += ` FOR UPDATE` // the row lock orders the commits of several nodes
		}
		if err := tx.Row([]any{&tx.base}, query); err != nil {
			return 0, err
		}
	}
	tx.taken++
	return tx.base + tx.taken, nil
}

func (tx *Tx) stmt(query string) (*sql.Stmt, error) {
	if st := tx.w.stmts[query]; st != nil {
		return st, nil
	}
	st, err := tx.w.conn.PrepareContext(tx.ctx, query)
	if err != nil {
		return nil, fmt.Errorf("prepare %.60q: %w", query, err)
	}
	tx.w.stmts[query] = st
	return st, nil
}

// Exec runs a statement and gives the number of rows it touched. The text must be a constant: it is prepared once.
func (tx *Tx) Exec(query string, args ...any) (int64, error) {
	st, err := tx.stmt(query)
	if err != nil {
		return 0, err
	}
	r, err := st.ExecContext(tx.ctx, args...)
	if err != nil {
		return 0, fmt.Errorf("%.60q: %w", query, err)
	}
	return r.RowsAffected()
}

// Row reads one row; ErrNotFound when there is none.
func (tx *Tx) Row(dest []any, query string, args ...any) error {
	st, err := tx.stmt(query)
	if err != nil {
		return err
	}
	err = st.QueryRowContext(tx.ctx, args...).Scan(dest...)
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	return err
}

// Rows reads every row through scan.
func (tx *Tx) Rows(scan func(*sql.Rows) error, query string, args ...any) error {
	st, err := tx.stmt(query)
	if err != nil {
		return err
	}
	r, err := st.QueryContext(tx.ctx, args...)
	if err != nil {
		return err
	}
	return each(r, scan)
}
