// SPDX-License-Identifier: Apache-2.0

package event

import (
	"encoding/json"
	"math"
	"slices"

	gmsl "github.com/matrix-org/gomatrixserverlib"
	"github.com/matrix-org/gomatrixserverlib/spec"
)

// Power is who may do what in a room ("m.room.power_levels"), with the creators' rule of v12.
type Power struct {
	levels   gmsl.PowerLevelContent
	creators []string
}

// CreatorLevel stands for "above every level" (v12 creators).
const CreatorLevel = math.MaxInt64

// PowerOf reads the power levels of a room state; without a power levels event the creator has 100 and everyone else 0.
func PowerOf(s State) (Power, error) {
	create, err := s.Event(Key{"m.room.create", ""})
	if err != nil {
		return Power{}, err
	}
	ev, err := s.Event(Key{"m.room.power_levels", ""})
	if err != nil {
		return Power{}, err
	}
	var p Power
	p.levels.Defaults()
	if create != nil && create.version.CreatorsRule() {
		p.creators = gmsl.CreatorsFromCreateEvent(create.pdu)
	}
	if ev == nil {
		if create != nil && p.creators == nil {
			p.levels.Users = map[string]int64{create.sender: 100}
		}
		return p, nil
	}
	if p.levels, err = gmsl.NewPowerLevelContentFromEvent(ev.pdu); err != nil {
		p.levels = gmsl.PowerLevelContent{}
		p.levels.Defaults()
	}
	return p, nil
}

// User is the level of a user.
func (p Power) User(id string) int64 {
	if slices.Contains(p.creators, id) {
		return CreatorLevel
	}
	return p.levels.UserLevel(spec.SenderID(id))
}

// Event is the level needed to send an event of this type.
func (p Power) Event(typ string, state bool) int64 { return p.levels.EventLevel(typ, state) }

// Redact is the level needed to redact other people's events.
func (p Power) Redact() int64 { return p.levels.Redact }

// Invite is the level needed to invite.
func (p Power) Invite() int64 { return p.levels.Invite }

// Kick is the level needed to kick.
func (p Power) Kick() int64 { return p.levels.Kick }

// Ban is the level needed to ban.
func (p Power) Ban() int64 { return p.levels.Ban }

// Notification is the level needed to notify by this key, e.g. "room".
func (p Power) Notification(key string) int64 { return p.levels.NotificationLevel(key) }

// Creators are the users whom a create event makes creators (v12), the sender first.
func Creators(create *Event) []string {
	var c struct {
		Additional []string `json:"additional_creators"`
	}
	_ = json.Unmarshal(create.Content(), &c)
	return append([]string{create.sender}, c.Additional...)
}
