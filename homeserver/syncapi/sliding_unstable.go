// SPDX-License-Identifier: Apache-2.0

package syncapi

import (
	"github.com/trunkboard/trunkboard/homeserver/event"
)

// The wire form of /_matrix/client/unstable/org.matrix.simplified_msc3575/sync: what clients of today speak.

type unstableConfig struct {
	TimelineLimit *int64     `json:"timeline_limit"`
	RequiredState [][]string `json:"required_state"` // pairs of type and state key
}

type unstableBody struct {
	ConnID string `json:"conn_id"`
	TxnID  string `json:"txn_id"`
	Lists  map[string]struct {
		unstableConfig
		Ranges  *[][]int64 `json:"ranges"`
		AllOfIt bool       `json:"slow_get_all_rooms"`
		Filters struct {
			wireFilters
			Invite *bool `json:"is_invite"`
		} `json:"filters"`
	} `json:"lists"`
	Subscriptions map[string]unstableConfig `json:"room_subscriptions"`
	Extensions    wireExtensions            `json:"extensions"`
}

// DecodeSlidingUnstable reads a request of the unstable wire form; pos and timeout (milliseconds) come from the query. Errors:
// M_NOT_JSON, M_BAD_JSON, M_MISSING_PARAM, M_INVALID_PARAM.
func DecodeSlidingUnstable(body []byte, user, device, pos string, timeout int64) (*SlidingRequest, error) {
	d := &slidingDecoder{q: &SlidingRequest{User: user, Device: device}}
	var w unstableBody
	d.unmarshal(body, &w)
	if d.err != nil {
		return nil, d.err
	}
	d.conn(w.ConnID)
	d.pos(pos)
	d.timeout(timeout)
	if d.q.TxnID = w.TxnID; len(w.TxnID) > event.MaxIDLength {
		d.fail("txn_id may have %d bytes", event.MaxIDLength)
	}
	keys := make([]string, 0, len(w.Lists))
	for k := range w.Lists {
		keys = append(keys, k)
	}
	for _, k := range d.names(keys, false) {
		if d.err != nil {
			break
		}
		x := w.Lists[k]
		l := SlidingList{Name: k, Config: d.unstableConfig("list "+k, x.unstableConfig)}
		if x.Ranges != nil && !x.AllOfIt {
			if len(*x.Ranges) > MaxSlidingRanges {
				d.fail("list %s may have %d ranges", k, MaxSlidingRanges)
				break
			}
			l.Ranges = make([][2]int64, 0, len(*x.Ranges))
			for _, r := range *x.Ranges {
				l.Ranges = append(l.Ranges, d.rng("list "+k, r))
			}
		}
		l.Filter = d.filter(k, &x.Filters.wireFilters, x.Filters.Invite)
		d.q.Lists = append(d.q.Lists, l)
	}
	d.subscriptions(len(w.Subscriptions))
	for id, c := range w.Subscriptions {
		if d.err != nil {
			break
		}
		d.q.Subscriptions[id] = d.unstableConfig("a room subscription", c)
	}
	d.extensions(&w.Extensions)
	return d.q, d.err
}

// unstableConfig reads required_state in its first shape: "*" matches everything, $ME is the reader, and $LAZY the members that the
// timeline needs.
func (d *slidingDecoder) unstableConfig(where string, c unstableConfig) SlidingConfig {
	rule := &StateRule{}
	for _, pair := range c.RequiredState {
		if len(pair) != 2 {
			d.fail("required_state of %s is pairs of a type and a state key", where)
			break
		}
		var e StateElement
		if pair[0] != "*" {
			e.Type = &pair[0]
		}
		switch pair[1] {
		case "*":
		case "$LAZY":
			rule.Lazy = rule.Lazy || pair[0] == "m.room.member"
			continue
		case "$ME":
			e.StateKey = &d.q.User
		default:
			e.StateKey = &pair[1]
		}
		rule.Include = append(rule.Include, e)
	}
	return d.config(where, c.TimelineLimit, rule)
}

// Unstable writes the answer in the unstable wire form.
func (a *SlidingAnswer) Unstable() []byte {
	return a.body(func(b []byte, r *SlidingRoom) []byte {
		start := len(b)
		b = r.common(append(b, '{'), start)
		if r.Name.Is && r.Name.Text != "" {
			b = r.Name.append(b, start, "name")
		}
		b = r.Avatar.append(b, start, "avatar")
		if r.Expanded {
			b = append(field(b, start, "unstable_expanded_timeline"), "true"...)
		}
		if r.Membership == "invite" || r.Membership == "knock" {
			b = array(b, start, "invite_state", r.Stripped)
		} else {
			b = array(b, start, "required_state", r.State)
			b = array(b, start, "timeline", r.Timeline)
		}
		return append(b, '}')
	})
}
