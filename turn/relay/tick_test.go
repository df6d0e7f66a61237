// SPDX-License-Identifier: Apache-2.0

//go:build linux

package relay

import (
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"
)

func TestATimerTicksUntilItIsStopped(t *testing.T) {
	timer := newTick()
	if timer == nil {
		t.Fatal("no timer")
	}
	defer timer.close()
	if !timer.every(time.Millisecond) || !timer.every(time.Millisecond) {
		t.Fatal("it does not start")
	}
	begin := time.Now()
	for range 5 {
		timer.wait()
	}
	if took := time.Since(begin); took < 3*time.Millisecond {
		t.Errorf("five waits for a millisecond took %v", took)
	}
	if timer.every(0) {
		t.Error("it does not stop")
	}
	var none *tick
	if none.every(time.Second) {
		t.Error("no timer ticks")
	}
	none.close()
}

// TestOneLoopCarriesBusyTraffic is for a machine with one processor: there a loop waits in the runtime's poller while packets come often.
func TestOneLoopCarriesBusyTraffic(t *testing.T) {
	p := &Plane{engine: Linux, now: time.Now}
	if err := p.loops.start(1); err != nil {
		t.Fatal(err)
	}
	var rested atomic.Int64
	timer := p.loops.all[0].tick
	wait := timer.read
	timer.read = func(fd uintptr) bool { // the loop looks at it after it has heard of the socket
		rested.Add(1)
		return wait(fd)
	}
	sock, err := p.Open(netip.MustParseAddrPort("127.0.0.1:0"), false, 0)
	if err != nil {
		t.Fatal(err)
	}
	freed := make(chan struct{})
	sock.Serve(func(b *Batch) {
		for i := range b.Len() {
			frame := [1][]byte{b.Packet(i)}
			sock.SendRun(b, frame[:], b.From(i))
		}
	}, func() { close(freed) }, nil)
	conn, err := net.Dial("udp", sock.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// Eight packets under way, back and forth, until the loop has seen itself busy and rested.
	buf := make([]byte, 100)
	for range 8 {
		_, _ = conn.Write([]byte("packet"))
	}
	for deadline := time.Now().Add(time.Minute); rested.Load() < 100; {
		if time.Now().After(deadline) {
			t.Fatal("the loop never rested")
		}
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write(buf[:n])
	}
	sock.Close()
	<-freed
	p.Close()
}
