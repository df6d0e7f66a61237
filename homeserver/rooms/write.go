// SPDX-License-Identifier: Apache-2.0

package rooms

import (
	"slices"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/storage"
)

// What planned events become in the database: rows of the event, the state, the room's holes, and what is queued for others.

// write puts one event into the transaction; was is the head that it found.
func (r *Room) write(tx *storage.Tx, p *planned, was *Head) (int64, error) {
	if p.skip > 0 {
		if err := tx.SkipPos(p.skip); err != nil {
			return 0, err
		}
	}
	pos, err := tx.NextPos()
	if err != nil {
		return 0, err
	}
	e := p.stored
	put := tx.InsertEvent
	if p.place {
		put = tx.PlaceEvent
	}
	if !p.stays {
		if err := put(r.row(e, pos), e.PrevIDs()); err != nil {
			return 0, err
		}
	}
	for _, g := range p.groups {
		if err := tx.InsertStateGroup(g.row(r.NID)); err != nil {
			return 0, err
		}
	}
	if err := r.writeChanges(tx, p, was, pos); err != nil {
		return 0, err
	}
	if err := r.writeSticky(tx, p, was, pos); err != nil {
		return 0, err
	}
	if err := r.writeHoles(tx, p); err != nil {
		return 0, err
	}
	if !e.Status.Accepted() {
		return pos, nil
	}
	if err := r.writeOutbox(tx, p, was, pos); err != nil {
		return 0, err
	}
	return pos, r.writeMeaning(tx, p, pos)
}

func (r *Room) row(e *Stored, pos int64) storage.EventRow {
	return storage.EventRow{NID: e.NID, RoomNID: r.NID, ID: e.ID(), Type: e.Type(), Sender: e.Sender(), StateKey: e.StateKey(), Depth: e.Depth(), OriginTS: e.OriginTS(), Pos: pos,
		Status: e.Status, StateBefore: e.StateBefore, StateAfter: e.StateAfter, RedactedBy: e.RedactedBy, SenderDevice: e.Device, TxnID: e.TxnID, JSON: e.JSON()}
}

// writeChanges records what an event does to the room's current state, and which users of ours come into a room with other servers: those
// are told of their devices.
func (r *Room) writeChanges(tx *storage.Tx, p *planned, was *Head, pos int64) error {
	if len(p.changes) == 0 {
		return nil
	}
	moves := make([]storage.StateMove, len(p.changes))
	var members []storage.Membership
	for i, c := range p.changes {
		moves[i] = storage.StateMove{Type: c.Key.Type, StateKey: c.Key.StateKey, EventNID: c.New.NID, PrevNID: c.Old.NID}
		if c.Key.Type == "m.room.member" {
			user := c.Key.StateKey
			members = append(members, storage.Membership{User: user, RoomNID: r.NID, Membership: p.after.members.of(user), EventNID: c.New.NID, Pos: pos})
			if p.after.Entered(was, user) && event.ServerOf(user) == r.s.signer.Server && r.among(p) {
				if err := tx.InsertDeviceListJoin(user, r.NID); err != nil {
					return err
				}
			}
		}
	}
	if err := tx.SetStates(r.NID, pos, moves); err != nil {
		return err
	}
	return tx.SetMemberships(members)
}

// among says whether other servers are in the room after an event.
func (r *Room) among(p *planned) bool {
	return p.foreign || len(p.after.members.servers) > 1 || r.partial.Load() != nil
}

// writeHoles records what is missing before an event, and that it is missing no more itself.
func (r *Room) writeHoles(tx *storage.Tx, p *planned) error {
	for _, id := range p.missing {
		if err := tx.InsertGap(r.NID, id, p.stored.NID); err != nil {
			return err
		}
	}
	if p.fillsGap {
		if err := tx.DeleteGap(r.NID, p.stored.ID()); err != nil {
			return err
		}
	}
	if p.fillsEarly {
		if err := tx.DeleteEarlyRedactions(r.NID, p.stored.ID()); err != nil {
			return err
		}
	}
	if p.early != "" {
		return tx.InsertEarlyRedaction(r.NID, p.early, p.stored.NID)
	}
	return nil
}

// writeMeaning records what an event relates to and what it redacts.
func (r *Room) writeMeaning(tx *storage.Tx, p *planned, pos int64) error {
	e := p.stored
	if rel := gjson.GetBytes(e.Content(), "m\\.relates_to"); rel.IsObject() {
		// What does not fit into the columns relates to nothing.
		target, kind := rel.Get("event_id"), rel.Get("rel_type")
		if target.Type == gjson.String && fits(target.Str) && fits(kind.Str) {
			if err := tx.InsertRelation(storage.Relation{
				RelatesTo: target.Str, RelType: kind.Str, EventNID: e.NID, RoomNID: r.NID, Sender: e.Sender(), Type: e.Type(), Pos: pos, OriginTS: e.OriginTS(),
			}); err != nil {
				return err
			}
		}
	}
	if p.redact != nil {
		if err := tx.RedactEvent(p.redact.target.NID, p.redact.done.JSON(), e.ID()); err != nil {
			return err
		}
	}
	return nil
}

// hurries says whether an event is one that people wait for with a telephone in their hand.
func hurries(typ string) bool {
	switch typ {
	case "m.rtc.member", "org.matrix.msc4143.rtc.member", "org.matrix.msc3401.call.member", "m.rtc.notification", "org.matrix.msc4075.rtc.notification",
		"org.matrix.msc4075.call.notify", "m.rtc.decline", "org.matrix.msc4310.rtc.decline", "org.matrix.msc4143.rtc.slot", "m.rtc.slot":
		return true
	}
	return strings.HasPrefix(typ, "m.call.")
}

// writeOutbox queues an event for the servers that hear of it from us: those in the room before or after it, and the server of a user
// who was invited, or knocked, and hears now that nothing comes of it.
func (r *Room) writeOutbox(tx *storage.Tx, p *planned, was *Head, pos int64) error {
	e := p.stored
	own, origin := r.s.signer.Server, event.ServerOf(e.Sender())
	if p.foreign && !p.relay || !p.foreign && origin != own {
		return nil
	}
	p.outbox = p.outbox[:0]
	add := func(server string) {
		if server != own && server != origin && server != "" && !slices.Contains(p.outbox, server) {
			p.outbox = append(p.outbox, server)
		}
	}
	if len(p.after.members.servers) > 8 { // the common case without the square
		p.outbox = slices.DeleteFunc(slices.Clone(p.after.members.servers), func(s string) bool { return s == own || s == origin || s == "" })
	} else {
		for _, s := range p.after.members.servers {
			add(s)
		}
	}
	if m := e.Membership(); m != "" && was != nil {
		for _, s := range was.members.servers {
			if p.after.members.counts[s] == 0 {
				add(s)
			}
		}
		if _, had := was.state.get(e.Key()); had && (m == "leave" || m == "ban") {
			add(event.ServerOf(*e.StateKey()))
		}
	}
	if part := r.partial.Load(); part != nil {
		for _, s := range part.Servers {
			add(s)
		}
	}
	urgent := hurries(e.Type())
	for _, server := range p.outbox {
		// The outbox id is the stream position, so that the order to each server is the order of commits.
		if err := tx.InsertOutbox(storage.Queued{Destination: server, Seq: pos, EventNID: e.NID, Urgent: urgent}); err != nil {
			return err
		}
	}
	return nil
}

func fits(s string) bool { return len(s) <= event.MaxIDLength && strings.IndexByte(s, 0) < 0 }
