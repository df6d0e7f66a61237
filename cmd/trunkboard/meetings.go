// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/trunkboard/trunkboard/configs"
	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/homeserver/calls"
	"github.com/trunkboard/trunkboard/homeserver/httpapi"
	"github.com/trunkboard/trunkboard/homeserver/meetings"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/sfu"
	"github.com/trunkboard/trunkboard/sfu/livekit"
	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/focus"
	"github.com/trunkboard/trunkboard/signalling/limit"
	"github.com/trunkboard/trunkboard/signalling/meeting"
	"github.com/trunkboard/trunkboard/widgets/meetapi"
)

var _ meetings.Media = (*conference)(nil)

// Describe implements meetings.Media.
func (c *conference) Describe(room, metadata string, create bool) error {
	r, err := c.engine.Room(room, create)
	if !create && errors.Is(err, sfu.ErrNoRoom) {
		return nil
	}
	if err != nil {
		return signalling.Refuse(http.StatusServiceUnavailable, "M_UNKNOWN", "there is no room for another meeting now").Because(err)
	}
	r.SetMetadata(metadata)
	return nil
}

// Say implements meetings.Media.
func (c *conference) Say(room string, message []byte, identities ...string) {
	if r, err := c.engine.Room(room, false); err == nil {
		_ = livekit.Say(r, meeting.ControlTopic, message, identities...) // too long: ours are not
	}
}

// of finds a participant; nil when there is none.
func (c *conference) of(room, identity string) *sfu.Participant {
	r, err := c.engine.Room(room, false)
	if err != nil {
		return nil
	}
	return r.Find(identity)
}

// Silence implements meetings.Media.
func (c *conference) Silence(room, identity, kind string) bool {
	p := c.of(room, identity)
	if p == nil {
		return false
	}
	sources := map[string][]string{meeting.Audio: {"microphone"}, meeting.Video: {"camera"}, meeting.Screen: {"screen_share", "screen_share_audio"}}
	any := false
	for _, t := range p.Info().Tracks {
		for _, s := range sources[kind] {
			if t.Source == s && !t.Muted {
				_, err := p.Silence(t.SID)
				any = any || err == nil
			}
		}
	}
	return any
}

// Hold implements meetings.Media.
func (c *conference) Hold(room, identity string, sources []string) {
	if p := c.of(room, identity); p != nil {
		p.Hold(sources)
	}
}

// Close implements meetings.Media.
func (c *conference) Close(room string) {
	if r, err := c.engine.Room(room, false); err == nil {
		r.Close(sfu.RoomClosed)
	}
}

// attendance tells the records of calls, and the meetings, who is in the SFU.
type attendance struct {
	calls    *calls.Groups
	meetings *meetings.Service
}

var _ focus.Attendance = (*attendance)(nil)

// Arrived implements focus.Attendance.
func (a *attendance) Arrived(m focus.Member, session string, at time.Time) {
	if m.SlotID == meeting.Slot {
		a.meetings.Arrived(m, session, at)
		return
	}
	a.calls.Arrived(m.RoomID, m.SlotID, m.UserID, session, at)
}

// Departed implements focus.Attendance.
func (a *attendance) Departed(m focus.Member, session string, at time.Time) {
	if m.SlotID == meeting.Slot {
		a.meetings.Departed(m, session, at)
		return
	}
	a.calls.Departed(m.RoomID, m.SlotID, session, at)
}

// openMeetings puts meetings on top of the token service; nil where there is none.
func (a *App) openMeetings(f *focus.Service, store *storage.Store, r *rooms.Service, acc *accounts.Service, clock signalling.Clock) (*meetings.Service, error) {
	if f == nil {
		return nil, nil
	}
	options, err := configs.ParseMeetings(a.cfg.Meetings.Options)
	if err != nil {
		return nil, fmt.Errorf("meetings.options: %w", err)
	}
	create := options.Create
	if create == "" {
		create = meetings.CreateUsers
		if a.cfg.ServerName == "localhost" {
			create = meetings.CreateAnyone
		}
	}
	keys, err := meetingKeys(options.Issuers)
	if err != nil {
		return nil, fmt.Errorf("meetings.options: %w", err)
	}
	log := a.log.With("part", "meetings")
	allow := limit.New(clock, meetingRates(a.cfg.Limits), 0)
	s := meetings.New(meetings.Deps{
		Config: meetings.Config{Create: create, Keys: keys, RetentionDays: a.cfg.Calls.RetentionDays},
		Store:  store, Rooms: r, Accounts: acc, Focus: f, Identity: f.Homeserver, Media: a.conference, Limit: allow.Check, Clock: clock, Log: log,
	})
	general := limit.New(clock, rates(a.cfg.Limits), 0)
	a.meet = a.endPolls(a.count("meetings", meetapi.New(meetapi.Config{
		Meetings: s, Log: log,
		MediaAt: func(r *http.Request) string { return focus.MediaURL(f.Base(r)) },
		Address: func(r *http.Request) string { return httpapi.Address(r, a.cfg.Listen.TrustedProxies) },
		Limit:   func(address string) error { return general.Check("requests", address) },
	})))
	a.running = append(a.running, component{name: "meetings", run: s.Run})
	return s, nil
}

// meetingRates are limits that nobody is expected to change: an office of a hundred people behind one address gets in, a guesser does
// not get far.
func meetingRates(l configs.Limits) map[string]limit.Rate {
	if !l.Enabled {
		return nil
	}
	return map[string]limit.Rate{
		"meeting_joins":     {PerSecond: 2, Burst: 100},          // by address
		"meeting_knocks":    {PerSecond: 0.5, Burst: 30},         // by address
		"meetings":          {PerSecond: 30.0 / 3600, Burst: 30}, // begun, by address or user
		"meeting_passwords": {PerSecond: 10.0 / 60, Burst: 10},   // by address and meeting
	}
}

// meetingKeys reads whose tokens are believed.
func meetingKeys(list []configs.Issuer) (keys meeting.Keys, err error) {
	for _, i := range list {
		key := meeting.Key{AppID: i.AppID, Secret: []byte(i.Secret)}
		if i.Audience != "" {
			key.Audiences = []string{i.Audience}
		}
		if i.KeyFile != "" {
			text, err := os.ReadFile(i.KeyFile)
			if err != nil {
				return nil, err
			}
			if key.Public, err = meeting.ParsePublic(text); err != nil {
				return nil, fmt.Errorf("%s: %w", i.KeyFile, err)
			}
			key.Secret = nil
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// withMeetings serves the meetings' paths before next.
func (a *App) withMeetings(next http.Handler) http.Handler {
	if a.meet == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if meetapi.Serves(r.URL.Path) {
			a.meet.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}
