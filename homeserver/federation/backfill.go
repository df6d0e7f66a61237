// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/signalling"
)

const (
	backfillEvents  = 100 // asked for at once
	backfillTime    = 20 * time.Second
	backfillServers = 4 // asked one after another
	backfillAnswer  = (backfillEvents + 10) * event.MaxSize
)

// Backfill asks other servers in a room for the history that ends at missing events (rooms.Holes), and gives how many events came into the
// timeline. Where every server says that it has nothing, the hole is closed: history begins there.
func (s *Service) Backfill(ctx context.Context, r *rooms.Room, missing []string) (int, error) {
	key := r.ID
	for _, id := range missing {
		key += " " + id
	}
	c := s.filling.DoChan(key, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fillTime)
		defer cancel()
		return s.backfill(ctx, r, missing)
	})
	select {
	case x := <-c:
		n, _ := x.Val.(int)
		return n, x.Err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (s *Service) backfill(ctx context.Context, r *rooms.Room, missing []string) (int, error) {
	servers := r.Servers()
	if _, domain, ok := cutServer(r.ID); ok {
		if i := slices.Index(servers, domain); i > 0 { // the server that made the room has most of it
			servers[0], servers[i] = servers[i], servers[0]
		}
	}
	var last error
	nothing := 0
	for _, server := range servers[:min(len(servers), backfillServers)] {
		n, err := s.backfillFrom(ctx, server, r, missing)
		if err == nil && n > 0 {
			return n, nil
		}
		if err == nil || signalling.AsError(err).Code == "M_NOT_FOUND" {
			nothing++
			continue
		}
		last = err
		s.Log.Debug("no history from a server", "room", r.ID, "server", server, "err", err)
	}
	if last == nil && nothing > 0 {
		return 0, s.Rooms.CloseHole(ctx, r, missing)
	}
	return 0, last
}

func (s *Service) backfillFrom(ctx context.Context, server string, r *rooms.Room, missing []string) (int, error) {
	var a joined
	q := url.Values{"v": missing[:min(len(missing), event.MaxPrev)], "limit": {strconv.Itoa(backfillEvents)}}
	err := s.Client.Stream(ctx, Ask{Server: server, Path: "/_matrix/federation/v1/backfill/" + url.PathEscape(r.ID) + "?" + q.Encode(), Timeout: backfillTime, Limit: backfillAnswer}, s.into(&a, server, r))
	if err != nil {
		return 0, err
	}
	if len(a.pdus) > 2*backfillEvents {
		a.pdus = a.pdus[:2*backfillEvents]
	}
	events := s.verified(ctx, server, slices.DeleteFunc(a.pdus, func(e *event.Event) bool { return e.RoomID() != r.ID }))
	if len(events) == 0 {
		return 0, nil
	}
	states := map[string][]string{}
	for range maxSettles {
		n, err := s.Rooms.Backfill(ctx, r.ID, events, states)
		var gap *rooms.Missing
		if !errors.As(err, &gap) {
			return n, err
		}
		i := indexOf(events, gap.Event)
		if i < 0 {
			return 0, err
		}
		e := events[i]
		if _, had := states[e.ID()]; !had && slices.ContainsFunc(gap.IDs, func(id string) bool { return slices.Contains(e.PrevIDs(), id) }) {
			states[e.ID()], err = s.fetchState(ctx, server, r, e.ID())
		} else {
			err = s.fetchAuth(ctx, server, r, e.ID(), gap.IDs)
		}
		if err != nil { // without its state an event has no place; what builds on it has none either
			s.Log.Debug("an event of history has no state", "room", r.ID, "server", server, "event", e.ID(), "err", err)
			events = slices.Delete(events, i, i+1)
		}
	}
	return 0, errors.New("the history has too many holes")
}
