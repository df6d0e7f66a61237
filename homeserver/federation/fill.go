// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
)

const (
	fillRounds = 10 // requests for missing events before the state is asked for instead
	fillEvents = 20 // events asked for in one
	fillTime   = time.Minute
	fillAnswer = (fillEvents + 5) * event.MaxSize
	maxNamed   = 20 // extremities named in a request
)

// fill fetches what e builds on and is not here: what lies between, as far as that is a few events, else the state.
func (s *Service) fill(ctx context.Context, origin string, r *rooms.Room, e *event.Event) error {
	ctx, cancel := context.WithTimeout(ctx, fillTime)
	defer cancel()
	got := map[string]*event.Event{}
	latest := []string{e.ID()}
	var last error
	for range fillRounds {
		list, err := s.missingEvents(ctx, origin, r, latest, e.Depth())
		if err != nil {
			last = err
			break
		}
		fresh := false
		for _, x := range list {
			if x.ID() != e.ID() && got[x.ID()] == nil {
				got[x.ID()], fresh = x, true
			}
		}
		if !fresh {
			last = errors.New("the other server does not have the missing events")
			break
		}
		all := make([]*event.Event, 0, len(got))
		for _, x := range got {
			all = append(all, x)
		}
		missing := &rooms.Missing{}
		_, err = s.Rooms.Insert(ctx, r.ID, inOrder(all))
		if err == nil {
			return nil
		}
		if !errors.As(err, &missing) {
			return err
		}
		last = err
		latest = nil
		for _, x := range all { // ask on from those whose past is not in what we have
			for _, id := range x.PrevIDs() {
				if got[id] == nil && len(latest) < maxNamed {
					latest = append(latest, x.ID())
					break
				}
			}
		}
	}
	return last
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
