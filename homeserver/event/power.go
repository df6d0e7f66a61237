// SPDX-License-Identifier: Apache-2.0

package event

import (
	"math"
	"slices"
)

// Power is who may do what in a room ("m.room.power_levels"), with the creators' rule of v12.
type Power struct {
	levels   *levels  // nil: there is no power levels event
	creators []string // who stands above all levels (v12)
	creator  string   // who has 100 while there is no power levels event
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
	return powerOf(create, ev), nil
}

func powerOf(create, ev *Event) (p Power) {
	if create != nil {
		c := create.facts().creators
		if create.version.CreatorsRule() {
			p.creators = c
		} else if len(c) > 0 {
			p.creator = c[0]
		}
	}
	if ev != nil {
		f := ev.facts()
		if p.levels = f.power; f.powerErr != nil {
			p.levels = &levels{}
		}
	}
	return p
}

// User is the level of a user.
func (p Power) User(id string) int64 {
	switch {
	case slices.Contains(p.creators, id):
		return CreatorLevel
	case p.levels != nil:
		return p.levels.user(id)
	case id == p.creator && id != "":
		return 100
	}
	return 0
}

// Event is the level needed to send an event of this type.
func (p Power) Event(typ string, state bool) int64 { return p.levels.event(typ, state) }

// Redact is the level needed to redact other people's events.
func (p Power) Redact() int64 { return p.levels.get("redact") }

// Invite is the level needed to invite.
func (p Power) Invite() int64 { return p.levels.get("invite") }

// Kick is the level needed to kick.
func (p Power) Kick() int64 { return p.levels.get("kick") }

// Ban is the level needed to ban.
func (p Power) Ban() int64 { return p.levels.get("ban") }

// Notification is the level needed to notify by this key, e.g. "room".
func (p Power) Notification(key string) int64 {
	if p.levels != nil {
		if v, ok := p.levels.notifications[key]; ok {
			return v
		}
	}
	return 50
}

// Creators are the users whom a create event makes creators: in v12 the sender and content.additional_creators, before v11
// content.creator, in v11 the sender.
func Creators(create *Event) []string {
	if create.version.CreatorInContent() {
		return []string{textField(create.content, "creator")}
	}
	out := []string{create.sender}
	if create.version.CreatorsRule() {
		elements(field(create.content, "additional_creators"), func(v []byte) bool {
			if s, ok := text(v); ok {
				out = append(out, s)
			}
			return true
		})
	}
	return out
}
