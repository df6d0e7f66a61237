// SPDX-License-Identifier: Apache-2.0

package syncapi

import (
	"slices"

	"github.com/trunkboard/trunkboard/homeserver/rooms"
)

// Sticky events (MSC4354): while an event sticks, everybody who is joined hears of it, whatever the history visibility and the timeline
// limit say. It stands in msc4354_sticky of its room unless the same answer has it in the timeline. What was committed just now is at
// hand; the store is asked by a client that was away, that has just joined, or that was given a page.

// stickyPage is how many sticky events of the store one answer holds, and how many of each room that was just joined. The token of an
// answer that is full stays behind, and the next one goes on from there; it may tell some again.
const stickyPage = 100

// readSticky reads what sticks in the reader's rooms after a position.
func (a *answer) readSticky(from int64) error {
	byRoom, last, full, err := a.s.Rooms.StickyOf(a.ctx, a.q.User, from, a.next.Pos, stickyPage)
	if err != nil {
		return err
	}
	if a.sticky = byRoom; byRoom == nil {
		a.sticky = map[string][]rooms.Sticky{}
	}
	if full {
		a.stickyBehind(last)
	}
	return nil
}

// stickyBehind notes that the answer holds what sticks up to a position only.
func (a *answer) stickyBehind(pos int64) {
	if a.next.Sticky == 0 || pos < a.next.Sticky {
		a.next.Sticky = pos
	}
}

// stick adds an event, unless it has ceased to stick, is there already, or is of somebody whom the reader ignores.
func (j *joinedRoom) stick(e *rooms.Stored) {
	if e.StickyUntil <= j.a.now.UnixMilli() || j.a.ignores(e) || slices.Contains(j.sticky, e) {
		return
	}
	j.sticky = append(j.sticky, e)
}

func (j *joinedRoom) stuck(list []rooms.Sticky) {
	for _, x := range list {
		j.stick(x.Stored)
	}
}

// stickyFromStore adds what sticks in the room. fresh says that the reader came into it after his token: then all of it is new.
func (j *joinedRoom) stickyFromStore(fresh bool) error {
	if fresh {
		list, err := j.room.Sticky(j.a.ctx, 0, j.a.next.Pos, stickyPage)
		if err != nil {
			return err
		}
		if len(list) == stickyPage {
			j.a.stickyBehind(list[len(list)-1].Pos)
		}
		j.stuck(list)
		return nil
	}
	if j.a.sticky != nil {
		j.stuck(j.a.sticky[j.room.ID])
		return nil
	}
	list, err := j.room.Sticky(j.a.ctx, j.a.since.Pos, j.a.next.Pos, stickyPage)
	if err != nil {
		return err
	}
	if len(list) == stickyPage {
		j.a.stickyBehind(list[len(list)-1].Pos)
	}
	j.stuck(list)
	return nil
}

// hasSticky says whether something sticks that the timeline does not show.
func (j *joinedRoom) hasSticky() bool {
	return slices.ContainsFunc(j.sticky, func(e *rooms.Stored) bool { return !j.shows(e) })
}

func (j *joinedRoom) shows(e *rooms.Stored) bool {
	return slices.ContainsFunc(j.timeline, func(t *rooms.Stored) bool { return t.NID == e.NID })
}

// appendSticky writes the section.
func (j *joinedRoom) appendSticky(b []byte) ([]byte, error) {
	var events []byte
	for _, e := range j.sticky {
		if j.shows(e) {
			continue
		}
		raw, err := j.room.AppendClient(j.a.ctx, nil, e, rooms.View{User: j.a.q.User, Device: j.a.q.Device, Now: j.a.now, Bare: true})
		if err != nil {
			return b, err
		}
		events = list(events, raw)
	}
	return appendEvents(b, "msc4354_sticky", events), nil
}
