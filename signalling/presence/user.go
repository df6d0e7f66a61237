// SPDX-License-Identifier: Apache-2.0

package presence

import (
	"time"
)

// maxDevices bounds the devices of one user that are present at once.
const maxDevices = 100

// user is all that a node knows about one user.
type user struct {
	id      string
	devices map[string]device
	own     share            // what this node says
	told    share            // what other nodes have been told
	peers   map[string]share // what other nodes say, by node

	shown   Status    // what readers see
	changed time.Time // when shown last changed

	due        time.Time // when to look again
	slot       int       // in Mem.due
	prev, next *user     // in Mem.log; nil when never changed
}

type device struct {
	state   State
	expires time.Time
}

// share is one node's word on a user, as it travels through Redis. Times are milliseconds since 1970, 0 for never.
type share struct {
	State  State  `json:"s,omitempty"` // empty = offline
	Active int64  `json:"a,omitempty"`
	Msg    string `json:"m,omitempty"`
	MsgAt  int64  `json:"t,omitempty"`
}

// hear applies what a device says.
func (u *user) hear(up Update, now time.Time, hold time.Duration) {
	d, there := u.devices[up.DeviceID]
	active := up.LastActive
	switch {
	case up.State == Offline:
		delete(u.devices, up.DeviceID)
	case up.State == "":
		if there {
			if d.state == Unavailable && !active.IsZero() {
				d.state = Online
			}
			u.devices[up.DeviceID] = device{d.state, now.Add(hold)}
		}
	default:
		if !there && up.State == Online && active.IsZero() {
			active = now
		}
		if !there && len(u.devices) >= maxDevices {
			u.dropOldest()
		}
		u.devices[up.DeviceID] = device{up.State, now.Add(hold)}
	}
	if active.After(now) {
		active = now
	}
	if !active.IsZero() {
		u.own.Active = max(u.own.Active, active.UnixMilli())
	}
	if up.StatusMsg != nil {
		// A later word must win over an earlier one also within a millisecond.
		u.own.Msg, u.own.MsgAt = *up.StatusMsg, max(now.UnixMilli(), u.latest().MsgAt+1)
	}
}

func (u *user) dropOldest() {
	oldest, first := "", true
	for id, d := range u.devices {
		if first || d.expires.Before(u.devices[oldest].expires) {
			oldest, first = id, false
		}
	}
	delete(u.devices, oldest)
}

// expire drops the devices that were silent for too long and sums up the others.
func (u *user) expire(now time.Time) {
	u.own.State = ""
	for id, d := range u.devices {
		if !now.Before(d.expires) {
			delete(u.devices, id)
		} else if d.state.rank() > u.own.State.rank() {
			u.own.State = d.state
		}
	}
}

// latest combines what all nodes say.
func (u *user) latest() share {
	sum := u.own
	for _, s := range u.peers {
		if s.State.rank() > sum.State.rank() {
			sum.State = s.State
		}
		sum.Active = max(sum.Active, s.Active)
		if s.MsgAt > sum.MsgAt || (s.MsgAt == sum.MsgAt && s.Msg > sum.Msg) {
			sum.Msg, sum.MsgAt = s.Msg, s.MsgAt
		}
	}
	return sum
}

// status is what readers should see now, and when that must be looked at again.
func (u *user) status(now time.Time, cfg *Config) (Status, time.Time) {
	sum := u.latest()
	s := Status{UserID: u.id, State: sum.State, StatusMsg: sum.Msg, Version: u.shown.Version}
	var due time.Time
	sooner := func(t time.Time) {
		if due.IsZero() || t.Before(due) {
			due = t
		}
	}
	if sum.Active != 0 {
		s.LastActive = time.UnixMilli(sum.Active).UTC()
	}
	switch s.State {
	case Online:
		if idle := s.LastActive.Add(cfg.Idle); now.Before(idle) {
			sooner(idle)
		} else {
			s.State = Unavailable
		}
	case "":
		s.State = Offline
	}
	for _, d := range u.devices {
		sooner(d.expires)
	}
	if due.IsZero() {
		// Offline, or present on other nodes only; the latter is looked at when those nodes speak.
		sooner(now.Add(cfg.Retain))
	}
	return s, due
}
