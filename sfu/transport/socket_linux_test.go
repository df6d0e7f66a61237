// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"net"
	"sync/atomic"
	"testing"
	"time"
)

// TestPacketsGatherWhileThereAreManyAndWakeTheSocketWhenThereAreFew sends a thousand packets a second, then nothing, then one.
func TestPacketsGatherWhileThereAreManyAndWakeTheSocketWhenThereAreFew(t *testing.T) {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	out, err := net.DialUDP("udp", nil, conn.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	s := &socket{conn: conn}
	if s.raw, err = conn.SyscallConn(); err != nil {
		t.Fatal(err)
	}
	if err := s.open(); err != nil {
		t.Fatal(err)
	}
	const many = 600
	var packets, reads atomic.Int64
	got, ended := make(chan int64, 2*many), make(chan struct{})
	go func() {
		defer close(ended)
		r := newReceiver()
		r.receive(s, func() {
			reads.Add(1)
			got <- packets.Add(int64(r.n))
		})
	}()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range many {
		<-tick.C
		if _, err := out.Write([]byte("packet")); err != nil {
			t.Fatal(err)
		}
	}
	for wait(t, got, "a thousand packets a second") < many {
	}
	if n := reads.Load(); n > many*3/4 {
		t.Errorf("%d packets were read in %d calls", many, n)
	}
	// Whether the socket naps still or sleeps already, the next packet is read, and the one after it.
	for want := int64(many + 1); want <= many+2; want++ {
		if _, err := out.Write([]byte("packet")); err != nil {
			t.Fatal(err)
		}
		if n := wait(t, got, "a packet after the silence"); n != want {
			t.Fatalf("%d packets, want %d", n, want)
		}
		for range 200 {
			<-tick.C // long enough for it to fall asleep
		}
	}
	s.close()
	wait(t, ended, "the end")
	if s.enter() {
		t.Error("a closed socket may be used")
	}
	s.close() // twice does no harm
}
