// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"crypto/rand"
	"time"

	"github.com/trunkboard/trunkboard/turn/relay"
)

// reservationToken is the value of RESERVATION-TOKEN (RFC 8656, section 18.9).
type reservationToken [8]byte

// reservation is a relay socket that waits for the Allocate that takes it.
type reservation struct {
	user  string // realm.user
	sock  relay.Socket
	ports *relay.Ports
	stop  func() bool
}

func (r *reservation) drop() {
	r.stop()
	r.sock.Close()
	r.ports.Release(r.sock.Addr().Port())
}

// reservationTime is how long a reserved port waits (RFC 8656, section 7.2, recommends 30 s).
const reservationTime = 30 * time.Second

// reserve keeps a socket for the Allocate that brings the token. While it waits it counts as one of the user's allocations.
func (s *Server) reserve(sock relay.Socket, ports *relay.Ports, user string) (t reservationToken, ok bool) {
	_, _ = rand.Read(t[:]) // never fails
	r := &reservation{user: user, sock: sock, ports: ports}
	s.mu.Lock()
	defer s.mu.Unlock()
	r.stop = s.cfg.Clock.AfterFunc(reservationTime, func() {
		if r := s.takeReservation(t, user); r != nil {
			r.drop()
		}
	})
	if s.closed {
		r.drop()
		return t, false
	}
	s.reserved[t] = r
	s.reservedBy[user]++
	return t, true
}

// takeReservation finds the socket of a token that the same user was given, once.
func (s *Server) takeReservation(t reservationToken, user string) *reservation {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.reserved[t]
	if r == nil || r.user != user {
		return nil
	}
	delete(s.reserved, t)
	if s.reservedBy[user]--; s.reservedBy[user] == 0 {
		delete(s.reservedBy, user)
	}
	r.stop()
	return r
}
