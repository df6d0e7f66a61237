// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
)

const (
	fillRounds = 10 // requests for missing events before the state is asked for instead
	fillEvents = 20 // events asked for in one
	fillTime   = time.Minute
	fillAnswer = (fillEvents + 5) * event.MaxSize
	maxNamed   = 20 // extremities named in a request
	maxSettles = 25 // holes in the past that are closed with a state for one event
	fewEvents  = 20 // of a state, which are fetched one by one
	idsAnswer  = 64 << 20
)

// fill fetches what e builds on and is not here: what lies between, as far as that is a few events, and the state where the other
// server's history begins to be new to us. An event that was pushed to us without our getting to see what it stands on itself is refused:
// its sender's word would become the state of the whole room.
func (s *Service) fill(ctx context.Context, origin string, r *rooms.Room, e *event.Event, missing []string) error {
	ctx, cancel := context.WithTimeout(ctx, fillTime)
	defer cancel()
	got := map[string]*event.Event{e.ID(): e}
	latest := []string{e.ID()}
	if !slices.ContainsFunc(missing, func(id string) bool { return slices.Contains(e.PrevIDs(), id) }) {
		latest = nil // only auth events are missing
	}
	for round := 0; round < fillRounds && len(latest) > 0; round++ {
		list, err := s.missingEvents(ctx, origin, r, latest, e.Depth())
		if err != nil {
			s.Log.Debug("missing events could not be had", "from", origin, "room", r.ID, "err", err)
			break
		}
		fresh := false
		for _, x := range list {
			if got[x.ID()] == nil {
				got[x.ID()], fresh = x, true
			}
		}
		if !fresh || len(list) < fillEvents {
			break
		}
		open, err := s.open(ctx, got)
		if err != nil {
			return err
		}
		latest = latest[:0]
		for _, x := range got {
			if len(latest) < maxNamed && slices.ContainsFunc(x.PrevIDs(), func(id string) bool { return slices.Contains(open, id) }) {
				latest = append(latest, x.ID())
			}
		}
	}
	return s.settle(ctx, origin, r, e, got)
}

// open lists the prev_events of some events that are neither among them nor here with a place in the room.
func (s *Service) open(ctx context.Context, got map[string]*event.Event) ([]string, error) {
	var ids []string
	for _, x := range got {
		for _, id := range x.PrevIDs() {
			if got[id] == nil && !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	return s.Rooms.Unknown(ctx, ids)
}

// settle brings events that were fetched into the room, and asks for the state where their past is missing still, and for auth events.
// e itself stays with whoever asked.
func (s *Service) settle(ctx context.Context, origin string, r *rooms.Room, e *event.Event, got map[string]*event.Event) error {
	states := map[string][]string{}
	lacked := map[string]bool{} // what was asked for already, by event
	var last error
	for range maxSettles {
		all := make([]*event.Event, 0, len(got))
		for _, x := range got {
			all = append(all, x)
		}
		var missing *rooms.Missing
		_, err := s.Rooms.InsertWith(ctx, r.ID, inOrder(all), states)
		if err == nil {
			return nil
		}
		if !errors.As(err, &missing) {
			return err
		}
		last = err
		x := got[missing.Event]
		if x == nil {
			return err
		}
		prev, auth := x.PrevIDs(), []string{}
		if _, told := states[x.ID()]; told {
			prev = nil // the state before it was told: what is missing now are auth events
		}
		if again := x.ID() + " " + strings.Join(missing.IDs, " "); lacked[again] {
			return err
		} else {
			lacked[again] = true
		}
		var gone []string
		for _, id := range missing.IDs {
			if slices.Contains(prev, id) {
				gone = append(gone, id)
			} else {
				auth = append(auth, id)
			}
		}
		if x == e && len(gone) > 0 {
			return fmt.Errorf("%s does not say what event %s builds on", origin, e.ID())
		}
		if len(auth) > 0 {
			if err := s.fetchAuth(ctx, origin, r, x.ID(), auth); err != nil {
				return err
			}
		}
		for _, id := range gone {
			p, err := s.fetchEvent(ctx, origin, r, id)
			if err != nil && ctx.Err() == nil {
				// It may be an event that the other server refused, and does not hand on. The state at x is the same without it.
				s.Log.Debug("an event that another stands on could not be had", "from", origin, "room", r.ID, "event", id, "err", err)
				if states[x.ID()], err = s.fetchState(ctx, origin, r, x.ID()); err == nil {
					break
				}
			}
			if err != nil {
				return err
			}
			if len(p.PrevIDs()) > 0 {
				if states[id], err = s.fetchState(ctx, origin, r, id); err != nil {
					return err
				}
			}
			got[id] = p
		}
	}
	return last
}

// fetchEvent asks for one event.
func (s *Service) fetchEvent(ctx context.Context, origin string, r *rooms.Room, id string) (*event.Event, error) {
	var answer struct {
		PDUs []json.RawMessage `json:"pdus"`
	}
	if err := s.Client.ask(ctx, Ask{Server: origin, Path: "/_matrix/federation/v1/event/" + url.PathEscape(id), Limit: 4 * event.MaxSize}, &answer); err != nil {
		return nil, err
	}
	if len(answer.PDUs) == 1 {
		for _, e := range s.parse(ctx, origin, r.Version, r.ID, answer.PDUs) {
			if e.ID() == id {
				return e, nil
			}
		}
	}
	return nil, fmt.Errorf("%s does not have event %s", origin, id)
}

// fetchAuth asks for the auth chain of an event and stores it; for the missing auth events one by one, where that chain cannot be had.
func (s *Service) fetchAuth(ctx context.Context, origin string, r *rooms.Room, id string, missing []string) error {
	var a joined
	err := s.Client.Stream(ctx, Ask{Server: origin, Path: "/_matrix/federation/v1/event_auth/" + url.PathEscape(r.ID) + "/" + url.PathEscape(id), Timeout: fillTime}, s.into(&a, origin, r))
	if err != nil {
		for _, id := range missing[:min(len(missing), event.MaxAuth)] {
			e, err := s.fetchEvent(ctx, origin, r, id)
			if err != nil {
				return err
			}
			a.auth = append(a.auth, e)
		}
	}
	return s.outliers(ctx, origin, r, a.auth)
}

// into reads an answer with events as it comes in.
func (s *Service) into(a *joined, origin string, r *rooms.Room) func(*http.Response) error {
	return func(answer *http.Response) (err error) {
		*a, err = readJoined(io.LimitReader(answer.Body, joinAnswer), r.Version, func(err error) {
			s.Log.Debug("an event was dropped", "from", origin, "room", r.ID, "err", err)
		}, nil)
		return err
	}
}

// outliers stores those of events that are not there, as far as they are signed.
func (s *Service) outliers(ctx context.Context, origin string, r *rooms.Room, events []*event.Event) error {
	ids := make([]string, len(events))
	for i, e := range events {
		ids[i] = e.ID()
	}
	unknown, err := s.Rooms.Unknown(ctx, ids)
	if err != nil {
		return err
	}
	want := make(map[string]bool, len(unknown))
	for _, id := range unknown {
		want[id] = true
	}
	fresh := slices.DeleteFunc(slices.Clone(events), func(e *event.Event) bool { return !want[e.ID()] || e.RoomID() != r.ID })
	if len(fresh) == 0 {
		return nil
	}
	err = s.Rooms.InsertOutliers(ctx, r.ID, s.verified(ctx, origin, fresh))
	if missing := (*rooms.Missing)(nil); errors.As(err, &missing) {
		s.Log.Debug("events without their auth events were left out", "from", origin, "room", r.ID, "err", err)
		return nil
	}
	return err
}

// fetchState asks for the state right before an event, stores what of it is not here, and gives its ids.
func (s *Service) fetchState(ctx context.Context, origin string, r *rooms.Room, id string) ([]string, error) {
	where := url.PathEscape(r.ID) + "?" + url.Values{"event_id": {id}}.Encode()
	var ids struct {
		State []string `json:"pdu_ids"`
		Auth  []string `json:"auth_chain_ids"`
	}
	if err := s.Client.ask(ctx, Ask{Server: origin, Path: "/_matrix/federation/v1/state_ids/" + where, Limit: idsAnswer, Timeout: fillTime}, &ids); err != nil {
		return nil, err
	}
	unknown, err := s.Rooms.Unknown(ctx, append(slices.Clone(ids.State), ids.Auth...))
	if err != nil {
		return nil, err
	}
	switch n := len(unknown); {
	case n > fewEvents:
		var a joined
		if err := s.Client.Stream(ctx, Ask{Server: origin, Path: "/_matrix/federation/v1/state/" + where, Timeout: fillTime}, s.into(&a, origin, r)); err != nil {
			return nil, err
		}
		if err := s.outliers(ctx, origin, r, append(a.auth, a.pdus...)); err != nil {
			return nil, err
		}
	case n > 0:
		fetched := make([]*event.Event, n)
		var work errgroup.Group
		work.SetLimit(8)
		for i, id := range unknown {
			work.Go(func() error {
				e, err := s.fetchEvent(ctx, origin, r, id)
				if err != nil {
					s.Log.Debug("an event of a state could not be had", "from", origin, "room", r.ID, "event", id, "err", err)
				}
				fetched[i] = e
				return nil
			})
		}
		_ = work.Wait()
		if err := s.outliers(ctx, origin, r, slices.DeleteFunc(fetched, func(e *event.Event) bool { return e == nil })); err != nil {
			return nil, err
		}
	}
	// What could not be had, or was refused, is not in the state.
	gone, err := s.Rooms.Unknown(ctx, ids.State)
	if err != nil {
		return nil, err
	}
	lost := make(map[string]bool, len(gone))
	for _, id := range gone {
		lost[id] = true
	}
	return slices.DeleteFunc(ids.State, func(id string) bool { return lost[id] }), nil
}

// missingEvents asks for what lies between the room as we know it and events that we do not understand.
func (s *Service) missingEvents(ctx context.Context, origin string, r *rooms.Room, latest []string, depth int64) ([]*event.Event, error) {
	earliest := []string{}
	least := depth
	for _, x := range r.Head().Extremities() {
		if len(earliest) < maxNamed {
			earliest = append(earliest, x.ID)
		}
		least = min(least, x.Depth)
	}
	body, err := json.Marshal(map[string]any{"earliest_events": earliest, "latest_events": latest, "limit": fillEvents, "min_depth": max(least-1, 0)})
	if err != nil {
		return nil, err
	}
	var answer struct {
		Events []json.RawMessage `json:"events"`
	}
	if err := s.Client.ask(ctx, Ask{Server: origin, Method: "POST", Path: "/_matrix/federation/v1/get_missing_events/" + url.PathEscape(r.ID), Body: body, Limit: fillAnswer}, &answer); err != nil {
		return nil, err
	}
	if len(answer.Events) > 2*fillEvents {
		return nil, fmt.Errorf("%d events where %d were asked for", len(answer.Events), fillEvents)
	}
	return s.parse(ctx, origin, r.Version, r.ID, answer.Events), nil
}
