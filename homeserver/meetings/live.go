// SPDX-License-Identifier: Apache-2.0

package meetings

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling/focus"
	"github.com/trunkboard/trunkboard/signalling/matrixrtc"
	"github.com/trunkboard/trunkboard/signalling/meeting"
)

// live is a meeting that somebody has to do with now. Guarded by Service.mu.
type live struct {
	present  map[string]*person       // by identity
	expected map[string]*person       // has a token, has not come yet; by identity
	gone     map[string]*person       // was there; by identity
	waiting  map[string]*person       // in the lobby; by user
	ousted   map[string]bool          // users who were thrown out, and whose sessions are to end
	polls    map[chan struct{}]string // who waits for an answer, by user
	started  time.Time                // when somebody was there first
	dirty    bool                     // what everybody sees is to be told anew

	// What the record says of it: see records.go.
	record   int64 // its id; 0 while it has none
	subject  string
	retitled bool
	finished bool                            // a host has ended it
	visits   map[string]storage.MeetingVisit // by identity
	unsaved  map[string]bool                 // identities whose visits have changed
}

// person is somebody in a meeting.
type person struct {
	focus.Member
	name    string
	session string    // of the SFU
	since   time.Time // in the state that he is in
	touched time.Time // when his session was last noted as used
}

func (s *Service) live(roomID string) *live {
	l := s.lives[roomID]
	if l == nil {
		l = &live{
			present: map[string]*person{}, expected: map[string]*person{}, gone: map[string]*person{}, waiting: map[string]*person{}, ousted: map[string]bool{},
			polls: map[chan struct{}]string{}, visits: map[string]storage.MeetingVisit{}, unsaved: map[string]bool{},
		}
		s.lives[roomID] = l
	}
	return l
}

// idle says that nobody has to do with a meeting any more.
func (l *live) idle() bool {
	return len(l.present)+len(l.expected)+len(l.gone)+len(l.waiting)+len(l.polls)+len(l.unsaved)+len(l.ousted) == 0 && l.record == 0
}

func (s *Service) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// users are those who are in a meeting's media, or about to be.
func (s *Service) users(roomID string) map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]bool{}
	if l := s.lives[roomID]; l != nil {
		for _, p := range l.present {
			out[p.UserID] = true
		}
		for _, p := range l.expected {
			out[p.UserID] = true
		}
	}
	return out
}

// expect notes that somebody got a token.
func (s *Service) expect(m storage.Meeting, x storage.MeetingSession) {
	who := member(x)
	now := s.Clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.live(m.RoomID)
	delete(l.waiting, x.UserID)
	if l.present[who.Identity()] == nil {
		l.expected[who.Identity()] = &person{Member: who, name: x.Name, since: now, touched: now}
	}
	l.dirty = true
	s.nudge()
}

func (s *Service) unexpect(roomID, identity string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.lives[roomID]; l != nil {
		if p := l.expected[identity]; p != nil {
			delete(l.expected, identity)
			p.since = s.Clock.Now()
			l.gone[identity] = p
		}
	}
}

// Arrived says that a member is in the SFU. It never waits.
func (s *Service) Arrived(m focus.Member, session string, at time.Time) {
	if m.SlotID != meeting.Slot {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l, id := s.live(m.RoomID), m.Identity()
	p := &person{Member: m, session: session, since: at, touched: at}
	for _, was := range []*person{l.expected[id], l.present[id], l.gone[id]} {
		if was != nil && p.name == "" {
			p.name = was.name
		}
	}
	delete(l.expected, id)
	delete(l.gone, id)
	l.present[id] = p
	if l.started.IsZero() {
		l.started = at
	}
	l.came(p, at)
	l.dirty = true
	s.nudge()
}

// Departed says that a member has left the SFU. It never waits.
func (s *Service) Departed(m focus.Member, session string, at time.Time) {
	if m.SlotID != meeting.Slot {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l, id := s.lives[m.RoomID], m.Identity()
	if l == nil {
		return
	}
	p := l.present[id]
	if p == nil || p.session != session { // another session of his took the place
		return
	}
	delete(l.present, id)
	p.since = at
	l.gone[id] = p
	l.went(p, at)
	l.dirty = true
	s.nudge()
}

// Observe takes the notes of a commit. It never waits.
func (s *Service) Observe(_ int64, notes []storage.Note) {
	for i := range notes {
		if notes[i].Kind == storage.NoteLost {
			s.mu.Lock()
			for _, l := range s.lives {
				l.stir("")
			}
			s.mu.Unlock()
			s.nudge()
			continue
		}
		c, ok := notes[i].Value.(*rooms.Committed)
		if !ok {
			continue
		}
		for _, ch := range c.Changes {
			// Who is thrown out in a Matrix client does not come back with the session that he has.
			if k := ch.Key; k.Type == "m.room.member" && k.StateKey != c.Stored.Sender() {
				if now := c.Head.Membership(k.StateKey); now == "leave" || now == "ban" {
					s.mu.Lock()
					if l := s.lives[c.Room.ID]; l != nil {
						l.ousted[k.StateKey] = true
					}
					s.mu.Unlock()
				}
			}
			switch ch.Key.Type {
			case "m.room.member", "m.room.power_levels", "m.room.join_rules", "m.room.name":
			default:
				continue
			}
			s.mu.Lock()
			if l := s.lives[c.Room.ID]; l != nil {
				user := ""
				if ch.Key.Type == "m.room.member" {
					user = ch.Key.StateKey
				}
				l.stir(user)
				s.nudge()
			}
			s.mu.Unlock()
		}
	}
}

// stir notes that something has changed; user is whom it concerns, "" for everybody.
func (l *live) stir(user string) {
	l.dirty = true
	for c, who := range l.polls {
		if user == "" || who == user {
			select {
			case c <- struct{}{}:
			default:
			}
		}
	}
}

// describe tells the SFU's room how the meeting stands, and the SFU what those may do who are in it.
func (s *Service) describe(ctx context.Context, roomID string) error {
	// Whoever describes later knows more. Not under mu: the SFU holds its room's lock when it calls Arrived.
	teller := &s.tellers[stripe(roomID)]
	teller.Lock()
	defer teller.Unlock()
	s.mu.Lock()
	if l := s.lives[roomID]; l != nil {
		l.dirty = false // what changes from here on is told again
	}
	s.mu.Unlock()
	m, err := s.Store.MeetingOf(ctx, roomID)
	if errors.Is(err, storage.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	room, err := s.Rooms.Room(ctx, roomID)
	if err != nil {
		return err
	}
	v, err := s.view(ctx, room, m)
	if err != nil {
		return err
	}
	state := meeting.State{
		V: 1, Name: m.Name, Subject: v.subject, Hosts: []string{}, Lobby: v.access() == meeting.Lobby && !bound(m), Password: v.password, E2EE: m.E2EE,
		MayUnmute: meeting.Unmute{Audio: !hushes(m.Hushed, meeting.Audio), Video: !hushes(m.Hushed, meeting.Video)},
	}
	if !bound(m) {
		state.Knocking = len(knocking(room))
	}
	media := matrixrtc.MediaRoom(roomID, meeting.Slot)
	holds := map[string][]string{}
	s.mu.Lock()
	l := s.lives[roomID]
	if l == nil {
		s.mu.Unlock()
		return nil
	}
	state.Started = ms(l.started)
	for _, all := range []map[string]*person{l.present, l.expected} {
		for id, p := range all {
			holds[id] = held(m.Hushed)
			if v.power.User(p.UserID) >= HostPower {
				state.Hosts = append(state.Hosts, id)
				holds[id] = nil
			}
		}
	}
	l.titled(state.Subject)
	somebody := len(l.present)+len(l.expected) > 0
	s.mu.Unlock()
	slices.Sort(state.Hosts)
	b, err := json.Marshal(state)
	if err != nil {
		return err
	}
	for id, sources := range holds {
		s.Media.Hold(media, id, sources)
	}
	return s.Media.Describe(media, string(b), somebody)
}

// ms is a time in milliseconds since 1970; 0 for none.
func ms(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// knocking lists who waits in the lobby: users.
func knocking(room *rooms.Room) (users []string) {
	head := room.Head()
	head.Each(func(k event.Key, _ rooms.Ref) {
		if k.Type == "m.room.member" && head.Membership(k.StateKey) == "knock" {
			users = append(users, k.StateKey)
		}
	})
	slices.Sort(users)
	return users
}

func hushes(kinds, kind string) bool { return slices.Contains(strings.Split(kinds, ","), kind) }

// held are the sources, as the SFU calls them, that those may not unmute who are no hosts.
func held(hushed string) (out []string) {
	if hushes(hushed, meeting.Audio) {
		out = append(out, "microphone")
	}
	if hushes(hushed, meeting.Video) {
		out = append(out, "camera")
	}
	return out
}
