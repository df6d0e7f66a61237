// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"context"
	"encoding/json"
	"runtime"
	"sync"

	"github.com/trunkboard/trunkboard/homeserver/event"
)

// keyFetches is how many servers are asked for their keys at the same time for one batch of events.
const keyFetches = 16

// VerifyEvent checks the signatures that e must have, as of the time that it says it was made. Errors: 401 M_UNAUTHORIZED, or what
// kept us from knowing.
func (s *Service) VerifyEvent(ctx context.Context, e *event.Event) error {
	for _, server := range e.Signers() {
		if err := s.Keys.VerifyEvent(ctx, server, e); err != nil {
			return err
		}
	}
	return nil
}

// parse reads events of a room that another server sent and keeps those that are well formed, of that room and signed: every way in
// leads through here. roomID "" takes events of any room. The others are left out, with a word in the log.
func (s *Service) parse(ctx context.Context, from string, v event.Version, roomID string, raw []json.RawMessage) []*event.Event {
	read := make([]*event.Event, 0, len(raw))
	seen := make(map[string]bool, len(raw))
	for _, x := range raw {
		e, err := event.Parse(v, x)
		switch {
		case err != nil:
			s.Log.Debug("an event was dropped", "from", from, "room", roomID, "err", err)
		case roomID != "" && e.RoomID() != roomID:
			s.Log.Debug("an event of another room was dropped", "from", from, "room", roomID, "event", e.ID())
		case !seen[e.ID()]:
			seen[e.ID()] = true
			read = append(read, e)
		}
	}
	return s.verified(ctx, from, read)
}

// verified keeps the events whose signatures are right.
func (s *Service) verified(ctx context.Context, from string, events []*event.Event) []*event.Event {
	s.prefetch(ctx, events)
	good := make([]bool, len(events))
	var wg sync.WaitGroup
	workers := min(runtime.GOMAXPROCS(0), 8, len(events))
	for w := range workers {
		wg.Go(func() {
			for i := w; i < len(events) && ctx.Err() == nil; i += workers {
				if err := s.VerifyEvent(ctx, events[i]); err != nil {
					s.Log.Debug("an event was dropped: its signature", "from", from, "event", events[i].ID(), "err", err)
					continue
				}
				good[i] = true
			}
		})
	}
	wg.Wait()
	out := events[:0:0]
	for i, e := range events {
		if good[i] {
			out = append(out, e)
		}
	}
	return out
}

// prefetch asks for the keys of all servers of a batch side by side, where none are known.
func (s *Service) prefetch(ctx context.Context, events []*event.Event) {
	want := map[string]bool{}
	for _, e := range events {
		for _, server := range e.Signers() {
			want[server] = true
		}
	}
	delete(want, s.server)
	if len(want) < 2 {
		return
	}
	slots := make(chan struct{}, keyFetches)
	var wg sync.WaitGroup
	for server := range want {
		if m, err := s.Keys.of(ctx, server); err != nil || len(m) > 0 {
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			_, _ = s.Keys.fetch(ctx, server) // who does not answer is found out event by event
		})
	}
	wg.Wait()
}
