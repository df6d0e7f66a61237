// SPDX-License-Identifier: Apache-2.0

package syncapi

import (
	"context"
	"slices"

	"github.com/trunkboard/trunkboard/homeserver/syncapi/filter"
	"github.com/trunkboard/trunkboard/signalling"
)

// DeviceLists answers /keys/changes: whose devices or keys changed between two tokens for a user, and with whom he shares no room
// any more. Like the spec says, to is a hint: what happened after it is included. Errors: M_INVALID_PARAM for what is not a token.
func (s *Service) DeviceLists(ctx context.Context, user, from, to string) (changed, left []string, err error) {
	since, err := ParseToken(from)
	if err != nil {
		return nil, nil, err
	}
	if _, err := ParseToken(to); err != nil {
		return nil, nil, err
	}
	if from == "" {
		return nil, nil, signalling.MissingParam("from is needed: a token of /sync")
	}
	n := s.collect(user, since)
	since.Pos = min(since.Pos, n.upTo.Pos)
	a := &answer{s: s, ctx: ctx, q: &Request{User: user, Filter: filter.Default()}, since: since, next: n.upTo, now: s.Clock.Now()}
	if err := a.full(); err != nil {
		return nil, nil, err
	}
	return names(a.changed), names(a.left), nil
}

func names(set map[string]struct{}) []string {
	out := make([]string, 0, len(set))
	for u := range set {
		out = append(out, u)
	}
	slices.Sort(out)
	return out
}
