// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"
)

// Several nodes on one PostgreSQL hear of each other's commits through stream_log: a row for each commit that has something to tell,
// written in its transaction, under the lock that orders commits. So rows become visible in the order of their positions, and a node
// that has read up to a position misses nothing by reading on from there:
//
//	node A: BEGIN · ops · stream_log · COMMIT ─> hint (bus) ─> node B: reads on from its position ─> its observer
//
// A node's own commit that finds others before it reads those first. Observers of each node therefore hear of every commit of all
// nodes, once, in the order of the commits.

// Announcement is a note on its way to other nodes.
type Announcement struct {
	Pos    int64           `json:"p"`
	Kind   NoteKind        `json:"k"`
	User   string          `json:"u,omitempty"`
	Device string          `json:"v,omitempty"`
	Room   string          `json:"r,omitempty"`
	Data   json.RawMessage `json:"d,omitempty"` // what Value becomes on its way; nil for none
}

// Announcer is a Value of a Note that other nodes need. What is nil is announced without it.
type Announcer interface {
	Announced() (json.RawMessage, error)
}

// Announced carries who alone sees a change of a device list.
func (o OnlyFor) Announced() (json.RawMessage, error) { return json.Marshal(string(o)) }

const (
	logKept   = 10 * time.Minute // what a node that was asleep for longer has missed is lost to it
	logCheck  = time.Minute      // how often a node makes sure that it has missed nothing; much less than logKept
	logBatch  = 200              // rows read at once
	mostKept  = 60_000           // bytes of one announcement's Data; what is larger is read by those who need it
	pruneRows = 10_000
)

// sharing is what a node of several has.
type sharing struct {
	node    string
	hear    func([]Announcement) ([]Note, error)
	told    func()
	checked atomic.Int64 // when it was last made sure that nothing is missing, in ms since 1970
}

// Share makes this store that of one of several nodes: from here on commits are announced to the others, and those of others are
// handed to hear, on the writer's goroutine and in order, to be made into notes for the observer. A NoteLost among the announcements
// says that some were missed: whatever is remembered may be wrong. told is called after each commit that announced something; it must
// be quick. Share does nothing on SQLite. Call it after Observe and before the first request.
func (s *Store) Share(node string, hear func([]Announcement) ([]Note, error), told func()) {
	if s.engine == postgres {
		x := &sharing{node: node, hear: hear, told: told}
		x.checked.Store(time.Now().UnixMilli())
		s.writer.share.Store(x)
	}
}

// CatchUp reads what other nodes have committed and returns when the observer has heard of it.
func (s *Store) CatchUp(ctx context.Context) error {
	return s.Write(ctx, func(tx *Tx) error {
		tx.follow = true
		return nil
	})
}

// PruneLog drops what every node has read long ago.
func (s *Store) PruneLog(ctx context.Context) error {
	return s.Write(ctx, func(tx *Tx) error {
		var last sql.NullInt64
		before := time.Now().Add(-logKept).UnixMilli()
		err := tx.Row([]any{&last}, `SELECT MAX(stream_pos) FROM (SELECT stream_pos FROM stream_log WHERE ts < $1 ORDER BY stream_pos LIMIT $2) x`, before, pruneRows)
		if err != nil || !last.Valid {
			return err
		}
		if _, err := tx.Exec(`UPDATE counters SET value = $1 WHERE name = 'stream_log' AND value < $1`, last.Int64); err != nil {
			return err
		}
		_, err = tx.Exec(`DELETE FROM stream_log WHERE stream_pos <= $1`, last.Int64)
		return err
	})
}

// Announce adds to what other nodes are told of this transaction. Note does so by itself for notes that are made inside the transaction.
func (tx *Tx) Announce(a Announcement) {
	if tx.w.share.Load() != nil {
		if len(a.Data) > mostKept {
			a.Data = nil
		}
		tx.announced = append(tx.announced, a)
	}
}

// Shared says that other nodes hear of this transaction, so that what only they need need not be made for nobody.
func (tx *Tx) Shared() bool { return tx.w.share.Load() != nil }

// writeLog stores the announcements, as the last statement before the commit but for the counter.
func (tx *Tx) writeLog(x *sharing) error {
	if tx.taken == 0 {
		if _, err := tx.NextPos(); err != nil {
			return err
		}
	}
	for i := range tx.announced {
		if tx.announced[i].Pos == 0 {
			tx.announced[i].Pos = tx.base + tx.taken
		}
	}
	b, err := json.Marshal(tx.announced)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO stream_log (stream_pos, node, ts, notes) VALUES ($1, $2, $3, $4)`, tx.base+tx.taken, x.node, time.Now().UnixMilli(), b)
	return err
}

// follow hands on what other nodes committed after this node's position, up to and including a position.
func (w *writer) follow(x *sharing, upto int64) {
	err := w.followOn(x, upto)
	if err == nil {
		return
	}
	w.log.Error("what other nodes committed could not be read; what is remembered is given up", "err", err)
	to := upto
	if to == math.MaxInt64 {
		to = w.pos.Load()
	}
	w.lost(x, to)
}

// lost has everybody forget what may be wrong.
func (w *writer) lost(x *sharing, pos int64) {
	notes, err := x.hear([]Announcement{{Pos: pos, Kind: NoteLost}})
	if err != nil {
		w.log.Error("what is remembered could not be given up", "err", err)
	}
	w.pos.Store(max(pos, w.pos.Load()))
	w.tell(notes)
}

func (w *writer) tell(notes []Note) {
	if f := w.observe.Load(); f != nil && len(notes) > 0 {
		(*f)(w.pos.Load(), notes)
	}
}

func (w *writer) followOn(x *sharing, upto int64) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if now := time.Now().UnixMilli(); now-x.checked.Load() >= logCheck.Milliseconds() {
		var dropped int64
		if err := w.db.QueryRowContext(ctx, `SELECT value FROM counters WHERE name = 'stream_log'`).Scan(&dropped); err != nil {
			return err
		}
		x.checked.Store(now)
		if from := w.pos.Load(); dropped > from {
			w.log.Warn("this node was away for so long that it missed what others told; what is remembered is given up")
			w.lost(x, dropped)
		}
	}
	for {
		list, last, n, err := w.readLog(ctx, upto)
		if err != nil {
			return err
		}
		if len(list) > 0 {
			if notes, err := x.hear(list); err != nil {
				w.log.Error("what another node committed could not be taken in; what is remembered is given up", "err", err)
				w.lost(x, last)
			} else {
				w.pos.Store(last)
				w.tell(notes)
			}
		}
		if n < logBatch {
			if upto != math.MaxInt64 {
				w.pos.Store(max(upto, w.pos.Load()))
			}
			return nil
		}
	}
}

func (w *writer) readLog(ctx context.Context, upto int64) (list []Announcement, last int64, n int, err error) {
	const query = `SELECT stream_pos, notes FROM stream_log WHERE stream_pos > $1 AND stream_pos <= $2 ORDER BY stream_pos LIMIT $3`
	st := w.stmts[query]
	if st == nil {
		if w.conn == nil {
			return nil, 0, 0, errors.New("storage: no connection")
		}
		if st, err = w.conn.PrepareContext(ctx, query); err != nil {
			return nil, 0, 0, err
		}
		w.stmts[query] = st
	}
	rows, err := st.QueryContext(ctx, w.pos.Load(), upto, logBatch)
	if err != nil {
		return nil, 0, 0, err
	}
	defer rows.Close()
	for rows.Next() {
		var b []byte
		if err := rows.Scan(&last, &b); err != nil {
			return nil, 0, 0, err
		}
		n++
		var part []Announcement
		if err := json.Unmarshal(b, &part); err != nil {
			return nil, 0, 0, fmt.Errorf("stream_log at %d: %w", last, err)
		}
		list = append(list, part...)
	}
	return list, last, n, rows.Err()
}
