// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/pion/stun/v4"
)

// boundPair is a client's socket with channel 0x4000 bound to an echo.
func boundPair(t testing.TB, s *testServer) (*rawClient, *net.UDPConn) {
	t.Helper()
	peer := echo(t)
	c := s.raw(t, "udp")
	if code := c.allocate(); code != 0 {
		t.Fatal(code)
	}
	if code := c.bind(0x4000, peer); code != 0 {
		t.Fatal(code)
	}
	return c, c.conn.(*net.UDPConn)
}

func TestRelayingAllocatesNothing(t *testing.T) {
	for _, engine := range engines {
		t.Run(string(engine), func(t *testing.T) {
			cfg := testConfig()
			cfg.Engine = string(engine)
			_, conn := boundPair(t, start(t, cfg))
			_ = conn.SetReadDeadline(time.Now().Add(30 * time.Second))
			frame := make([]byte, 164)
			copy(frame, []byte{0x40, 0, 0, 160})
			buf := make([]byte, 2048)
			const burst = 8
			trip := func() {
				for range burst {
					if _, err := conn.Write(frame); err != nil {
						t.Error(err)
					}
				}
				for range burst {
					if n, err := conn.Read(buf); err != nil || n != len(frame) {
						t.Error(n, err)
					}
				}
			}
			trip()
			// 8 packets each way in a run; less than one allocation in a hundred runs is the runtime's own.
			if n := testing.AllocsPerRun(200, trip); n != 0 {
				t.Errorf("%v allocations for %d packets there and back", n, burst)
			}
		})
	}
}

func TestAllocatingAndFreeingLeaksNoPortAndNoDescriptor(t *testing.T) { allocateAndFree(t, 10000) }

func TestLongAllocatingAndFreeingLeaksNothingInAHundredThousandCycles(t *testing.T) {
	if os.Getenv("TRUNKBOARD_TEST_LONG") == "" {
		t.Skip("TRUNKBOARD_TEST_LONG is not set")
	}
	allocateAndFree(t, 100000)
}

func allocateAndFree(t *testing.T, cycles int) {
	cfg := testConfig()
	cfg.MinPort, cfg.MaxPort = 50000, 50999 // ten cycles for each port
	s := start(t, cfg)
	clients := make([]*rawClient, 4)
	for i := range clients {
		clients[i] = s.raw(t, "udp")
		clients[i].allocate()
		clients[i].ask(stun.MethodRefresh, attr(stun.AttrLifetime, 0, 0, 0, 0))
	}
	files, goroutines := descriptors(t), runtime.NumGoroutine()
	errs := make(chan error, len(clients))
	for _, c := range clients {
		go func() {
			for i := range cycles / len(clients) {
				even := []stun.Setter{wantUDP}
				if i%3 == 0 {
					even = append(even, attr(stun.AttrEvenPort, 0)) // R=0: must not keep the port above
				}
				if code := c.ask(stun.MethodAllocate, even...); code != 0 {
					errs <- fmt.Errorf("cycle %d: Allocate: %d", i, code)
					return
				}
				if code := c.ask(stun.MethodRefresh, attr(stun.AttrLifetime, 0, 0, 0, 0)); code != 0 {
					errs <- fmt.Errorf("cycle %d: Refresh: %d", i, code)
					return
				}
			}
			errs <- nil
		}()
	}
	for range clients {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	// The last sockets close in their own goroutines.
	deadline := time.Now().Add(10 * time.Second)
	for s.ports[0][0].Free() != 1000 || descriptors(t) > files || runtime.NumGoroutine() > goroutines {
		if time.Now().After(deadline) {
			t.Fatalf("%d of 1000 ports free, %d descriptors (before %d), %d goroutines (before %d)",
				s.ports[0][0].Free(), descriptors(t), files, runtime.NumGoroutine(), goroutines)
		}
		runtime.Gosched()
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc here")
	}
	return len(list)
}

func TestTwoServersRunInOneProcess(t *testing.T) {
	a, b := start(t, testConfig()), start(t, testConfig())
	for _, s := range []*testServer{a, b} {
		if code := s.raw(t, "udp").allocate(); code != 0 {
			t.Error(code)
		}
	}
	if a.AllocationCount() != 1 || b.AllocationCount() != 1 {
		t.Error("the servers share allocations")
	}
}
