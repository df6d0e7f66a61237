// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"database/sql"
	"encoding/json"
	"time"
)

// Of several nodes exactly one sends to another server. sending_leases says which: a row stays with its node until that node is gone.
// A node is gone when it has not beaten for a while, by the clock of the database; the next node that beats then takes over all that was
// its own, in one transaction. So a row never belongs to nobody, and a claim needs no look at who lives.

// Sending is what nodes tell each other of other servers: for which of them something was queued, and which of them do not answer, or
// answer again.
type Sending struct {
	Queued []string `json:"q,omitempty"`
	Away   []string `json:"a,omitempty"`
	Back   []string `json:"b,omitempty"`
}

// AnnounceSending tells the other nodes. What InsertOutbox queues is told of by itself.
func (tx *Tx) AnnounceSending(x Sending) {
	if !tx.Shared() {
		return
	}
	data, err := json.Marshal(x)
	if err != nil {
		tx.w.log.Error("what is queued could not be announced whole", "err", err)
	}
	tx.Announce(Announcement{Kind: NoteSending, Data: data})
}

// announceQueued tells the other nodes for whom this transaction has queued something.
func (tx *Tx) announceQueued() {
	if len(tx.queued) == 0 {
		return
	}
	list := make([]string, 0, len(tx.queued))
	for d := range tx.queued {
		list = append(list, d)
	}
	tx.AnnounceSending(Sending{Queued: list})
}

// SendingLease is a row of sending_leases.
type SendingLease struct {
	Destination, Node string
	Away              bool
}

// Beat is what came of a sign of life.
type Beat struct {
	Lapsed bool           // others may have taken this node for gone, or it is new
	Gone   bool           // another node was found gone; what was its own is this node's now
	Leases []SendingLease // where Lapsed or Gone: all there are
}

// BeatSending says that a node lives for ttl from now, and takes over from those that do not. PostgreSQL only.
func (tx *Tx) BeatSending(node string, ttl time.Duration) (b Beat, err error) {
	if err := tx.lockStream(); err != nil {
		return b, err
	}
	var now int64
	if err := tx.Row([]any{&now}, `SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)`); err != nil {
		return b, err
	}
	until := now + ttl.Milliseconds()
	n, err := tx.Exec(`UPDATE sending_nodes SET until_ts = $1 WHERE node = $2 AND until_ts > $3`, until, node, now)
	if err != nil {
		return b, err
	}
	if n == 0 {
		b.Lapsed = true
		if _, err := tx.Exec(`INSERT INTO sending_nodes (node, until_ts) VALUES ($1, $2) ON CONFLICT (node) DO UPDATE SET until_ts = excluded.until_ts`, node, until); err != nil {
			return b, err
		}
	}
	if n, err = tx.Exec(`UPDATE sending_leases SET node = $1 WHERE node IN (SELECT node FROM sending_nodes WHERE until_ts <= $2)`, node, now); err != nil {
		return b, err
	}
	gone, err := tx.Exec(`DELETE FROM sending_nodes WHERE until_ts <= $1`, now)
	if err != nil {
		return b, err
	}
	b.Gone = n > 0 || gone > 0
	if b.Lapsed || b.Gone {
		err = tx.Rows(func(r *sql.Rows) error {
			var l SendingLease
			var away int64
			err := r.Scan(&l.Destination, &l.Node, &away)
			l.Away = away != 0
			b.Leases = append(b.Leases, l)
			return err
		}, `SELECT destination, node, away FROM sending_leases`)
	}
	return b, err
}

// ClaimSending takes a destination for a node if it is no node's yet, and gives the node whose it is.
func (tx *Tx) ClaimSending(destination, node string) (owner string, err error) {
	if err := tx.lockStream(); err != nil {
		return "", err
	}
	if _, err := tx.Exec(`INSERT INTO sending_leases (destination, node) VALUES ($1, $2) ON CONFLICT (destination) DO NOTHING`, destination, node); err != nil {
		return "", err
	}
	err = tx.Row([]any{&owner}, `SELECT node FROM sending_leases WHERE destination = $1`, destination)
	return owner, err
}

// MarkSending notes that a destination does not answer, or does again, and tells the other nodes.
func (tx *Tx) MarkSending(destination, node string, away bool) error {
	if err := tx.lockStream(); err != nil {
		return err
	}
	mark, x := 0, Sending{Back: []string{destination}}
	if away {
		mark, x = 1, Sending{Away: []string{destination}}
	}
	n, err := tx.Exec(`UPDATE sending_leases SET away = $1 WHERE destination = $2 AND node = $3`, mark, destination, node)
	if err == nil && n > 0 {
		tx.AnnounceSending(x)
	}
	return err
}

// LeaveSending says that a node is gone; the next that beats takes over.
func (tx *Tx) LeaveSending(node string) error {
	if err := tx.lockStream(); err != nil {
		return err
	}
	_, err := tx.Exec(`UPDATE sending_nodes SET until_ts = 0 WHERE node = $1`, node)
	return err
}

// lockStream takes the lock that orders commits (NextPos) without taking a position. Statements after it see what was committed before.
// Every transaction that locks rows which other nodes lock too begins with it, or two of them could wait for each other.
func (tx *Tx) lockStream() error {
	if tx.taken > 0 || tx.w.engine != postgres {
		return nil
	}
	var pos int64
	return tx.Row([]any{&pos}, `SELECT value FROM counters WHERE name = 'stream' FOR UPDATE`)
}
