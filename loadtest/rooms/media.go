// SPDX-License-Identifier: Apache-2.0

package rooms

import (
	"sync"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

// What publishers send: a sound of 50 packets a second, 120 bytes each, and VP8 pictures whose descriptors are real and whose content is not.
const (
	soundEvery = 20 * time.Millisecond
	soundBytes = 120
	frameEvery = time.Second / 30
	keyEvery   = 150 // frames
	packetMost = 1150
)

func (c *client) sendSound(tr *webrtc.TrackLocalStaticRTP) {
	p := &rtp.Packet{Header: rtp.Header{Version: 2}, Payload: make([]byte, soundBytes)}
	tick := time.NewTicker(soundEvery)
	defer tick.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-tick.C:
		}
		p.SequenceNumber++
		p.Timestamp += 960
		if tr.WriteRTP(p) == nil {
			c.run.sent.Add(1)
		}
	}
}

func (c *client) sendPictures(tr *webrtc.TrackLocalStaticRTP, kbps int) {
	frame := kbps * 1000 / 8 / 30
	n := max(1, (frame+packetMost-1)/packetMost)
	b := make([]byte, max(16, frame/n))
	p := &rtp.Packet{Header: rtp.Header{Version: 2}, Payload: b}
	tick := time.NewTicker(frameEvery)
	defer tick.Stop()
	for f := 0; ; f++ {
		select {
		case <-c.ctx.Done():
			return
		case <-tick.C:
		}
		key := f%keyEvery == 0
		select {
		case <-c.keys:
			key = true
		default:
		}
		p.Timestamp += 3000
		for i := range n {
			p.SequenceNumber++
			p.Marker = i == n-1
			// RFC 7741 section 4.2: extended, picture ID of 15 bits, TL0PICIDX, temporal layer 0.
			b[0], b[1], b[2], b[3], b[4], b[5] = 0x80, 0xE0, 0x80|byte(f>>8)&0x7F, byte(f), byte(f), 0
			b[6] = 0x11 // not a key frame
			if i == 0 {
				b[0] |= 0x10
				if key { // 1280x720
					copy(b[6:], []byte{0x10, 0x20, 0x00, 0x9D, 0x01, 0x2A, 0x00, 0x05, 0xD0, 0x02})
				}
			}
			if tr.WriteRTP(p) == nil {
				c.run.sent.Add(1)
			}
		}
	}
}

// arrival counts what comes of one track.
type arrival struct {
	mu             sync.Mutex
	packets, bytes uint64
	first, last    uint64 // sequence numbers, counted through their wraps
	started        bool
	markP, markB   uint64 // when the timed part began
	markLast       uint64
}

func (a *arrival) note(sequence uint16, bytes int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.packets++
	a.bytes += uint64(bytes)
	if !a.started {
		a.started, a.first, a.last = true, uint64(sequence), uint64(sequence)
		return
	}
	if d := int16(sequence - uint16(a.last)); d > 0 {
		a.last += uint64(d)
	}
}

// mark begins the timed part.
func (a *arrival) mark() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.markP, a.markB, a.markLast = a.packets, a.bytes, a.last
}

// since is what came in the timed part, and how many numbers went by.
func (a *arrival) since() (packets, bytes, expected uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.packets - a.markP, a.bytes - a.markB, a.last - a.markLast
}
