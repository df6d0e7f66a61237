// SPDX-License-Identifier: Apache-2.0

package syncapi

import (
	"github.com/trunkboard/trunkboard/homeserver/event"
)

// The wire form of /_matrix/client/v4/sync: MSC4186 as it was accepted.

type stableConfig struct {
	TimelineLimit *int64 `json:"timeline_limit"`
	RequiredState struct {
		Include []stableElement `json:"include"`
		Exclude []stableElement `json:"exclude"`
		Lazy    bool            `json:"lazy_members"`
	} `json:"required_state"`
}

type stableElement struct {
	Type     *string `json:"type"`
	StateKey *string `json:"state_key"`
}

type stableBody struct {
	ConnID      string `json:"conn_id"`
	Pos         string `json:"pos"`
	Timeout     int64  `json:"timeout"`
	SetPresence string `json:"set_presence"`
	Lists       map[string]struct {
		stableConfig
		Range   *[]int64 `json:"range"`
		Filters struct {
			wireFilters
			Invited *bool `json:"is_invited"`
		} `json:"filters"`
	} `json:"lists"`
	Subscriptions map[string]stableConfig `json:"room_subscriptions"`
	Extensions    wireExtensions          `json:"extensions"`
}

// DecodeSlidingStable reads a request of the stable wire form, and what it says of the user's presence. Errors: M_NOT_JSON,
// M_BAD_JSON, M_MISSING_PARAM, M_INVALID_PARAM.
func DecodeSlidingStable(body []byte, user, device string) (q *SlidingRequest, presence string, err error) {
	d := &slidingDecoder{q: &SlidingRequest{User: user, Device: device}}
	var w stableBody
	d.unmarshal(body, &w)
	if d.err != nil {
		return nil, "", d.err
	}
	d.conn(w.ConnID)
	d.pos(w.Pos)
	d.timeout(w.Timeout)
	keys := make([]string, 0, len(w.Lists))
	for k := range w.Lists {
		keys = append(keys, k)
	}
	for _, k := range d.names(keys, true) {
		if d.err != nil {
			break
		}
		x := w.Lists[k]
		l := SlidingList{Name: k, Config: d.stableConfig("list "+k, &x.stableConfig)}
		if x.Range != nil {
			l.Ranges = [][2]int64{d.rng("list "+k, *x.Range)}
		}
		l.Filter = d.filter(k, &x.Filters.wireFilters, x.Filters.Invited)
		d.q.Lists = append(d.q.Lists, l)
	}
	d.subscriptions(len(w.Subscriptions))
	for id, c := range w.Subscriptions {
		if d.err != nil {
			break
		}
		d.q.Subscriptions[id] = d.stableConfig("a room subscription", &c)
	}
	d.extensions(&w.Extensions)
	return d.q, w.SetPresence, d.err
}

func (d *slidingDecoder) stableConfig(where string, c *stableConfig) SlidingConfig {
	rule := &StateRule{Lazy: c.RequiredState.Lazy}
	for _, e := range c.RequiredState.Include {
		rule.Include = append(rule.Include, StateElement(e))
	}
	for _, e := range c.RequiredState.Exclude {
		rule.Exclude = append(rule.Exclude, StateElement(e))
	}
	return d.config(where, c.TimelineLimit, rule)
}

// Stable writes the answer in the stable wire form.
func (a *SlidingAnswer) Stable() []byte {
	return a.body(func(b []byte, r *SlidingRoom) []byte {
		start := len(b)
		b = append(b, '{')
		b = event.AppendString(field(b, start, "membership"), r.Membership)
		if len(r.Lists) > 0 {
			b = appendTexts(field(b, start, "lists"), r.Lists)
		}
		if !r.Inside {
			if r.Bump != 0 {
				b = r.bumpOnly(b, start)
			}
			return append(array(b, start, "stripped_state", r.Stripped), '}')
		}
		b = r.common(b, start)
		b = r.Name.append(b, start, "name")
		b = r.Avatar.append(b, start, "avatar")
		if r.Expanded {
			b = append(field(b, start, "expanded_timeline"), "true"...)
		}
		if r.State != nil || r.Deleted != nil {
			b = append(field(b, start, "required_state"), '[')
			b = append(b, r.State...)
			for i, k := range r.Deleted {
				if i > 0 || r.State != nil {
					b = append(b, ',')
				}
				b = event.AppendString(append(b, `{"type":`...), k.Type)
				b = event.AppendString(append(b, `,"state_key":`...), k.StateKey)
				b = append(b, '}')
			}
			b = append(b, ']')
		}
		b = array(b, start, "timeline_events", r.Timeline)
		return append(b, '}')
	})
}

func (r *SlidingRoom) bumpOnly(b []byte, start int) []byte {
	only := SlidingRoom{Bump: r.Bump, Joined: -1, Invited: -1}
	return only.common(b, start)
}
