// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/pion/stun/v4"
)

// TestAFloodOfStrangersLeavesNothingBehind sends unauthenticated packets from many ports: no state, hardly any memory, and someone
// with credentials still gets through.
func TestAFloodOfStrangersLeavesNothingBehind(t *testing.T) {
	s := start(t, testConfig())
	conns := make([]net.Conn, 200)
	for i := range conns {
		conns[i] = s.raw(t, "udp").conn
	}
	packets := [][]byte{
		stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodAllocate, stun.ClassRequest), wantUDP).Raw,
		stun.MustBuild(stun.TransactionID, stun.BindingRequest).Raw,
		stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodAllocate, stun.ClassRequest), wantUDP, stun.NewUsername("1:x"),
			stun.NewRealm("turn"), stun.NewNonce("AAAAAAAA"), stun.MessageIntegrity("k"), stun.Fingerprint).Raw,
		{0x40, 0, 0, 4, 1, 2, 3, 4},
		{0xff, 0, 0, 4, 1, 2, 3, 4},
	}
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse
	}
	flood := func(rounds int) {
		for range rounds {
			for _, c := range conns {
				for _, p := range packets {
					_, _ = c.Write(p) // refused by a full buffer: all the same
				}
			}
		}
	}
	flood(2)
	before := heap()
	flood(100) // 100,000 packets
	c := s.raw(t, "udp")
	deadline := time.Now().Add(30 * time.Second)
	for c.allocate() != 0 {
		if time.Now().After(deadline) {
			t.Fatal("a client with credentials gets no allocation")
		}
	}
	if after := heap(); after > before+5<<20 {
		t.Errorf("the heap grew from %d to %d bytes", before, after)
	}
	if n := s.AllocationCount(); n != 1 {
		t.Errorf("%d allocations", n)
	}
}
