// SPDX-License-Identifier: Apache-2.0

package accounts

import (
	"encoding/json"

	"github.com/trunkboard/trunkboard/homeserver/storage"
)

// Hear takes in what another node has changed about accounts: tokens that ended are refused here from now on, and what is kept for a
// device that was deleted there ends here too. It must be quick: the store's writer calls it.
func (s *Service) Hear(a storage.Announcement) {
	switch a.Kind {
	case storage.NoteTokens:
		var hashes [][]byte
		if a.Data == nil || json.Unmarshal(a.Data, &hashes) != nil {
			s.forgetSessions() // too many to be named
			return
		}
		s.forget(hashes)
	case storage.NoteDeviceGone:
		s.ended(a.User, a.Device)
	case storage.NoteUser:
		s.Forget(a.User)
	case storage.NoteAccountData:
		if a.Room == "" {
			s.ignore.changed(a.User)
			s.invites.changed(a.User)
		}
	case storage.NoteLost:
		s.forgetSessions()
		s.ignore.forget()
		s.invites.forget()
	}
}

func (s *Service) forgetSessions() {
	s.cacheMu.Lock()
	defer s.cacheMu.Unlock()
	s.epoch.Add(1)
	s.sessions.Purge()
}

func (l *ignoreLists) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.epoch++
	l.kept.Purge()
}

func (l *invitePolicies) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.epoch++
	l.kept.Purge()
}
