// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"github.com/trunkboard/trunkboard/homeserver/calls"
	"github.com/trunkboard/trunkboard/signalling"
)

const (
	callsPage = 50  // calls in one answer, when the client does not say
	mostCalls = 200 // and at most
)

// routesCalls: the history of calls, and the calls that go on.
func (a *API) routesCalls() {
	if a.Calls == nil {
		return
	}
	a.route("GET /_trunkboard/client/v1/calls", AnyUser, "requests", a.listCalls)
}

// callsAnswer is a page of calls. Next is for from, and missing on the last page.
type callsAnswer struct {
	Calls []calls.Call `json:"calls"`
	Next  string       `json:"next,omitempty"`
}

// listCalls answers GET /_trunkboard/client/v1/calls: the caller's calls, newest first.
//
//	room_id  of one room; 403 when the user was never in it
//	outcome  answered, missed, declined, busy, failed or cancelled
//	dir      b: newest first, f: oldest first
//	from     the next of the answer before
//	limit    50, at most 200
//	state    live: the calls that ring or are talked in, all on one page; ended: the records, which is what a missing state means too
//
// Calls of two in encrypted rooms are not there: the server cannot see them. Group calls are, if they met on this server's SFU.
func (a *API) listCalls(r *Request) (any, error) {
	limit, err := r.IntParam("limit", callsPage, 1, mostCalls)
	if err != nil {
		return nil, err
	}
	q := calls.Query{User: r.UserID, RoomID: r.Param("room_id"), Outcome: r.Param("outcome"), From: r.Param("from"), Limit: int(limit)}
	switch r.Param("dir") {
	case "", "b":
	case "f":
		q.Ascending = true
	default:
		return nil, signalling.InvalidParam("dir must be b or f")
	}
	var answer callsAnswer
	switch r.Param("state") {
	case "live":
		if q.Outcome != "" || q.From != "" {
			return nil, signalling.InvalidParam("outcome and from are for calls that have ended; leave them out with state=live")
		}
		if answer.Calls, err = a.Calls.InProgress(r.Context(), q.User, q.RoomID); len(answer.Calls) > q.Limit {
			answer.Calls = answer.Calls[:q.Limit]
		}
	case "", "ended":
		answer.Calls, answer.Next, err = a.Calls.List(r.Context(), q)
	default:
		return nil, signalling.InvalidParam("state must be live or ended")
	}
	if err != nil {
		return nil, err
	}
	return answer, nil
}
