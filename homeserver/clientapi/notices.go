// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"encoding/json"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/notices"
	"github.com/trunkboard/trunkboard/signalling"
)

// routesNotices: how administrators have the server tell a user something, in the form that their tools know.
func (a *API) routesNotices() {
	if a.Notices == nil {
		return
	}
	const path = "/_synapse/admin/v1/send_server_notice"
	a.route("POST "+path, Admin, "requests", a.sendNotice)
	a.route("PUT "+path+"/{txn}", Admin, "requests", a.sendNotice)
}

func (a *API) sendNotice(r *Request) (any, error) {
	var in struct {
		UserID   string          `json:"user_id"`
		Type     string          `json:"type"`
		StateKey *string         `json:"state_key"`
		Content  json.RawMessage `json:"content"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	switch {
	case in.UserID == "" || null(in.Content) == nil:
		return nil, signalling.MissingParam("user_id and content are needed")
	case in.Content[0] != '{':
		return nil, signalling.BadJSON("content must be an object")
	case in.StateKey != nil && in.Type == "m.room.member", in.Type == "m.room.create":
		return nil, signalling.InvalidParam("a notice changes nobody's membership")
	case len(r.PathValue("txn")) > event.MaxIDLength:
		return nil, signalling.InvalidParam("a transaction id may have %d bytes", event.MaxIDLength)
	}
	id, err := a.Notices.Send(r.Context(), notices.Notice{UserID: in.UserID, Type: in.Type, StateKey: in.StateKey, Content: in.Content, By: r.UserID, TxnID: r.PathValue("txn")})
	return map[string]string{"event_id": id}, err
}

// mayLeave refuses to turn down an invitation by the server itself.
func (a *API) mayLeave(r *Request, roomID string) error {
	if a.Notices == nil {
		return nil
	}
	room, err := a.Rooms.Room(r.Context(), roomID)
	if err != nil {
		return err
	}
	head := room.Head()
	if head.Membership(r.UserID) != "invite" {
		return nil
	}
	own, err := room.State(r.Context(), head, "m.room.member", r.UserID)
	if err == nil && own != nil && own.Sender() == a.Notices.Sender() {
		err = notices.ErrStays
	}
	return err
}
