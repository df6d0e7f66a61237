// SPDX-License-Identifier: Apache-2.0

// Package session knows which node holds what, and who is in which call right now.
//
// A lease says that one node holds something: a room of the SFU, a call. At most one node holds a key at a time; a lease ends by
// itself when it is not renewed, and only then can another node take the key. Each grant carries a token greater than all tokens
// given for that key before (a fencing token): whoever receives orders from holders ignores those with a lesser token than it has
// seen, so a node that was asleep while its lease ran out does no harm. Tokens keep growing when Redis has lost everything.
//
// A session is one user's part in something live: a TURN allocation, a participant of the SFU, a party of a call. Sessions too end
// by themselves unless they are put again.
//
// A Keeper does the renewing on behalf of a node:
//
//	room begins ──► Keeper.Hold ──► lease held, renewed at each tick ──► room ends: Keeper.Release
//	                    │                 │
//	                    │                 └─ taken by another node while we could not renew ──► lost(lease): give the room up
//	                    └─ Redis away: provisional lease (Token 0), made good or lost when Redis returns
//
// After Redis has come back empty, keys can for a moment (RedisConfig.Settle) only be taken by nodes that held them before.
package session

import (
	"context"
	"errors"
	"time"
)

// ErrLost is returned by Renew when another node holds the lease now.
var ErrLost = errors.New("session: the lease is held by another node")

// Node is one process of a Trunkboard.
type Node struct {
	ID  string // unique among running nodes
	URL string // where other nodes reach it
}

// Lease says that Node holds Key.
type Lease struct {
	Key     string
	Node    Node
	Token   uint64    // fencing token; 0 = provisional, see Keeper
	Expires time.Time // by this node's clock, about
}

// Kind is what a session is part of.
type Kind string

const (
	Call Kind = "call" // a party of an m.call or MatrixRTC call
	SFU  Kind = "sfu"  // a participant of an SFU room
	TURN Kind = "turn" // a TURN allocation
)

// Session is one user's part in something live. Room and User do not change while the ID lives.
type Session struct {
	ID      string    `json:"id"` // unique among all kinds and nodes
	Kind    Kind      `json:"kind"`
	Room    string    `json:"room,omitempty"`
	User    string    `json:"user,omitempty"`
	Device  string    `json:"device,omitempty"`
	Call    string    `json:"call,omitempty"` // call_id, where known
	Node    string    `json:"node"`           // Node.ID
	Started time.Time `json:"started"`
}

// Leases gives and takes leases.
type Leases interface {
	// Acquire takes key for a node if nobody holds it, and returns the lease in force: that node's, or another's. A node that
	// holds key already gets its lease renewed, with the same token.
	Acquire(ctx context.Context, key string, by Node, ttl time.Duration) (Lease, error)
	// Renew makes l last for ttl from now. If it has run out and nobody has taken it, it is given again, with a new token. If
	// another node holds it, the error is ErrLost.
	Renew(ctx context.Context, l Lease, ttl time.Duration) (Lease, error)
	// Release gives l up. A lease that is not held with l's token is left alone.
	Release(ctx context.Context, l Lease) error
	// Holder returns the lease of key, if there is one.
	Holder(ctx context.Context, key string) (Lease, bool, error)
}

// Sessions lists what is live.
type Sessions interface {
	// Put adds sessions, or keeps those that are there, for ttl from now.
	Put(ctx context.Context, ttl time.Duration, sessions ...Session) error
	// Drop removes sessions; ids that are not there do not matter.
	Drop(ctx context.Context, ids ...string) error
	// ByRoom and ByUser list the live sessions of a room or user, oldest first.
	ByRoom(ctx context.Context, room string) ([]Session, error)
	ByUser(ctx context.Context, user string) ([]Session, error)
}

// Store is both, with an end.
type Store interface {
	Leases
	Sessions
	Close() error
}

func inOrder(a, b Session) int {
	if c := a.Started.Compare(b.Started); c != 0 {
		return c
	}
	if a.ID < b.ID {
		return -1
	}
	return 1
}
