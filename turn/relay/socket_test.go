// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"bytes"
	"net/netip"
	"testing"
	"time"
)

// TestRunsArriveWholeAndInOrder sends runs of all shapes that segmentation offload must not mix up: equal sizes, a shorter last one, a
// longer one in between, empty packets, packets that fill a datagram, more than a batch.
func TestRunsArriveWholeAndInOrder(t *testing.T) {
	shapes := [][]int{
		{1}, {0}, {0, 0, 5}, {100, 100, 100}, {100, 100, 7}, {100, 7, 100}, {7, 100, 100}, {100, 100, 0}, {1200, 1200, 1200, 3},
		{30000, 30000, 30000}, {65507}, {65507, 1, 65507}, {5, 4, 3, 2, 1, 2, 3, 4, 5},
	}
	many := make([]int, 150)
	for i := range many {
		many[i] = 10 + i/70
	}
	shapes = append(shapes, many)
	for _, engine := range []Engine{Portable, best} {
		for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
			p, err := NewPlane(engine, time.Now)
			if err != nil {
				t.Fatal(err)
			}
			from, err := p.Open(netip.MustParseAddrPort(address), false, 4<<20)
			if err != nil {
				t.Fatal(err)
			}
			to, err := p.Open(netip.MustParseAddrPort(address), false, 4<<20)
			if err != nil {
				t.Fatal(err)
			}
			got := make(chan []byte, 1000)
			ended := make(chan struct{})
			to.Serve(func(b *Batch) {
				for i := range b.Len() {
					if b.From(i) != from.Addr() {
						t.Errorf("from %v, want %v", b.From(i), from.Addr())
					}
					got <- bytes.Clone(b.Packet(i))
				}
			}, func() { close(ended) }, nil)
			b := p.Lease()
			for k, sizes := range shapes {
				var frames [][]byte
				for i, n := range sizes {
					frames = append(frames, bytes.Repeat([]byte{byte(i + k)}, n))
				}
				if n := from.SendRun(b, frames, to.Addr()); n != len(frames) {
					t.Errorf("%s %s: %v: %d frames sent", engine, address, sizes, n)
				}
				for i, want := range frames {
					select {
					case p := <-got:
						if !bytes.Equal(p, want) {
							t.Fatalf("%s %s: %v: packet %d has %d bytes", engine, address, sizes, i, len(p))
						}
					case <-time.After(5 * time.Second):
						t.Fatalf("%s %s: %v: packet %d did not arrive", engine, address, sizes, i)
					}
				}
			}
			// What cannot be sent does not keep back what can.
			if n := from.SendRun(b, [][]byte{make([]byte, 65530), []byte("x")}, to.Addr()); n != 1 {
				t.Errorf("%s: %d of an impossible and a possible packet sent, want 1", engine, n)
			}
			p.Return(b)
			to.Close()
			<-ended
			from.Close()
			p.Close()
		}
	}
}

func TestPortsAreTakenOnceAndPairsAreNeighbours(t *testing.T) {
	p, err := NewPlane(Portable, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	const low, high = 21001, 21200
	r := NewPorts(p, netip.MustParseAddr("127.0.0.1"), low, high)
	taken := make(map[int]bool)
	for range 30 {
		port, ok := r.take(low+len(taken), 2, 1)
		if !ok || port%2 != 0 || taken[port] || taken[port+1] {
			t.Fatalf("pair at %d, %v", port, ok)
		}
		taken[port], taken[port+1] = true, true
	}
	for len(taken) < high-low+1 {
		port, ok := r.take(low+len(taken)*7%(high-low), 1, 0)
		if !ok || taken[port] || port < low || port > high {
			t.Fatalf("port %d, %v, with %d taken", port, ok, len(taken))
		}
		taken[port] = true
	}
	if _, ok := r.take(low, 1, 0); ok || r.Free() != 0 {
		t.Error("a port of an empty range")
	}
	for port := range taken {
		r.Release(uint16(port))
	}
	if r.Free() != high-low+1 {
		t.Errorf("%d free", r.Free())
	}
}
