// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"encoding/binary"

	"github.com/trunkboard/trunkboard/sfu/congest"
	"github.com/trunkboard/trunkboard/sfu/forward"
	"github.com/trunkboard/trunkboard/sfu/packets"
)

// Size of a Batch, and the kernel's limits of segmentation offload (UDP_MAX_SEGMENTS, and what fits one IP packet).
const (
	batchMessages   = 128
	batchArena      = 256 << 10
	slotSize        = packets.MaxSize + maxOverhead
	maxSegments     = 64
	maxSegmentBytes = 64000
)

// Batch gathers packets that are ready to go and hands them to the kernel in as few calls as it can: all messages of a batch in one
// sendmmsg, and packets of one size to one peer (a video frame's) as one message that the kernel cuts up. It belongs to one
// goroutine. It implements forward.Out.
type Batch struct {
	arena    []byte
	pos      int
	messages [batchMessages]message
	n        int
	scratch  scratch
	framed   [slotSize]byte
	parsed   [receiveBatch]forward.Packet
	sys      batchSys

	packets, calls, dropped uint64
}

// message is one entry of a batch: bytes of the arena to one peer.
type message struct {
	path    *path
	from    int
	size    int
	segment int  // length of all packets but the last
	count   int  // packets
	closed  bool // the last packet was shorter: nothing may follow
}

var _ forward.Out = (*Batch)(nil)

// NewBatch makes an empty batch.
func NewBatch() *Batch {
	b := &Batch{arena: make([]byte, batchArena)}
	b.sys.init()
	return b
}

// Packets is room for the packets of one run, for whoever handles it.
func (b *Batch) Packets() []forward.Packet { return b.parsed[:] }

// frame is a copy of p, valid until the next call.
func (b *Batch) frame(p []byte) []byte { return b.framed[:copy(b.framed[:], p)] }

// Slot implements forward.Out.
func (b *Batch) Slot() []byte {
	if b.pos+slotSize > len(b.arena) {
		b.Flush()
	}
	return b.arena[b.pos : b.pos+slotSize]
}

// Send implements forward.Out.
func (b *Batch) Send(to forward.Peer, n int, roc uint32, number int) {
	s, ok := to.(*Session)
	if !ok {
		return
	}
	seal, path := s.sealer.Load(), s.path.Load()
	if seal == nil || path == nil {
		return
	}
	if number > 0 {
		binary.BigEndian.PutUint16(b.arena[b.pos+number:], s.Path.Sent(n+maxOverhead, reference(b.arena[b.pos:b.pos+n]), s.t.Now()))
	}
	size := seal.seal(b.arena[b.pos:b.pos+slotSize], n, roc, &b.scratch)
	if b.n > 0 {
		m := &b.messages[b.n-1]
		if m.path == path && !m.closed && size <= m.segment && m.count < maxSegments && m.size+size <= maxSegmentBytes && path.socket != nil && path.socket.segments {
			m.size += size
			m.count++
			m.closed = size < m.segment
			b.pos += size
			return
		}
	}
	b.push(message{path: path, size: size, segment: size, count: 1})
}

// reference says what p is.
func reference(p []byte) congest.Ref {
	r := congest.Ref{SSRC: binary.BigEndian.Uint32(p[8:]), Sequence: binary.BigEndian.Uint16(p[2:])}
	if at := packets.HeaderLength(p); at+2 <= len(p) {
		r.Original = binary.BigEndian.Uint16(p[at:])
	}
	return r
}

// clear queues the first size bytes of the slot as they are.
func (b *Batch) clear(to *path, size int) {
	b.push(message{path: to, size: size, segment: size, count: 1, closed: true})
}

// push queues the slot's first m.size bytes.
func (b *Batch) push(m message) {
	if b.n == len(b.messages) {
		// Flushing resets the arena; the packet in the slot moves to its start.
		from := b.pos
		b.Flush()
		copy(b.arena, b.arena[from:from+m.size])
	}
	m.from = b.pos
	b.messages[b.n] = m
	b.n++
	b.pos += m.size
}

// Flush sends what the batch holds. What the kernel does not take is dropped: it is media, and would be late.
func (b *Batch) Flush() {
	for first := 0; first < b.n; {
		socket := b.messages[first].path.socket
		if socket == nil {
			m := &b.messages[first]
			if !m.path.stream.put(b.arena[m.from : m.from+m.size]) {
				b.dropped++
			}
			first++
			continue
		}
		end := first + 1
		for end < b.n && b.messages[end].path.socket == socket {
			end++
		}
		b.write(socket, b.messages[first:end])
		first = end
	}
	b.n, b.pos = 0, 0
}
