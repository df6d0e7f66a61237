// SPDX-License-Identifier: Apache-2.0

package stunmsg

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pion/stun/v4"
)

var addresses = []netip.AddrPort{
	netip.MustParseAddrPort("192.0.2.1:32853"),
	netip.MustParseAddrPort("[2001:db8:1234:5678:11:2233:4455:6677]:32853"),
	netip.MustParseAddrPort("0.0.0.0:0"),
	netip.MustParseAddrPort("[ff02::1]:65535"),
}

func TestBindingReplyIsReadByAnotherImplementation(t *testing.T) {
	for _, from := range addresses {
		for _, withFingerprint := range []bool{false, true} {
			set := []stun.Setter{stun.TransactionID, stun.BindingRequest}
			if withFingerprint {
				set = append(set, stun.NewSoftware("x"), stun.Fingerprint)
			}
			request := stun.MustBuild(set...)
			reply := AppendBindingReply([]byte("kept"), request.Raw, from)[4:]
			m := &stun.Message{Raw: reply}
			if err := m.Decode(); err != nil {
				t.Fatal(err)
			}
			var got stun.XORMappedAddress
			if err := got.GetFrom(m); err != nil {
				t.Fatal(err)
			}
			if m.Type != stun.BindingSuccess || m.TransactionID != request.TransactionID {
				t.Fatalf("got %v", m)
			}
			ip, _ := netip.AddrFromSlice(got.IP)
			if diff := cmp.Diff(from.String(), netip.AddrPortFrom(ip.Unmap(), uint16(got.Port)).String()); diff != "" {
				t.Error(diff)
			}
			if err := stun.Fingerprint.Check(m); withFingerprint && err != nil {
				t.Error(err)
			}
			if _, ok := Check(reply); !ok {
				t.Error("our own answer does not pass Check")
			}
		}
	}
}

func TestBindingRequestWithUnknownAttributeGets420(t *testing.T) {
	request := stun.MustBuild(stun.TransactionID, stun.BindingRequest, stun.RawAttribute{Type: 0x7ffe, Length: 3, Value: []byte{1, 2, 3}})
	m := &stun.Message{Raw: AppendBindingReply(nil, request.Raw, addresses[0])}
	if err := m.Decode(); err != nil {
		t.Fatal(err)
	}
	var code stun.ErrorCodeAttribute
	var unknown stun.UnknownAttributes
	if code.GetFrom(m) != nil || unknown.GetFrom(m) != nil || code.Code != stun.CodeUnknownAttribute || len(unknown) != 1 || unknown[0] != 0x7ffe {
		t.Fatalf("got %v %v %v", m, code, unknown)
	}
}

func TestDamagedMessagesGetNoAnswer(t *testing.T) {
	good := stun.MustBuild(stun.TransactionID, stun.BindingRequest, stun.NewSoftware("abc"), stun.Fingerprint).Raw
	if len(AppendBindingReply(nil, good, addresses[0])) == 0 {
		t.Fatal("the good one gets no answer")
	}
	cases := map[string]func([]byte) []byte{
		"cookie":             func(p []byte) []byte { p[4] ^= 1; return p },
		"length not times 4": func(p []byte) []byte { p[3]++; return p },
		"length too long":    func(p []byte) []byte { p[3] += 4; return p },
		"fingerprint":        func(p []byte) []byte { p[len(p)-1] ^= 1; return p },
		"attribute past end": func(p []byte) []byte { p[22] = 0xff; return p },
		"truncated header":   func(p []byte) []byte { return p[:19] },
		"trailing bytes":     func(p []byte) []byte { return append(p, 0, 0, 0, 0) },
		"empty":              func([]byte) []byte { return nil },
	}
	for name, damage := range cases {
		if got := AppendBindingReply(nil, damage(bytes.Clone(good)), addresses[0]); len(got) != 0 {
			t.Errorf("%s: answered with %x", name, got)
		}
	}
}

func TestDataIndicationIsReadByAnotherImplementation(t *testing.T) {
	for _, peer := range addresses {
		for n := range 9 {
			payload := bytes.Repeat([]byte{0xAB}, n)
			buf := bytes.Repeat([]byte{0xFF}, 128)
			copy(buf[64:], payload)
			id := [12]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
			start, end := PutDataIndication(buf, 64, n, peer, &id)
			m := &stun.Message{Raw: buf[start:end]}
			if err := m.Decode(); err != nil {
				t.Fatal(err)
			}
			data, err := m.Get(stun.AttrData)
			if err != nil || !bytes.Equal(data, payload) || m.Type != stun.NewType(stun.MethodData, stun.ClassIndication) {
				t.Fatalf("%v: %v %x", m, err, data)
			}
			value, err := m.Get(stun.AttrXORPeerAddress)
			if err != nil {
				t.Fatal(err)
			}
			if got, ok := XORAddress(value, id[:]); !ok || got != peer {
				t.Errorf("peer %v became %v", peer, got)
			}
		}
	}
}

func TestTheFirstTwoBitsTellChannelData(t *testing.T) {
	for _, c := range []struct {
		p    []byte
		kind Kind
		ok   bool
	}{
		{[]byte{0x40, 0x00, 0, 0}, Channel, true},
		{[]byte{0x4f, 0xff, 0, 1, 7}, Channel, true},
		{[]byte{0x40, 0x00, 0, 2, 7}, Channel, false}, // shorter than it claims
		{[]byte{0x7f, 0xff, 0, 0}, Channel, true},
		{[]byte{0x80, 0x00, 0, 0}, Unknown, false},
		{[]byte{0x40, 0x00, 0}, Unknown, false},
	} {
		if got := Classify(c.p); got != c.kind {
			t.Errorf("Classify(%x) = %v", c.p, got)
		}
		if _, _, ok := ChannelData(c.p); ok != c.ok {
			t.Errorf("ChannelData(%x) ok = %v", c.p, ok)
		}
	}
}

func TestFastPathAllocatesNothing(t *testing.T) {
	request := stun.MustBuild(stun.TransactionID, stun.BindingRequest, stun.Fingerprint).Raw
	out := make([]byte, 0, 128)
	buf := make([]byte, 256)
	var id [12]byte
	if n := testing.AllocsPerRun(100, func() {
		out = AppendBindingReply(out[:0], request, addresses[1])
		PutDataIndication(buf, 100, 100, addresses[1], &id)
		PutChannelHeader(buf, 0x4001, 100)
		ChannelData(buf)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzPeek(f *testing.F) {
	f.Add(stun.MustBuild(stun.TransactionID, stun.BindingRequest, stun.NewSoftware("abc"), stun.Fingerprint).Raw)
	f.Add([]byte{0x40, 0x01, 0, 3, 1, 2, 3})
	f.Add([]byte{0, 1, 0xff, 0xfc, 0x21, 0x12, 0xa4, 0x42})
	f.Fuzz(func(t *testing.T, p []byte) {
		kind := Classify(p)
		channel, payload, ok := ChannelData(p)
		if ok {
			if kind != Channel || channel < MinChannel || channel > MaxLegacyChannel || len(payload) > len(p)-4 {
				t.Fatalf("%x: kind %v channel %x", p, kind, channel)
			}
			again := make([]byte, 4+len(payload))
			PutChannelHeader(again, channel, len(payload))
			copy(again[4:], payload)
			if !bytes.Equal(again, p[:len(again)]) {
				t.Fatal("ChannelData does not come back")
			}
		}
		if n, ok := FrameLen(p); ok && (n < 4 || n > MaxFrame) {
			t.Fatalf("frame of %d", n)
		}
		_, sound := Check(p)
		if sound {
			// What we let through must be readable by the decoder of the control plane.
			m := &stun.Message{Raw: bytes.Clone(p)}
			if err := m.Decode(); err != nil {
				t.Fatalf("Check passes %x, the decoder says %v", p, err)
			}
		}
		if reply := AppendBindingReply(nil, p, addresses[0]); len(reply) > 0 {
			if _, ok := Check(reply); !ok || !sound {
				t.Fatalf("unsound answer %x to %x", reply, p)
			}
		}
	})
}

func FuzzXORAddress(f *testing.F) {
	f.Add([]byte{0, 1, 1, 2, 3, 4, 5, 6})
	f.Fuzz(func(t *testing.T, value []byte) {
		id := []byte("abcdefghijkl")
		a, ok := XORAddress(value, id)
		if !ok {
			return
		}
		if a.Addr().Is4In6() {
			return // written as IPv4, read as what it was
		}
		again := AppendXORAddress(nil, attrXORPeer, a, id)[4:]
		if !bytes.Equal(again[1:], value[1:]) { // byte 0 is reserved
			t.Fatalf("%x became %x", value, again)
		}
	})
}
