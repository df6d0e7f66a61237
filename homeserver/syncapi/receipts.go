// SPDX-License-Identifier: Apache-2.0

package syncapi

import (
	"context"
	"encoding/json"
	"strconv"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// RoomReceipt is a receipt on its way to the room's members: the Value of a storage.NoteReceipt.
type RoomReceipt struct {
	Room *rooms.Room
	storage.Receipt
}

// SetReceipt moves a user's receipt in a room to an event. typ is m.read or m.read.private; thread is "" for an unthreaded receipt,
// "main", or a thread root. A receipt never moves backwards. Errors: M_NOT_FOUND, M_INVALID_PARAM.
func (s *Service) SetReceipt(ctx context.Context, room *rooms.Room, user, typ, eventID, thread string) error {
	if typ != "m.read" && typ != "m.read.private" {
		return signalling.InvalidParam("receipt type %q is not known", typ)
	}
	if len(thread) > event.MaxIDLength {
		return signalling.InvalidParam("thread_id is too long")
	}
	e, err := room.Event(ctx, eventID)
	if err != nil {
		return err
	}
	if e == nil {
		return signalling.NotFound("there is no such event in this room")
	}
	r := &RoomReceipt{Room: room, Receipt: storage.Receipt{RoomNID: room.NID, User: user, Type: typ, ThreadID: thread, EventID: eventID, EventPos: e.Pos, TS: s.Clock.Now().UnixMilli()}}
	return s.Store.Write(ctx, func(tx *storage.Tx) error {
		pos, err := tx.NextPos()
		if err != nil {
			return err
		}
		r.Pos = pos
		moved, err := tx.SetReceipt(r.Receipt)
		if err != nil || !moved {
			return err
		}
		done := *r
		tx.Note(storage.Note{Pos: pos, Kind: storage.NoteReceipt, User: user, Room: room.ID, Value: &done})
		return nil
	})
}

// appendReceipts writes one m.receipt event; a private receipt is shown to its owner only. The format has room for one receipt of a user at
// an event: one for the whole room goes before one for a thread (MSC4102).
func appendReceipts(b []byte, list []storage.Receipt, reader string) ([]byte, bool) {
	type entry struct {
		TS     int64  `json:"ts"`
		Thread string `json:"thread_id,omitempty"`
	}
	content := map[string]map[string]map[string]entry{}
	for _, r := range list {
		if r.Type == "m.read.private" && r.User != reader {
			continue
		}
		byType := content[r.EventID]
		if byType == nil {
			byType = map[string]map[string]entry{}
			content[r.EventID] = byType
		}
		if byType[r.Type] == nil {
			byType[r.Type] = map[string]entry{}
		}
		if old, two := byType[r.Type][r.User]; two && (old.Thread == "" || r.ThreadID != "" && old.TS > r.TS) {
			continue
		}
		byType[r.Type][r.User] = entry{r.TS, r.ThreadID}
	}
	if len(content) == 0 {
		return b, false
	}
	b = append(b, `{"content":`...)
	if len(list) == 1 {
		r := list[0]
		b = append(b, '{')
		b = event.AppendString(b, r.EventID)
		b = append(b, `:{`...)
		b = event.AppendString(b, r.Type)
		b = append(b, `:{`...)
		b = event.AppendString(b, r.User)
		b = append(b, `:{"ts":`...)
		b = strconv.AppendInt(b, r.TS, 10)
		if r.ThreadID != "" {
			b = append(b, `,"thread_id":`...)
			b = event.AppendString(b, r.ThreadID)
		}
		b = append(b, `}}}}`...)
	} else {
		j, _ := json.Marshal(content)
		b = append(b, j...)
	}
	return append(b, `,"type":"m.receipt"}`...), true
}
