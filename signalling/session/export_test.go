// SPDX-License-Identifier: Apache-2.0

package session

// Len is the number of leases and sessions in memory, expired or not.
func (m *Mem) Len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.due)
}
