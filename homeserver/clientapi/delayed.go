// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"encoding/json"
	"math"
	"time"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/delayed"
	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/callflow"
)

// delayParam is the query parameter that makes a send a delayed one.
const delayParam = "org.matrix.msc4140.delay"

// routesDelayed: delayed events (MSC4140). Two forms are served: the delay as a parameter of /send and /state, which clients use
// today, and the endpoint of its own that the newest draft has. Whoever knows a delay id may act on it: the server that holds a
// client's media does, without the client's token.
func (a *API) routesDelayed() {
	if a.Delayed == nil {
		return
	}
	const base = "/_matrix/client/unstable/org.matrix.msc4140"
	a.route("PUT "+base+"/rooms/{room}/delayed_event/{type}/{txn}", AnyUser, "", a.scheduleDelayed)
	a.route("GET "+base+"/delayed_events", AnyUser, "requests", a.listDelayed)
	a.route("GET "+base+"/delayed_events/{id}", AnyUser, "requests", a.getDelayed)
	a.route("POST "+base+"/delayed_events/{id}", Open, "requests", func(r *Request) (any, error) {
		var in struct {
			Action string `json:"action"`
		}
		if err := r.Decode(&in); err != nil {
			return nil, err
		}
		if in.Action == "" {
			return nil, signalling.MissingParam("action is missing: cancel, restart or send")
		}
		act := a.delayedAction(in.Action)
		if act == nil {
			return nil, signalling.InvalidParam("action must be cancel, restart or send")
		}
		return act(r)
	})
	for _, action := range []string{"cancel", "restart", "send"} {
		a.route("POST "+base+"/delayed_events/{id}/"+action, Open, "requests", a.delayedAction(action))
	}
	a.advertise("org.matrix.msc4140")
}

func (a *API) delayedAction(action string) Handler {
	switch action {
	case "cancel":
		return func(r *Request) (any, error) { return nil, a.Delayed.Cancel(r.Context(), r.PathValue("id")) }
	case "restart":
		return func(r *Request) (any, error) { return nil, a.Delayed.Restart(r.Context(), r.PathValue("id")) }
	case "send":
		return func(r *Request) (any, error) { return nil, a.Delayed.Send(r.Context(), r.PathValue("id")) }
	}
	return nil
}

// delay is the delay that a send or state request asks for; ok is false for one that asks for none.
func (a *API) delay(r *Request) (d time.Duration, ok bool, err error) {
	if a.Delayed == nil || !r.HasParam(delayParam) {
		return 0, false, nil
	}
	ms, err := r.IntParam(delayParam, 0, 1, math.MaxInt64/int64(time.Millisecond))
	return time.Duration(ms) * time.Millisecond, true, err
}

// sendLater is send and sendState for requests with a delay.
func (a *API) sendLater(r *Request, delay time.Duration, typ, txn string, stateKey *string) (any, error) {
	if txn != "" {
		if id, err := a.Delayed.ByTxn(r.Context(), r.UserID, r.DeviceID, r.PathValue("room"), txn); err != nil || id != "" {
			return map[string]string{"delay_id": id}, err
		}
	}
	if stateKey == nil { // /state counted itself already
		if err := a.limitSend(r, typ); err != nil {
			return nil, err
		}
	}
	content, err := r.Object(MaxEventBody)
	if err != nil {
		return nil, err
	}
	return a.schedule(r, delay, typ, txn, stateKey, content)
}

func (a *API) schedule(r *Request, delay time.Duration, typ, txn string, stateKey *string, content json.RawMessage) (any, error) {
	switch {
	case len(txn) > event.MaxIDLength || len(typ) > event.MaxIDLength || typ == "" || stateKey != nil && len(*stateKey) > event.MaxIDLength:
		return nil, signalling.InvalidParam("the type, the state key and the transaction id may have %d bytes", event.MaxIDLength)
	case hasNUL(content):
		return nil, signalling.BadJSON("strings in an event must not hold the character NUL")
	case typ == "m.room.create":
		return nil, signalling.Refuse(400, "M_BAD_STATE", "a room is created once")
	}
	sticky, err := a.sticky(r)
	if err != nil {
		return nil, err
	}
	if sticky > 0 && typ == "m.room.member" && stateKey != nil {
		return nil, signalling.InvalidParam("a membership does not stick")
	}
	if _, err := a.inside(r); err != nil {
		return nil, err
	}
	if stateKey == nil && len(typ) > 7 && typ[:7] == "m.call." {
		if err := callflow.Validate(typ, content); err != nil {
			return nil, err
		}
	}
	if typ == "m.room.canonical_alias" && stateKey != nil {
		if err := a.checkAliases(r, content); err != nil {
			return nil, err
		}
	}
	id, err := a.Delayed.Schedule(r.Context(), delayed.Event{
		UserID: r.UserID, DeviceID: r.DeviceID, RoomID: r.PathValue("room"), TxnID: txn, Type: typ, StateKey: stateKey, Content: content, Delay: delay, Sticky: sticky,
	})
	return map[string]string{"delay_id": id}, err
}

// scheduleDelayed is the endpoint of the newest draft.
func (a *API) scheduleDelayed(r *Request) (any, error) {
	txn := r.PathValue("txn")
	if id, err := a.Delayed.ByTxn(r.Context(), r.UserID, r.DeviceID, r.PathValue("room"), txn); err != nil || id != "" {
		return map[string]string{"delay_id": id}, err
	}
	if err := a.limitSend(r, r.PathValue("type")); err != nil {
		return nil, err
	}
	body, err := r.Object(MaxEventBody)
	if err != nil {
		return nil, err
	}
	in := gjson.ParseBytes(body)
	delay, key, content := in.Get("delay_ms"), in.Get("state_key"), in.Get("content")
	switch {
	case !delay.Exists() || !content.Exists():
		return nil, signalling.MissingParam("delay_ms and content are needed")
	case delay.Type != gjson.Number || delay.Num != math.Trunc(delay.Num) || delay.Num < 1 || delay.Num > 1<<53:
		return nil, signalling.InvalidParam("delay_ms must be a whole number, 1 or more")
	case !content.IsObject():
		return nil, signalling.BadJSON("content must be an object")
	case key.Exists() && key.Type != gjson.String:
		return nil, signalling.BadJSON("state_key must be a string")
	}
	var stateKey *string
	if key.Exists() {
		stateKey = &key.Str
	}
	d := time.Duration(min(delay.Int(), int64(math.MaxInt64/time.Millisecond))) * time.Millisecond
	return a.schedule(r, d, r.PathValue("type"), txn, stateKey, json.RawMessage(content.Raw))
}

// delayedEvent is a delayed event as clients see it.
type delayedEvent struct {
	ID       string          `json:"delay_id"`
	RoomID   string          `json:"room_id"`
	Type     string          `json:"type"`
	StateKey *string         `json:"state_key,omitempty"`
	Delay    int64           `json:"delay"`
	DelayMS  int64           `json:"delay_ms"`
	Since    int64           `json:"running_since"`
	Content  json.RawMessage `json:"content"`
	EventID  string          `json:"event_id,omitempty"`
}

func asDelayed(d storage.DelayedEvent) delayedEvent {
	return delayedEvent{ID: d.ID, RoomID: d.RoomID, Type: d.Type, StateKey: d.StateKey, Delay: d.DelayMS, DelayMS: d.DelayMS, Since: d.SinceTS, Content: d.Content, EventID: d.EventID}
}

func (a *API) listDelayed(r *Request) (any, error) {
	list, err := a.Delayed.List(r.Context(), r.UserID)
	out := make([]delayedEvent, len(list))
	for i, d := range list {
		out[i] = asDelayed(d)
	}
	return map[string]any{"delayed_events": out}, err
}

func (a *API) getDelayed(r *Request) (any, error) {
	d, err := a.Delayed.Get(r.Context(), r.UserID, r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return asDelayed(d), nil
}
