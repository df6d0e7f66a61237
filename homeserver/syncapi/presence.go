// SPDX-License-Identifier: Apache-2.0

package syncapi

import (
	"context"
	"strconv"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/signalling/presence"
)

// Run tells clients of presence until ctx ends, and clears away what nobody uses.
func (s *Service) Run(ctx context.Context) error {
	sweep := make(chan struct{}, 1)
	again := func() {
		select {
		case sweep <- struct{}{}:
		default:
		}
	}
	stop := s.Clock.AfterFunc(time.Minute, again)
	defer func() { stop() }()
	var changes <-chan struct{}
	seen := uint64(0)
	if s.Presence != nil {
		changes = s.Presence.Watch(ctx)
		seen = s.Presence.Version()
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-sweep:
			s.Sweep()
			s.Rooms.Sweep()
			if err := s.Rooms.PruneSticky(ctx); err != nil && ctx.Err() == nil {
				s.Log.Warn("old sticky events could not be forgotten", "err", err)
			}
			stop = s.Clock.AfterFunc(time.Minute, again)
		case _, ok := <-changes:
			if !ok {
				changes = nil
				continue
			}
			changed, upto, complete := s.Presence.Changes(seen, 0)
			if !complete {
				changed, upto, _ = s.Presence.Changes(0, 0)
			}
			seen = upto
			for _, c := range changed {
				s.tellPresence(c.UserID)
			}
		}
	}
}

// tellPresence puts a change of presence into the inboxes of those who share a room with the user.
func (s *Service) tellPresence(user string) {
	sharers, ok := s.Rooms.KnownSharers(user)
	if !ok {
		var err error
		if sharers, err = s.Rooms.SharedUsers(context.Background(), user); err != nil {
			s.Log.Warn("presence could not be told", "user", user, "err", err)
			return
		}
	}
	users := make([]string, 0, len(sharers))
	for u := range sharers {
		users = append(users, u)
	}
	s.ephemeral(users, &item{kind: ephPresence, users: []string{user}})
}

func (a *answer) presenceSince(items []*item) error {
	seen := map[string]bool{}
	var users []string
	for i := range items {
		if items[i].note.Kind == 0 && items[i].kind == ephPresence {
			for _, u := range items[i].users {
				if !seen[u] {
					seen[u] = true
					users = append(users, u)
				}
			}
		}
	}
	a.addPresence(users, false)
	return nil
}

// presenceAll gives the presence of everybody whom the reader shares a room with.
func (a *answer) presenceAll() error {
	if a.s.Presence == nil || a.q.Filter.Presence.Empty() {
		return nil
	}
	shared, err := a.s.Rooms.SharedUsers(a.ctx, a.q.User)
	if err != nil {
		return err
	}
	users := make([]string, 0, len(shared))
	for u := range shared {
		users = append(users, u)
	}
	a.addPresence(users, true)
	return nil
}

// addPresence adds m.presence events; known leaves out users of whom nothing was ever heard.
func (a *answer) addPresence(users []string, known bool) {
	f := &a.q.Filter.Presence
	if a.s.Presence == nil || !f.AllowsType("m.presence") {
		return
	}
	for _, p := range a.s.Presence.Get(users...) {
		if (known && p.Version == 0) || a.present[p.UserID] || !f.Allows("", "m.presence", p.UserID, false) {
			continue
		}
		if p.UserID == a.q.User && !a.s.ownPresence(a.q.User, a.q.Device, p.Version, known) {
			continue // the device heard of it in the answer that it made itself present with
		}
		if a.present == nil {
			a.present = map[string]bool{}
		}
		a.present[p.UserID] = true
		b := append([]byte(nil), `{"content":`...)
		b = AppendPresence(b, p, a.now)
		b = append(b, `,"sender":`...)
		b = event.AppendString(b, p.UserID)
		b = append(b, `,"type":"m.presence"}`...)
		a.presence = list(a.presence, b)
		a.something = a.something || !known
	}
}

// ownPresence notes that a device is given its user's own presence; false says that it had
// that one. With always it is given it again.
func (s *Service) ownPresence(user, device string, version uint64, always bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.inboxes[user]
	if b == nil {
		return true
	}
	if b.own[device] >= version && !always {
		return false
	}
	if b.own == nil {
		b.own = map[string]uint64{}
	}
	b.own[device] = version
	return true
}

// AppendPresence writes a presence as the content of m.presence.
func AppendPresence(b []byte, p presence.Status, now time.Time) []byte {
	b = append(b, `{"presence":`...)
	b = event.AppendString(b, string(p.State))
	if !p.LastActive.IsZero() {
		b = append(b, `,"last_active_ago":`...)
		b = strconv.AppendInt(b, max(0, now.Sub(p.LastActive).Milliseconds()), 10)
	}
	b = append(b, `,"currently_active":`...)
	b = strconv.AppendBool(b, p.State == presence.Online)
	if p.StatusMsg != "" {
		b = append(b, `,"status_msg":`...)
		b = event.AppendString(b, p.StatusMsg)
	}
	return append(b, '}')
}
