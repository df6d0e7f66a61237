// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"
)

// Packets as they come to the port, by their first two bytes.
var (
	aSound     = append([]byte{0x80, 111}, make([]byte, 30)...)
	aPicture   = append([]byte{0x90, 0x80 | 96}, make([]byte, 30)...)
	aReport    = append([]byte{0x81, 201}, make([]byte, 30)...)
	aRepair    = append([]byte{0x81, 205}, make([]byte, 30)...)
	aCheck     = append([]byte{0x00, 0x01}, make([]byte, 30)...)
	aHandshake = append([]byte{22, 254}, make([]byte, 30)...)
)

// group opens n sockets on one port of addr, with their late sockets.
func group(t *testing.T, addr netip.Addr, n int) []*socket {
	t.Helper()
	var sockets []*socket
	at := netip.AddrPortFrom(addr, 0)
	for range n {
		lc := net.ListenConfig{Control: sharePort}
		c, err := lc.ListenPacket(context.Background(), "udp", at.String())
		if err != nil {
			t.Skip("no such address here: ", err)
		}
		conn := c.(*net.UDPConn)
		at = netip.AddrPortFrom(addr, conn.LocalAddr().(*net.UDPAddr).AddrPort().Port())
		s := &socket{conn: conn, local: at, six: addr.Is6()}
		if s.raw, err = conn.SyscallConn(); err != nil {
			t.Fatal(err)
		}
		if err := s.open(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.close)
		sockets = append(sockets, s)
	}
	if err := openLate(context.Background(), sockets); err != nil {
		t.Fatal(err)
	}
	return sockets
}

// waits gives what waits on a socket: first bytes.
func waits(t *testing.T, r *receiver, fd int, in chan<- []byte) {
	t.Helper()
	for r.read(fd) > 0 {
		for i := range r.n {
			b, _ := r.packet(i)
			in <- append([]byte{}, b[:2]...)
		}
	}
}

func TestTheKernelSortsWhatCanWaitFromWhatCannotAndKeepsAClientAtOneLoop(t *testing.T) {
	for _, addr := range []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()} {
		for _, n := range []int{1, 3} {
			sockets := group(t, addr, n)
			r := newReceiver()
			used := map[int]bool{}
			for range 24 {
				out, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(sockets[0].local))
				if err != nil {
					t.Fatal(err)
				}
				prompt := [][]byte{aSound, aPicture, aHandshake, {0x80}, {}}
				late := [][]byte{aReport, aRepair, aCheck}
				for _, b := range append(append([][]byte{}, prompt...), late...) {
					if _, err := out.Write(b); err != nil {
						t.Fatal(err)
					}
				}
				loop := -1
				for i, s := range sockets { // on loopback, a packet is there when Write returns
					in := make(chan []byte, 64)
					waits(t, r, s.sys.late, in)
					for range len(in) {
						if b := <-in; b[0] == 0x81 && b[1] != 201 && b[1] != 205 || b[0] > 0x81 {
							t.Errorf("%v, %d loops: %x is on the late socket", addr, n, b)
						}
						if loop >= 0 && loop != i {
							t.Errorf("%v, %d loops: one client is at the loops %d and %d", addr, n, loop, i)
						}
						loop = i
					}
				}
				if loop < 0 {
					t.Fatalf("%v, %d loops: nothing came to a late socket", addr, n)
				}
				used[loop] = true
				for _, s := range sockets {
					if s.sys.out == s.sys.fd || s.sys.out == s.sys.late {
						t.Fatalf("%v, %d loops: what is sent wakes a loop", addr, n)
					}
					if r.read(s.sys.out) > 0 {
						t.Errorf("%v, %d loops: something came to a socket that only sends", addr, n)
					}
				}
				r.drain(t, sockets, loop, len(prompt))
				_ = out.Close()
			}
			if len(used) != n {
				t.Errorf("%v: of %d loops, the clients use %d", addr, n, len(used))
			}
		}
	}
}

// drain checks that the prompt socket of loop holds the others of want packets; those too short to tell may be at loop 0.
func (r *receiver) drain(t *testing.T, sockets []*socket, loop, want int) {
	t.Helper()
	got := 0
	for i, s := range sockets {
		for r.read(s.sys.fd) > 0 {
			for j := range r.n {
				b, _ := r.packet(j)
				got++
				if len(b) > 1 && i != loop {
					t.Errorf("%x of a client at loop %d is at loop %d", b[:2], loop, i)
				}
			}
		}
	}
	if got != want {
		t.Errorf("%d packets on prompt sockets, want %d", got, want)
	}
}

// TestReportsWaitForTheNextSoundWhileThereIsNothingElseAndNeverForLong sends reports between the packets of a sound: they are read together with
// it. When the sound stops, or haste is needed, they are read without it.
func TestReportsWaitForTheNextSoundWhileThereIsNothingElseAndNeverForLong(t *testing.T) {
	s := group(t, netip.MustParseAddr("127.0.0.1"), 1)[0]
	tr := &Transport{}
	s.haste, s.awake = &tr.haste, &tr.awake
	tr.Calm(true)
	var nudges atomic.Int64
	tr.OnAwake(func() { nudges.Add(1) })

	out, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(s.local))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	var reports, reads atomic.Int64
	got, ended := make(chan int64, 4096), make(chan struct{})
	r := newReceiver()
	go func() {
		defer close(ended)
		r.receive(s, func() {
			b, _ := r.packet(0)
			if b[1] == aReport[1] {
				reads.Add(1)
				got <- reports.Add(int64(r.n))
			}
		})
	}()
	write := func(b []byte) {
		if _, err := out.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	tick := time.NewTicker(5 * time.Millisecond) // so few that the socket does not sleep by the clock
	defer tick.Stop()
	const rounds, each = 20, 3
	sent, few := int64(0), false
	for range 20 { // on a busy machine the sounds come too late to be waited for
		before := reads.Load()
		for range rounds {
			write(aSound)
			for range each {
				<-tick.C
				write(aReport)
			}
		}
		for sent += rounds * each; wait(t, got, "the reports between the sounds, and those after the last one") < sent; {
		}
		if few = reads.Load()-before <= rounds*each/2; few {
			break
		}
	}
	if !few {
		t.Error("every report wakes the loop")
	}
	if nudges.Load() == 0 {
		t.Error("nobody was told that the loop is awake")
	}
	for want := sent + 1; want <= sent+2; want++ { // after the silence a report wakes the loop
		write(aReport)
		if n := wait(t, got, "a report after the silence"); n != want {
			t.Fatalf("%d reports, want %d", n, want)
		}
	}

	// In haste, reports are read as they come, sound or not.
	tr.Hasten()
	if tr.haste.allows(time.Now()) || !tr.haste.allows(time.Now().Add(hasteFor+time.Second)) {
		t.Error("haste does not last for as long as it should")
	}
	tr.Calm(false)
	if tr.haste.allows(time.Now().Add(hasteFor + time.Second)) {
		t.Error("reports may wait although there are pictures")
	}
	s.close()
	wait(t, ended, "the end")
	if s.enter() {
		t.Error("a closed socket may be used")
	}
}
