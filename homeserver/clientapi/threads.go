// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"math"

	"github.com/trunkboard/trunkboard/homeserver/syncapi"
	"github.com/trunkboard/trunkboard/signalling"
)

// routesThreads: thread subscriptions (MSC4306), and the list of them that goes on where sliding sync stops (MSC4308).
func (a *API) routesThreads() {
	if a.Rooms == nil || a.Sync == nil {
		return
	}
	const path = "/_matrix/client/unstable/io.element.msc4306/rooms/{room}/thread/{event}/subscription"
	a.route("GET "+path, AnyUser, "requests", a.threadSubscription)
	a.route("PUT "+path, AnyUser, "requests", a.subscribeThread)
	a.route("DELETE "+path, AnyUser, "requests", a.unsubscribeThread)
	a.route("GET /_matrix/client/unstable/io.element.msc4308/thread_subscriptions", AnyUser, "requests", a.threadSubscriptions)
}

func (a *API) threadSubscription(r *Request) (any, error) {
	room, root, err := a.visibleEvent(r)
	if err != nil {
		return nil, err
	}
	automatic, err := a.Sync.ThreadSubscription(r.Context(), r.UserID, room.ID, root.ID())
	return map[string]bool{"automatic": automatic}, err
}

func (a *API) subscribeThread(r *Request) (any, error) {
	var in struct {
		Automatic *string `json:"automatic"`
	}
	if err := r.DecodeIfAny(&in); err != nil {
		return nil, err
	}
	room, root, err := a.visibleEvent(r)
	if err != nil {
		return nil, err
	}
	if in.Automatic == nil {
		return nil, a.Sync.SubscribeThread(r.Context(), r.UserID, room.ID, root.ID(), 0)
	}
	cause, err := room.Event(r.Context(), *in.Automatic)
	if err != nil {
		return nil, err
	}
	if cause == nil || cause.RelType() != "m.thread" || cause.RelatesTo() != root.ID() {
		return nil, signalling.Refuse(400, "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD", "that event is not in this thread")
	}
	return nil, a.Sync.SubscribeThread(r.Context(), r.UserID, room.ID, root.ID(), cause.Pos)
}

func (a *API) unsubscribeThread(r *Request) (any, error) {
	room, root, err := a.visibleEvent(r)
	if err != nil {
		return nil, err
	}
	return nil, a.Sync.UnsubscribeThread(r.Context(), r.UserID, room.ID, root.ID())
}

func (a *API) threadSubscriptions(r *Request) (any, error) {
	if d := r.Param("dir"); d != "" && d != "b" {
		return nil, signalling.InvalidParam("dir must be b: the list goes back")
	}
	limit, err := r.IntParam("limit", 100, 1, 1000)
	if err != nil {
		return nil, err
	}
	from, to := int64(0), int64(math.MaxInt64)
	for _, p := range []struct {
		name string
		pos  *int64
	}{{"from", &to}, {"to", &from}} {
		if s := r.Param(p.name); s != "" {
			t, err := syncapi.ParseToken(s)
			if err != nil {
				return nil, err
			}
			*p.pos = t.Pos
		}
	}
	given, err := a.Sync.ThreadSubscriptions(r.Context(), r.UserID, from, to, true, int(limit))
	if err != nil {
		return nil, err
	}
	return Raw(given.Append(nil, "end")), nil
}
