// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// dialTCP connects to the transport's first TCP candidate.
func dialTCP(t *testing.T, tr *Transport) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", tr.CandidatesTCP()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// ends waits until the other side closes c.
func ends(t *testing.T, c net.Conn, what string) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	_, err := io.Copy(io.Discard, c)
	if e := net.Error(nil); errors.As(err, &e) && e.Timeout() {
		t.Errorf("%s: still connected", what)
	}
}

func TestFramesThatCannotBeEndATCPConnection(t *testing.T) {
	tr := listen(t)
	for what, b := range map[string][]byte{"an empty frame": {0, 0}, "a frame over the size of a datagram": {0xFF, 0xFF, 1, 2, 3}} {
		c := dialTCP(t, tr)
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
		ends(t, c, what)
	}
}

func TestStrangersHoldFewTCPConnections(t *testing.T) {
	tr := listen(t)
	for range streamsOfOne {
		_ = dialTCP(t, tr)
	}
	// One more is refused; whether the others are counted by then is up to the scheduler, so some more are tried.
	refused := false
	for end := time.Now().Add(patience); !refused && time.Now().Before(end); {
		c := dialTCP(t, tr)
		_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		_, err := c.Read(make([]byte, 1))
		refused = errors.Is(err, io.EOF) || errors.As(err, new(*net.OpError)) && !isTimeout(err)
	}
	if !refused {
		t.Error("no connection was refused")
	}
}

func isTimeout(err error) bool {
	e := net.Error(nil)
	return errors.As(err, &e) && e.Timeout()
}

func TestASlowTCPClientLosesPacketsAndHoldsNoMemory(t *testing.T) {
	c, s := net.Pipe() // takes nothing until it is read
	defer func() { _ = c.Close() }()
	stream := &stream{conn: s, wake: make(chan struct{}, 1)}
	done := make(chan struct{})
	go func() { stream.write(); close(done) }()
	dropped := 0
	for range 10_000 {
		if !stream.put(make([]byte, 1200)) {
			dropped++
		}
	}
	stream.mu.Lock()
	held := cap(stream.pending)
	stream.mu.Unlock()
	if dropped < 9000 || held > 2*streamQueue {
		t.Errorf("%d dropped, %d bytes held", dropped, held)
	}
	wait(t, done, "the end of a connection that takes nothing")
	if stream.put([]byte("x")) {
		t.Error("a closed connection takes packets")
	}
}

func TestASessionsTCPConnectionEndsWithIt(t *testing.T) {
	tr := listen(t)
	s, err := tr.Open(newEar())
	if err != nil {
		t.Fatal(err)
	}
	name, password := s.Credentials()
	c := dialTCP(t, tr)
	check := request(name, password, true)
	for _, b := range append([]byte{byte(len(check) >> 8), byte(len(check))}, check...) { // a byte at a time
		if _, err := c.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	_ = c.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, 2+stunHeader)
	if _, err := io.ReadFull(c, b); err != nil || b[2] != 1 || b[3] != 1 {
		t.Fatalf("answer % x: %v", b, err)
	}
	s.Close()
	ends(t, c, "a closed session")
}
