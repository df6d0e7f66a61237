// SPDX-License-Identifier: Apache-2.0

package packets

// Ring keeps the newest packets of one stream, so that a lost one can be sent again. Bytes lie one after the other in one
// arena; the oldest are overwritten. It is not safe for concurrent use.
type Ring struct {
	arena []byte
	pos   uint64 // bytes ever written, skips at the arena's end counted
	slots []ringSlot
}

type ringSlot struct {
	count uint64 // extended sequence number, 0 if never used
	at    uint64 // position as pos counts it
	size  int
}

// NewRing makes a ring for up to packets (rounded up to a power of two) of together up to bytes.
func NewRing(packets, bytes int) *Ring {
	n := 1
	for n < packets {
		n <<= 1
	}
	return &Ring{arena: make([]byte, max(bytes, MaxSize)), slots: make([]ringSlot, n)}
}

// Put copies packet b with the extended sequence number count. It reports false, and keeps nothing, for one over MaxSize, one that is too
// old for the ring, and one that was put before.
func (r *Ring) Put(count uint64, b []byte) bool {
	s := &r.slots[count&uint64(len(r.slots)-1)]
	if len(b) > MaxSize || count <= s.count {
		return false
	}
	size := uint64(len(r.arena))
	if r.pos%size+uint64(len(b)) > size {
		r.pos += size - r.pos%size
	}
	copy(r.arena[r.pos%size:], b)
	*s = ringSlot{count: count, at: r.pos, size: len(b)}
	r.pos += uint64(len(b))
	return true
}

// Get gives the packet with that extended sequence number, nil if it is gone. The bytes are the ring's: valid until the next Put.
func (r *Ring) Get(count uint64) []byte {
	s := &r.slots[count&uint64(len(r.slots)-1)]
	if s.count != count || count == 0 || r.pos-s.at > uint64(len(r.arena)) {
		return nil
	}
	at := s.at % uint64(len(r.arena))
	return r.arena[at : at+uint64(s.size)]
}
