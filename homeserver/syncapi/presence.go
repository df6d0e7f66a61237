// SPDX-License-Identifier: Apache-2.0

package syncapi

// Presence is what sync needs to know of presence.
type Presence interface {
	// PresenceJSON gives the m.presence events of users, as JSON objects, for those who have any presence.
	PresenceJSON(users []string) [][]byte
}

// PresenceChanged tells everybody who shares a room with user that the user's presence has changed.
func (s *Service) PresenceChanged(user string, sharers []string) {
	if s.Presence == nil {
		return
	}
	s.ephemeral(sharers, item{kind: ephPresence, users: []string{user}})
}

func (a *answer) presenceSince(items []item) error {
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
	a.addPresence(users)
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
	a.addPresence(users)
	return nil
}

func (a *answer) addPresence(users []string) {
	if a.s.Presence == nil || !a.q.Filter.Presence.AllowsType("m.presence") {
		return
	}
	for _, e := range a.s.Presence.PresenceJSON(users) {
		a.presence = list(a.presence, e)
		a.something = a.something || !a.first
	}
}
