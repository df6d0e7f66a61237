// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"context"
	"encoding/json"
	"maps"
	"runtime"
	"slices"
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

// verifying parses and checks events of which more come in, beside the reading; the signatures of servers whose keys are not known yet are
// left to keep, which asks for the keys of all of them at once.
type verifying struct {
	s     *Service
	ctx   context.Context
	slots chan struct{}
	wg    sync.WaitGroup

	mu   sync.Mutex
	good map[*event.Event]bool // whether the signatures are right, of those that were checked
}

// verifying begins to check what a server answers, and to ask for the keys of that server, which most of it will be signed with.
func (s *Service) verifying(ctx context.Context, from string) *verifying {
	v := &verifying{s: s, ctx: ctx, slots: make(chan struct{}, max(1, runtime.GOMAXPROCS(0))), good: map[*event.Event]bool{}}
	if m, err := s.Keys.of(ctx, from); err != nil || len(m) == 0 {
		v.wg.Go(func() { _, _ = s.Keys.fetch(ctx, from) })
	}
	return v
}

// list is a list of events that comes in piece by piece: take has a piece parsed and checked in a goroutine, and all waits for that and
// gives those that are events, in their order, whatever their signatures.
func (v *verifying) list(version event.Version, dropped func(error)) (take func([]json.RawMessage), all func() []*event.Event) {
	var pieces []*[]*event.Event
	take = func(raw []json.RawMessage) {
		var piece []*event.Event
		pieces = append(pieces, &piece)
		v.wg.Go(func() {
			v.slots <- struct{}{}
			defer func() { <-v.slots }()
			piece = parsed(nil, version, raw, dropped)
			v.check(piece)
		})
	}
	return take, func() (out []*event.Event) {
		v.wg.Wait()
		for _, p := range pieces {
			out = append(out, *p...)
		}
		return out
	}
}

// check checks the signatures of those events that are signed by servers whose keys are known.
func (v *verifying) check(events []*event.Event) {
	checked := make(map[*event.Event]bool, len(events))
	for _, e := range events {
		if v.ctx.Err() == nil && v.s.Keys.knows(v.ctx, e.Signers()) {
			checked[e] = v.s.VerifyEvent(v.ctx, e) == nil
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	maps.Copy(v.good, checked)
}

// keep gives the events of a list whose signatures are right, in its order.
func (v *verifying) keep(from string, events []*event.Event) []*event.Event {
	v.wg.Wait()
	var left []*event.Event
	for _, e := range events {
		if ok, checked := v.good[e]; !checked {
			left = append(left, e)
		} else if !ok {
			v.s.Log.Debug("an event was dropped: its signature", "from", from, "event", e.ID())
		}
	}
	for _, e := range v.s.verified(v.ctx, from, left) {
		v.good[e] = true
	}
	return slices.DeleteFunc(slices.Clone(events), func(e *event.Event) bool { return !v.good[e] })
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
