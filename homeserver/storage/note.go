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
	NoteTokens                          // for other nodes only: access tokens ended; Data is their hashes
	NoteDeviceGone                      // for other nodes only: User's Device was deleted
	NoteUser                            // for other nodes only: what User may do has changed
	NoteForgotten                       // for other nodes only: User has forgotten Room
	NoteLost                            // what other nodes committed was missed: nothing that is remembered is sure
	NoteSending                         // for other nodes only: something was queued for other servers, or they are away or back; Data is a Sending
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
	Remote bool // another node's
}

// Observe registers who is told of commits: f is called on the writer's goroutine, after the commit and before the writes are
// acknowledged, with the notes of one commit in stream order and the newest position. It must be quick, and it must not write.
// Call it before the first write; there is one observer.
func (s *Store) Observe(f func(pos int64, notes []Note)) { s.writer.observe.Store(&f) }

// Note adds n to what the observer is told after the commit. Inside the transaction it is announced to other nodes too, with its Value
// when that is an Announcer; what is noted after the commit must have been announced (Announce).
func (tx *Tx) Note(n Note) {
	tx.notes = append(tx.notes, n)
	if tx.durable || !tx.Shared() {
		return
	}
	a := Announcement{Pos: n.Pos, Kind: n.Kind, User: n.User, Device: n.Device, Room: n.Room}
	if v, ok := n.Value.(Announcer); ok {
		var err error
		if a.Data, err = v.Announced(); err != nil {
			tx.w.log.Error("a note could not be announced whole", "kind", n.Kind, "err", err)
		}
	}
	tx.Announce(a)
}
