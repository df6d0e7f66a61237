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
	realm *realm
	token bool // the user came with a token
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
func (s *Server) reserve(sock relay.Socket, ports *relay.Ports, who caller) (t reservationToken, ok bool) {
	_, _ = rand.Read(t[:]) // never fails
	user := who.realm.user(who.user)
	r := &reservation{user: user, realm: who.realm, token: who.token, sock: sock, ports: ports}
	s.mu.Lock()
	defer s.mu.Unlock()
	r.stop = s.cfg.Clock.AfterFunc(reservationTime, func() {
		if r := s.takeReservation(t, who); r != nil {
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

// takeReservation finds the socket of a token that the same user was given, once. Whether two access tokens are of one user, only who issued
// them knows; there the reservation's 64 random bits have to do.
func (s *Server) takeReservation(t reservationToken, who caller) *reservation {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.reserved[t]
	if r == nil || r.user != who.realm.user(who.user) && !(r.token && who.token && r.realm == who.realm) {
		return nil
	}
	delete(s.reserved, t)
	if s.reservedBy[r.user]--; s.reservedBy[r.user] == 0 {
		delete(s.reservedBy, r.user)
	}
	r.stop()
	return r
}
