// SPDX-License-Identifier: Apache-2.0

package calls

// Hold stops Run before the next thing that it would write down.
func (s *Service) Hold() (release func()) {
	s.live.mu.Lock()
	return s.live.mu.Unlock
}

// Behind says that nothing is queued, because Run reads from the store.
func (s *Service) Behind() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.behind
}
