// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"net/netip"
	"sync"

	"github.com/trunkboard/trunkboard/turn/stunmsg"
)

// Geometry of a batch. A slot holds the longest UDP packet, room for a Data indication's header in front (a multiple of 64) and
// for padding behind. Slots are large in address space only: pages that no packet reached are never backed by memory.
const (
	batchSize = 32
	headroom  = 64
	slotSize  = headroom + 65536 + 64
)

var _ = [headroom - stunmsg.DataIndicationHead]byte{} // the header fits

// Batch is a set of received packets in memory that is lent for the time of one call.
type Batch struct {
	n     int
	size  [batchSize]int
	from  [batchSize]netip.AddrPort
	slots []byte
	run   [batchSize][]byte // frames of the run being collected
	sys   batchSys          // what the engine's system calls need
}

func newBatch(slots int) *Batch {
	b := &Batch{slots: make([]byte, slots*slotSize)}
	if slots == batchSize {
		b.sys.init(b)
	}
	return b
}

// Len is the number of packets.
func (b *Batch) Len() int { return b.n }

// Packet is the i-th packet.
func (b *Batch) Packet(i int) []byte {
	at := i*slotSize + headroom
	return b.slots[at : at+b.size[i] : at+b.size[i]]
}

// From is where the i-th packet came from, never an IPv4-mapped address.
func (b *Batch) From(i int) netip.AddrPort { return b.from[i] }

// slot is the whole slot of packet i, which starts at offset headroom.
func (b *Batch) slot(i int) []byte { return b.slots[i*slotSize : (i+1)*slotSize] }

// batches keeps batches for reuse. A sync.Pool would give them to the garbage collector and get them back zeroed, which costs
// writing to megabytes; here there are as many as goroutines have ever moved packets at the same moment, at most maxIdleBatches.
type batches struct {
	mu   sync.Mutex
	idle []*Batch
}

const maxIdleBatches = 64

func (p *batches) get() *Batch {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.idle); n > 0 {
		b := p.idle[n-1]
		p.idle = p.idle[:n-1]
		return b
	}
	return newBatch(batchSize)
}

func (p *batches) put(b *Batch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.idle) < maxIdleBatches {
		p.idle = append(p.idle, b)
	}
}
