// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"net/netip"
	"sync"
	"testing"
	"time"
)

// TestSocketsComeAndGoWhileOthersCarryTraffic opens, serves and closes sockets from several goroutines while packets flow fast enough
// for wake-ups to be coalesced: every one is freed once, and none is served afterwards.
func TestSocketsComeAndGoWhileOthersCarryTraffic(t *testing.T) {
	for _, engine := range []Engine{Portable, best} {
		t.Run(string(engine), func(t *testing.T) {
			p, err := NewPlane(engine, time.Now)
			if err != nil {
				t.Fatal(err)
			}
			open := func() Socket {
				s, err := p.Open(netip.MustParseAddrPort("127.0.0.1:0"), false, 1<<20)
				if err != nil {
					t.Fatal(err)
				}
				return s
			}
			from := open()
			var freed, served sync.WaitGroup
			for range 4 {
				served.Go(func() {
					b := p.Lease()
					defer p.Return(b)
					for range 100 {
						s, near := open(), open()
						got := make(chan struct{}, 1)
						handle := func(*Batch) {
							select {
							case got <- struct{}{}:
							default:
							}
						}
						freed.Add(2)
						near.Serve(handle, freed.Done, nil)
						s.Serve(handle, freed.Done, near)
						for range 50 {
							from.SendRun(b, [][]byte{{1}}, s.Addr())
						}
						select {
						case <-got:
						case <-time.After(10 * time.Second):
							t.Error("nothing came")
						}
						go near.Close()
						s.Close()
						s.Close() // twice is once
						if n := s.SendRun(b, [][]byte{{1}}, from.Addr()); n != 0 && engine != Portable {
							t.Error("a closed socket sends")
						}
					}
				})
			}
			served.Wait()
			freed.Wait()
			from.Close()
			p.Close()
		})
	}
}

func TestASocketThatWasClosedBeforeItIsServedIsFreed(t *testing.T) {
	p, err := NewPlane(Auto, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	s, err := p.Open(netip.MustParseAddrPort("127.0.0.1:0"), false, 0)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	freed := make(chan struct{})
	s.Serve(func(*Batch) { t.Error("served") }, func() { close(freed) }, nil)
	<-freed
}
