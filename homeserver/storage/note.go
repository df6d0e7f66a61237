// SPDX-License-Identifier: Apache-2.0

package storage

// NoteKind says which stream a Note belongs to.
type NoteKind uint8

// The kinds of notes.
const (
	NoteEvent       NoteKind = iota + 1 // an event entered a room's timeline, or a room's state changed; Value is the rooms package's
	NoteReceipt                         // a receipt moved; Room is set, User is who read
	NoteToDevice                        // a to-device message waits; User and Device are set; Value is the event, a json.RawMessage
	NoteDeviceList                      // a user's devices or keys changed; User is set; Value is OnlyFor when one other user alone sees it
	NoteKeyCounts                       // one-time or fallback keys of User's Device changed
	NoteAccountData                     // account data of User changed; Room is set for room account data
	NoteMembership                      // an invite, or a membership of User, outside of a room we hold
	NoteSticky                          // a sticky event that was soft-failed is let in; Value is the rooms package's
	NoteThread                          // User's subscription to a thread changed; Room is set
	NotePushers                         // pushers of User were made, changed or removed
)

// Note tells whoever waits for the stream what a committed transaction put into it. Value may hold what was written, so that a live
// delivery needs no read.
type Note struct {
	Pos    int64
	Kind   NoteKind
	User   string
	Device string
	Room   string
	Value  any
}

// Observe registers who is told of commits: f is called on the writer's goroutine, after the commit and before the writes are
// acknowledged, with the notes of one commit in stream order and the newest position. It must be quick, and it must not write.
// Call it before the first write; there is one observer.
func (s *Store) Observe(f func(pos int64, notes []Note)) { s.writer.observe.Store(&f) }

// Note adds n to what the observer is told after the commit.
func (tx *Tx) Note(n Note) { tx.notes = append(tx.notes, n) }
