// SPDX-License-Identifier: Apache-2.0

// Package presence knows who is online, unavailable or offline, since when, and what they say about it.
//
// A user has devices; each device says online or unavailable, and must say so again within Config.Hold (a client that keeps a sync
// open does), or it counts as offline. The user is as present as the most present device. Without a sign of activity for Config.Idle
// an online user becomes unavailable (Matrix client-server API, "Presence"). Nothing here survives a restart: presence is about now.
//
// Changes are numbered, so that a reader can ask what changed since it last looked. The numbers only ever grow, also across a
// restart (they follow the clock, in microseconds), but are given out by each node for itself: a number from another node, or
// from before the restart, is answered with "not complete" where it cannot be answered exactly.
//
// With many nodes, each node is the authority for the devices connected to it, and Redis only carries what each node says:
//
//	node A: Mem ── own share of each user ──► Redis: data:A, log:A, alive:A ──► node B: Mem combines all shares
//
// So a node reads presence from its own memory, does not need Redis for its own users, and refills an empty Redis by itself.
// When a node dies, the others forget its shares after RedisConfig.NodeTTL.
package presence

import (
	"context"
	"time"
)

// State is one of the three presences of the specification.
type State string

const (
	Online      State = "online"
	Unavailable State = "unavailable"
	Offline     State = "offline"
)

// MaxStatusMsg is the greatest length of a status message, in bytes.
const MaxStatusMsg = 4096

// Status is the presence of a user.
type Status struct {
	UserID     string
	State      State // Online means that the user is currently active, in the words of the specification
	StatusMsg  string
	LastActive time.Time // zero when nothing is known
	Version    uint64    // of the last change; 0 when there never was one
}

// Update is what a device says.
type Update struct {
	UserID   string
	DeviceID string // for users of other servers: empty
	// State that the device is in from now on, for at most Config.Hold. Empty: the device is still there and its state stays, but
	// activity makes unavailable online.
	State State
	// StatusMsg, unless nil, replaces the user's status message.
	StatusMsg *string
	// LastActive is when the person last did something; zero says nothing about that. A device that comes online counts as
	// something done.
	LastActive time.Time
}

// Store keeps the presence of all users.
type Store interface {
	// Set takes what a device says. Errors: M_INVALID_PARAM for an unknown state or no user, M_TOO_LARGE for a status message over
	// MaxStatusMsg, M_LIMIT_EXCEEDED when Config.MaxUsers are known already.
	Set(ctx context.Context, u Update) error
	// Get returns one Status for each user asked for, in their order; who is not known is offline.
	Get(users ...string) []Status
	// Changes lists the users whose state or message changed after version since, oldest change first, at most limit of them
	// (0 = all). upto is the version to ask from next time. since 0 lists everybody known. When complete is false, since is too old
	// to be answered exactly (or not from here): ask from 0.
	Changes(since uint64, limit int) (changed []Status, upto uint64, complete bool)
	// Version is the version of the latest change.
	Version() uint64
	// Watch gives a channel that is poked after changes, several at a time becoming one poke, until ctx ends.
	Watch(ctx context.Context) <-chan struct{}
	// Close stops timers and goroutines, and waits for them.
	Close() error
}

// Config sets the times and bounds of a Store. Zero fields take the defaults named beside them.
type Config struct {
	Hold     time.Duration // 90 s: how long a device counts without saying anything
	Idle     time.Duration // 5 min: how long an online user counts as active without doing anything
	Retain   time.Duration // 24 h: how long an offline user is remembered
	MaxUsers int           // 500,000; when full, the user who is offline for longest makes room
}

func (c Config) withDefaults() Config {
	for d, def := range map[*time.Duration]time.Duration{&c.Hold: 90 * time.Second, &c.Idle: 5 * time.Minute, &c.Retain: 24 * time.Hour} {
		if *d <= 0 {
			*d = def
		}
	}
	if c.MaxUsers <= 0 {
		c.MaxUsers = 500_000
	}
	return c
}

// rank orders states: the most present wins.
func (s State) rank() int {
	switch s {
	case Online:
		return 2
	case Unavailable:
		return 1
	}
	return 0
}
