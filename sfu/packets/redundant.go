// SPDX-License-Identifier: Apache-2.0

package packets

import "encoding/binary"

// MaxRedundant is how many older sounds a packet of redundant sound may carry beside its own; browsers put in one or two.
const MaxRedundant = 8

// Sizes of a block's header, and what its fields can say (RFC 2198 section 3).
const (
	blockHeader   = 4
	primaryHeader = 1
	maxBlockSize  = 1<<10 - 1
	maxBlockAge   = 1<<14 - 1 // timestamp units
)

// Redundancy is the layout of a payload of redundant sound:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|1|   block PT  |  timestamp offset         |   block length    |  for each older sound
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|0|   block PT  |  older sounds …, the packet's own sound
//	+-+-+-+-+-+-+-+-+
type Redundancy struct {
	N       int // older sounds
	Primary int // where the packet's own sound begins in the payload; it reaches to the end
	blocks  [MaxRedundant]Block
}

// Block is an older sound.
type Block struct {
	At, Size int    // in the payload
	Age      uint32 // how much older its timestamp is
}

// Parse reads the layout of payload, all of whose blocks must have the payload type plain: redundancy within redundancy, and other codecs,
// are refused. It reports false if anything does not fit.
func (r *Redundancy) Parse(payload []byte, plain uint8) bool {
	r.N, r.Primary = 0, 0
	rest, size := payload, 0
	for {
		if len(rest) < primaryHeader || rest[0]&0x7F != plain {
			return false
		}
		if rest[0]&0x80 == 0 {
			break
		}
		if len(rest) < blockHeader || r.N == MaxRedundant {
			return false
		}
		h := binary.BigEndian.Uint32(rest)
		r.blocks[r.N] = Block{At: size, Size: int(h & maxBlockSize), Age: h >> 10 & maxBlockAge}
		size += r.blocks[r.N].Size
		r.N++
		rest = rest[blockHeader:]
	}
	head := blockHeader*r.N + primaryHeader
	if head+size > len(payload) {
		return false
	}
	for i := range r.N {
		r.blocks[i].At += head
	}
	r.Primary = head + size
	return true
}

// Older gives the sound of the packet that was sent n packets before this one; false if it is not here.
func (r *Redundancy) Older(n int) (Block, bool) {
	if n < 1 || n > r.N {
		return Block{}, false
	}
	b := r.blocks[r.N-n]
	return b, b.Size > 0 && b.Age > 0
}

// Retype gives the blocks of payload, which r was read from or is a copy of it, another payload type.
func (r *Redundancy) Retype(payload []byte, plain uint8) {
	for i := range r.N {
		payload[blockHeader*i] = 0x80 | plain
	}
	payload[blockHeader*r.N] = plain
}

// Fits reports whether a sound of that size and age can be an older one.
func Fits(size int, age uint32) bool {
	return size > 0 && size <= maxBlockSize && age > 0 && age <= maxBlockAge
}

// RedundantHead is the size of the headers for n older sounds.
func RedundantHead(n int) int { return blockHeader*n + primaryHeader }

// PutOlder writes the header of the older sound number i, counted from 0, to payload.
func PutOlder(payload []byte, i int, plain uint8, age uint32, size int) {
	binary.BigEndian.PutUint32(payload[blockHeader*i:], uint32(0x80|plain)<<24|age<<10|uint32(size))
}

// PutOwn writes the header of the packet's own sound, after those of n older ones.
func PutOwn(payload []byte, n int, plain uint8) { payload[blockHeader*n] = plain & 0x7F }
