// SPDX-License-Identifier: Apache-2.0

package sfu

import (
	"encoding/binary"
	"testing"

	"github.com/trunkboard/trunkboard/sfu/forward"
	"github.com/trunkboard/trunkboard/sfu/packets"
)

// S40: what claims to repair a stream must be whole, of the agreed type, and about a stream that is known.
func TestRepairsOfUnknownStreamsAreDropped(t *testing.T) {
	section := &section{}
	in := &incoming{section: section, media: 96, rtx: 97}
	repair := func(payloadType uint8, payload ...byte) *forward.Packet {
		b := make([]byte, packets.HeaderSize, 100)
		packets.PutHeader(b, false, false, payloadType, 500, 90, 7777)
		p := &forward.Packet{Raw: append(b, payload...)}
		if !p.Header.Parse(p.Raw) {
			t.Fatal("no header")
		}
		return p
	}
	s := &stream{in: in, rtx: true}
	if unwrap(repair(97, 0, 9, 1, 2), s) {
		t.Error("a stream that never came was repaired")
	}
	section.ssrcs[0].Store(1111)
	for name, p := range map[string]*forward.Packet{
		"nothing": repair(97), "half a number": repair(97, 1), "another type": repair(96, 0, 9, 1, 2),
	} {
		if unwrap(p, s) {
			t.Errorf("%s: accepted", name)
		}
	}
	p := repair(97, 0, 9, 1, 2)
	if !unwrap(p, s) || p.Header.SSRC != 1111 || p.Header.Sequence != 9 || p.Header.PayloadType != 96 || binary.BigEndian.Uint16(p.Raw[p.Header.Payload:]) != 0x0102 {
		t.Errorf("a good repair became %+v % x", p.Header, p.Raw)
	}
}
