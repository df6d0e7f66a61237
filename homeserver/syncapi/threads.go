// SPDX-License-Identifier: Apache-2.0

package syncapi

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// ThreadSubscription says whether a user's subscription to a thread was made by his client on its own (MSC4306). Errors: M_NOT_FOUND.
func (s *Service) ThreadSubscription(ctx context.Context, user, room, root string) (automatic bool, err error) {
	t, err := s.Store.ThreadSubscription(ctx, user, room, root)
	if errors.Is(err, storage.ErrNotFound) || err == nil && t.State == storage.ThreadUnsubscribed {
		return false, signalling.NotFound("you are not subscribed to this thread")
	}
	return t.State == storage.ThreadSubscribedAutomatically, err
}

// SubscribeThread subscribes a user to a thread: by his own will with cause 0, else because of the event at that position, which
// counts only when it came after he last unsubscribed. Errors: IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION.
func (s *Service) SubscribeThread(ctx context.Context, user, room, root string, cause int64) error {
	return s.Store.Write(ctx, func(tx *storage.Tx) error {
		old, err := tx.ThreadSubscription(user, room, root)
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			return err
		}
		was := err == nil
		state := storage.ThreadSubscribed
		if cause != 0 {
			state = storage.ThreadSubscribedAutomatically
			switch {
			case was && old.State != storage.ThreadUnsubscribed:
				return nil // subscribed is subscribed
			case was && cause <= old.Pos:
				return signalling.Refuse(http.StatusConflict, "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION", "you unsubscribed from this thread after that event")
			}
		}
		if was && old.State == state {
			return nil
		}
		pos, err := tx.NextPos()
		if err != nil {
			return err
		}
		return tx.SetThreadSubscription(storage.ThreadSubscription{UserID: user, RoomID: room, Root: root, State: state, Pos: pos})
	})
}

// UnsubscribeThread ends a subscription; without one it does nothing.
func (s *Service) UnsubscribeThread(ctx context.Context, user, room, root string) error {
	return s.Store.Write(ctx, func(tx *storage.Tx) error {
		old, err := tx.ThreadSubscription(user, room, root)
		if errors.Is(err, storage.ErrNotFound) || err == nil && old.State == storage.ThreadUnsubscribed {
			return nil
		}
		if err != nil {
			return err
		}
		pos, err := tx.NextPos()
		if err != nil {
			return err
		}
		return tx.SetThreadSubscription(storage.ThreadSubscription{UserID: user, RoomID: room, Root: root, Pos: pos})
	})
}

// threadsPage is how many thread subscriptions one answer of sliding sync holds.
const threadsPage = 100

// threadSubscriptions answers the extension of MSC4308: what changed, or for a client that has nothing yet what there is.
func (a *slide) threadSubscriptions() error {
	if a.q.Threads == 0 {
		return nil
	}
	from := a.c.threads
	a.step.threads = max(a.next.Pos, 1)
	if from == a.since.Pos && from > 0 && a.news.ok && !a.first && !a.threads {
		return nil
	}
	given, err := a.s.ThreadSubscriptions(a.ctx, a.q.User, from, a.next.Pos, from > 0, a.q.Threads)
	if err != nil || len(given.list) == 0 {
		return err
	}
	a.out.Threads = given
	a.something = true
	return nil
}

// ThreadsGiven is a part of a user's thread subscriptions, the newest changes first.
type ThreadsGiven struct {
	list []storage.ThreadSubscription
	prev string // where the rest begins; "" for no more
}

// ThreadSubscriptions lists changes of a user's subscriptions with from < position <= to, at most limit.
func (s *Service) ThreadSubscriptions(ctx context.Context, user string, from, to int64, ended bool, limit int) (*ThreadsGiven, error) {
	list, err := s.Store.ThreadSubscriptions(ctx, user, from, to, ended, limit+1)
	if err != nil {
		return nil, err
	}
	g := &ThreadsGiven{list: list}
	if len(list) > limit {
		g.list = list[:limit]
		g.prev = Token{Pos: list[limit].Pos}.String()
	}
	return g, nil
}

// Append writes the subscriptions as clients read them; more names the member that tells where the rest begins.
func (g *ThreadsGiven) Append(b []byte, more string) []byte {
	b = append(b, '{')
	comma := false
	for _, part := range []struct {
		name       string
		subscribed bool
	}{{"subscribed", true}, {"unsubscribed", false}} {
		byRoom := map[string][]byte{}
		var order []string
		for _, t := range g.list {
			if (t.State != storage.ThreadUnsubscribed) != part.subscribed {
				continue
			}
			if byRoom[t.RoomID] == nil {
				order = append(order, t.RoomID)
			}
			one := append(event.AppendString(nil, t.Root), ':', '{')
			if part.subscribed {
				one = append(strconv.AppendBool(append(one, `"automatic":`...), t.State == storage.ThreadSubscribedAutomatically), ',')
			}
			one = strconv.AppendInt(append(one, `"bump_stamp":`...), t.Pos, 10)
			byRoom[t.RoomID] = list(byRoom[t.RoomID], one, []byte{'}'})
		}
		if order == nil {
			continue
		}
		if comma {
			b = append(b, ',')
		}
		comma = true
		b = append(event.AppendString(b, part.name), ':', '{')
		for i, id := range order {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(event.AppendString(b, id), ':', '{')
			b = append(append(b, byRoom[id]...), '}')
		}
		b = append(b, '}')
	}
	if g.prev != "" {
		if comma {
			b = append(b, ',')
		}
		b = event.AppendString(append(event.AppendString(b, more), ':'), g.prev)
	}
	return append(b, '}')
}
