// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/pion/webrtc/v4"
	"github.com/trunkboard/trunkboard/sfu/packets"
)

// S15: replayed, damaged and unsealed packets are dropped, over a wrap of the numbers too.
func TestReplayedDamagedAndUnsealedPacketsAreDropped(t *testing.T) {
	for _, profile := range profiles {
		key, salt := keysFor(t, profile)
		theirs, err := sealerFor(profile, key, salt)
		if err != nil {
			t.Fatal(err)
		}
		in, err := newUnsealer(profile, key, salt)
		if err != nil {
			t.Fatal(err)
		}
		tr := listen(t)
		e := newEar()
		s, err := tr.Open(e)
		if err != nil {
			t.Fatal(err)
		}
		s.in = in
		var x scratch
		sealed := func(index uint32) []byte {
			b := make([]byte, slotSize)
			packets.PutHeader(b, false, false, 96, uint16(index), 5, 0xCAFE)
			n := packets.HeaderSize + copy(b[packets.HeaderSize:], "voice")
			return b[:theirs.seal(b, n, index>>16, &x)]
		}
		out := NewBatch()
		passes := func(what string, b []byte, want bool) {
			t.Helper()
			s.rtp([][]byte{bytes.Clone(b)}, out)
			got := len(e.rtp) > 0
			for len(e.rtp) > 0 {
				<-e.rtp
			}
			if got != want {
				t.Errorf("%v, %s: passed %v", profile, what, got)
			}
		}
		passes("a good packet", sealed(65_530), true)
		passes("the same again", sealed(65_530), false)
		for bit := range 8 * len(sealed(65_531)) {
			b := sealed(65_531)
			b[bit/8] ^= 1 << (bit % 8)
			if bit/8 == 0 { // another header: not RTP, or with parts that are not there
				continue
			}
			passes(fmt.Sprint("bit ", bit, " turned"), b, false)
		}
		passes("the packet as it was", sealed(65_531), true)
		plain := make([]byte, 64)
		packets.PutHeader(plain, false, false, 96, uint16(65_532&0xFFFF), 5, 0xCAFE)
		passes("not sealed", plain, false)
		for i := range uint32(10) {
			passes("over the wrap", sealed(65_533+i), true)
		}
		passes("from before the wrap, again", sealed(65_533), false)
		for ssrc := range uint32(2 * maxStreams) { // endless streams: none of them authentic, so none is remembered
			packets.PutHeader(plain, false, false, 96, 1, 5, ssrc)
			passes("a forged stream", plain, false)
		}
		if n := len(in.ssrcs); n != 1 {
			t.Errorf("%d streams are remembered", n)
		}
		s.Close()
	}
}

// S20, S21, S22: whoever does not know the password moves nothing, leaves nothing, and reaches no handshake.
func TestAFloodOfForgedChecksAndHellosChangesNothing(t *testing.T) {
	tr := listen(t)
	e := newEar()
	s, err := tr.Open(e)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	name, password := s.Credentials()
	in, out := tr.sockets[0], NewBatch()
	home := netip.MustParseAddrPort("127.0.0.1:9")
	tr.check(request(name, password, true), home, way{socket: in}, out)
	path := s.path.Load()
	if path == nil || path.to != home {
		t.Fatal("the client was not let in")
	}
	hello := append([]byte{22, 254, 253}, make([]byte, 60)...)
	var r run
	for i := range 20_000 {
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)}), 5000)
		tr.packet(request(name, fmt.Sprint("a guess of the password", i), true), from, way{socket: in}, &r, out)
		tr.packet(request(name, password, false), from, way{socket: in}, &r, out)
		tr.packet(bytes.Clone(hello), from, way{socket: in}, &r, out)
		out.n, out.pos = 0, 0
	}
	tr.mu.RLock()
	known := len(tr.byAddr)
	tr.mu.RUnlock()
	if known != 1 || s.path.Load() != path || len(s.handshake.in) != 0 {
		t.Errorf("%d addresses, moved %v, %d packets in the handshake", known, s.path.Load() != path, len(s.handshake.in))
	}
	for range 10 * inboxSize { // and the client's own are bounded
		tr.packet(bytes.Clone(hello), home, way{socket: in}, &r, out)
	}
	if n := len(s.handshake.in); n != inboxSize {
		t.Errorf("%d packets wait for the handshake", n)
	}
}

// S24, S25: who opens channels without end is let go; who does not read loses what may be lost, and is found out on the other channel.
func TestDataChannelsAreBounded(t *testing.T) {
	tr := listen(t)
	e := newEar()
	s, err := tr.Open(e)
	if err != nil {
		t.Fatal(err)
	}
	pc := client(t)
	open, block := make(chan struct{}, 2), make(chan struct{})
	t.Cleanup(func() { close(block) })
	for _, label := range []string{Reliable, Lossy} {
		init := &webrtc.DataChannelInit{}
		if label == Lossy {
			init = &webrtc.DataChannelInit{Ordered: new(bool), MaxRetransmits: new(uint16)}
		}
		d, err := pc.CreateDataChannel(label, init)
		if err != nil {
			t.Fatal(err)
		}
		d.OnOpen(func() { open <- struct{}{} })
		d.OnMessage(func(webrtc.DataChannelMessage) { <-block })
	}
	connect(t, pc, tr, s)
	wait(t, open, "a data channel")
	wait(t, open, "a data channel")
	message := make([]byte, MaxMessage)
	for _, label := range []string{Reliable, Lossy} { // the client's end is open before ours
		for errors.Is(s.SendData(label, message), ErrNoChannel) {
			select {
			case <-e.closed:
				t.Fatal("the session ended")
			default:
			}
		}
	}
	sent := 0
	for err = nil; err == nil && sent < 10_000; sent++ {
		err = s.SendData(Reliable, message)
	}
	if !errors.Is(err, ErrSlow) {
		t.Errorf("after %d messages of %d bytes that nobody reads: %v", sent, len(message), err)
	}
	for range 1000 {
		if err := s.SendData(Lossy, message); err != nil {
			t.Fatalf("a message that may be lost: %v", err)
		}
	}
	s.dataMu.Lock()
	for label, c := range s.channels {
		if n := c.BufferedAmount(); n > reliableQueue+2*MaxMessage {
			t.Errorf("%d bytes wait in %s", n, label)
		}
	}
	s.dataMu.Unlock()
	for i := range 2 * maxStreamsEver {
		_, _ = pc.CreateDataChannel(fmt.Sprint("more", i), nil)
	}
	wait(t, e.closed, "the end of a client with endless channels")
}
