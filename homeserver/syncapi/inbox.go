// SPDX-License-Identifier: Apache-2.0

package syncapi

import (
	"time"

	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
)

// inboxSize bounds an inbox. The oldest item is dropped when it is full; a client that was away for longer is served from the store.
const inboxSize = 192

// inboxIdle is how long the inbox of a user who does not sync is kept.
const inboxIdle = 10 * time.Minute

// item is one thing that users may hear of: a note of the stream, or something ephemeral. It never changes once it is in an inbox, and
// lies in those of everybody whom it concerns.
type item struct {
	note  storage.Note // Kind 0: ephemeral
	eph   int64
	kind  ephemeralKind
	room  *rooms.Room // typing
	users []string    // presence; device lists that may concern the user
}

type ephemeralKind uint8

const (
	ephTyping ephemeralKind = iota + 1
	ephPresence
)

// inbox holds what happened for one user after from, in order. It is guarded by the service's lock.
type inbox struct {
	from    int64 // everything of the stream after this position is here
	items   []*item
	wake    chan struct{} // closed when something arrives; nil when nobody waits
	waiting int
	woken   time.Time // when a waiting sync was woken that has not looked yet
	used    time.Time
	handed  map[string]int64  // device -> to-device position handed out and not yet acknowledged
	own     map[string]uint64 // device -> version of the user's own presence that it was given
}

func (b *inbox) put(it *item, now time.Time) {
	if len(b.items) >= inboxSize {
		drop := inboxSize / 4
		for _, old := range b.items[:drop] {
			if old.note.Kind != 0 {
				b.from = max(b.from, old.note.Pos)
			}
		}
		n := copy(b.items, b.items[drop:])
		clear(b.items[n:])
		b.items = b.items[:n]
	}
	b.items = append(b.items, it)
	b.knock(now)
}

// knock wakes whoever waits.
func (b *inbox) knock(now time.Time) {
	if b.wake != nil {
		close(b.wake)
		b.wake = nil
		if b.waiting > 0 {
			b.woken = now
		}
	}
}

// since gives the items that a client at t has not seen; ok is false when the inbox does not reach back that far.
func (b *inbox) since(t Token) (news []*item, ok bool) {
	if t.Pos < b.from {
		return nil, false
	}
	// Items are in order of arrival, so the unseen ones are at the end, but for to-device messages that a page left behind.
	first := len(b.items)
	for first > 0 {
		it := b.items[first-1]
		if it.note.Kind != 0 && it.note.Pos <= t.Pos && it.note.Pos <= t.ToDevice {
			break
		}
		first--
	}
	for i := first; i < len(b.items); i++ {
		it := b.items[i]
		switch {
		case it.note.Kind == storage.NoteToDevice:
			if it.note.Pos > t.ToDevice {
				news = append(news, it)
			}
		case it.note.Kind != 0:
			if it.note.Pos > t.Pos {
				news = append(news, it)
			}
		case it.eph > t.Eph:
			news = append(news, it)
		}
	}
	return news, true
}
