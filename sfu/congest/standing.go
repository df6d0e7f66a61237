// SPDX-License-Identifier: Apache-2.0

package congest

import "time"

// standingFor is half the time over which the shortest way is remembered.
const standingFor = 15 * time.Second

// standing tells how long packets wait in the path, beyond the shortest way of the last while. The detector of overuse sees queues grow; one
// that is full and stays full it does not see. The zero value is ready.
type standing struct {
	begun        time.Duration // this half
	least, past  time.Duration // shortest ways of this half and the one before; clocks differ, so they may be negative
	any, anyPast bool
	newest       time.Duration // shortest way in the newest message
	heard        bool
}

// open begins a message.
func (s *standing) open(now time.Duration) {
	s.heard = false
	if now-s.begun > standingFor {
		s.begun, s.past, s.anyPast, s.any = now, s.least, s.any, false
	}
}

// note takes a packet that was sent and has arrived, each by its own clock.
func (s *standing) note(sent, arrived time.Duration) {
	way := arrived - sent
	if !s.any || way < s.least {
		s.least, s.any = way, true
	}
	if !s.heard || way < s.newest {
		s.newest, s.heard = way, true
	}
}

// queue is how long every packet of the newest message waited at least.
func (s *standing) queue() time.Duration {
	least := s.least
	if s.anyPast {
		least = min(least, s.past)
	}
	return s.newest - least
}
