// SPDX-License-Identifier: Apache-2.0

package syncapi

import (
	"encoding/json"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
)

// ToDeviceNote is what the Value of a storage.NoteToDevice must be for a live delivery without a read: the event as the device gets it.
type ToDeviceNote = json.RawMessage

// roomNews is what an inbox holds for one room.
type roomNews struct {
	room     *rooms.Room
	commits  []*rooms.Committed
	receipts []storage.Receipt
	typing   bool
	account  []byte
	letIn    []*rooms.Sticky
}

// live answers from the inbox.
func (a *answer) live(items []*item) error {
	var order []*roomNews
	byID := map[string]*roomNews{}
	news := func(r *rooms.Room) *roomNews {
		n := byID[r.ID]
		if n == nil {
			n = &roomNews{room: r}
			byID[r.ID] = n
			order = append(order, n)
		}
		return n
	}
	var account, presence bool
	var messages []json.RawMessage
	var lastMessage int64
	waiting := false // a to-device message without its bytes, or more than a page
	for i := range items {
		it := items[i]
		switch it.note.Kind {
		case storage.NoteEvent:
			c := it.note.Value.(*rooms.Committed)
			n := news(c.Room)
			n.commits = append(n.commits, c)
		case storage.NoteSticky:
			x := it.note.Value.(*rooms.Sticky)
			n := news(x.Room)
			n.letIn = append(n.letIn, x)
		case storage.NoteReceipt:
			r := it.note.Value.(*RoomReceipt)
			n := news(r.Room)
			n.receipts = append(n.receipts, r.Receipt)
		case storage.NoteToDevice:
			if it.note.Device != a.q.Device {
				continue
			}
			m, ok := it.note.Value.(ToDeviceNote)
			if !ok || len(messages) == toDevicePage {
				waiting = true
				continue
			}
			messages = append(messages, m)
			lastMessage = it.note.Pos
		case storage.NoteDeviceList:
			if err := a.maybeDeviceChanged(it.note.User); err != nil {
				return err
			}
		case storage.NoteKeyCounts:
			if it.note.Device == a.q.Device {
				a.something = true // body writes the counts
			}
		case storage.NoteAccountData:
			account = true
		case 0:
			switch it.kind {
			case ephTyping:
				news(it.room).typing = true
			case ephPresence:
				presence = true
			}
		}
	}
	if waiting {
		if err := a.takeToDevice(); err != nil {
			return err
		}
	} else {
		a.give(messages, lastMessage)
	}
	if account {
		byRoom, err := a.accountData()
		if err != nil {
			return err
		}
		for id, raw := range byRoom {
			r, err := a.s.Rooms.Room(a.ctx, id)
			if err != nil {
				continue // account data may outlive the room
			}
			news(r).account = raw
		}
	}
	if presence {
		if err := a.presenceSince(items); err != nil {
			return err
		}
	}
	if a.since.Sticky > 0 {
		if err := a.readSticky(a.since.Sticky); err != nil {
			return err
		}
		for id := range a.sticky {
			r, err := a.s.Rooms.Room(a.ctx, id)
			if err != nil {
				return err
			}
			news(r)
		}
	}
	for _, n := range order {
		if !a.q.Filter.Room.Allows(n.room.ID) {
			continue
		}
		if err := a.liveRoom(n); err != nil {
			return err
		}
	}
	return nil
}

func (a *answer) maybeDeviceChanged(user string) error {
	share, err := a.s.Rooms.ShareRoom(a.ctx, a.q.User, user)
	if err == nil && share {
		a.deviceChanged(user)
	}
	return err
}

// liveRoom answers for one room from its commits, when the reader was joined all the time; the long way otherwise.
func (a *answer) liveRoom(n *roomNews) error {
	joined := true
	for _, c := range n.commits {
		if c.Before == nil || !c.Before.IsJoined(a.q.User) || !c.Head.IsJoined(a.q.User) {
			joined = false
		}
	}
	if !joined {
		return a.fullRoom(n.room, n.account, n.typing || len(n.commits) > 0)
	}
	head := n.room.Head()
	if len(n.commits) > 0 {
		head = n.commits[len(n.commits)-1].Head
	} else if !head.IsJoined(a.q.User) {
		return nil
	}
	j := &joinedRoom{a: a, room: n.room, head: head, account: n.account, live: true}
	if a.sticky != nil {
		j.stuck(a.sticky[n.room.ID])
	} else {
		for _, c := range n.commits {
			if c.Stored.Status == storage.StatusOK {
				j.stick(c.Stored)
			}
		}
		for _, x := range n.letIn {
			j.stick(x.Stored)
		}
	}
	if len(n.commits) > 0 {
		if err := j.fromCommits(n.commits); err != nil {
			return err
		}
		if err := a.deviceListsOf(n.commits); err != nil {
			return err
		}
	}
	if len(n.receipts) > 0 && a.q.Filter.Room.Ephemeral.Allows(n.room.ID, "m.receipt", "", false) {
		if raw, ok := appendReceipts(nil, n.receipts, a.q.User); ok {
			j.ephemeral = list(j.ephemeral, raw)
		}
	}
	if n.typing && a.q.Filter.Room.Ephemeral.Allows(n.room.ID, "m.typing", "", false) {
		users, _ := a.s.typing.in(n.room.ID)
		j.ephemeral = list(j.ephemeral, appendTyping(nil, users))
	}
	return j.write(len(n.receipts) > 0)
}

// deviceListsOf tells of users who came into the room or left it.
func (a *answer) deviceListsOf(commits []*rooms.Committed) error {
	for _, c := range commits {
		for _, ch := range c.Changes {
			if ch.Key.Type != "m.room.member" {
				continue
			}
			u := ch.Key.StateKey
			was, is := c.Before.IsJoined(u), c.Head.IsJoined(u)
			switch {
			case is && !was:
				a.deviceChanged(u)
				a.addPresence([]string{u}, true)
			case was && !is:
				if err := a.deviceLeft(u); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func hasURL(e *event.Event) bool { return gjson.GetBytes(e.Content(), "url").Type == gjson.String }
