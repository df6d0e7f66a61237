// SPDX-License-Identifier: Apache-2.0

package livekit

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// ends gives the two ends of a connection: ours, which is a line, and the client's.
func ends(t *testing.T) (*line, *net.TCPConn) {
	t.Helper()
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(loopback))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	theirs, err := net.DialTCP("tcp", nil, l.Addr().(*net.TCPAddr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = theirs.Close() })
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	ours := newLine(c).(*line)
	t.Cleanup(func() { _ = ours.Close() })
	return ours, theirs
}

func TestALineCarriesMoreThanTheKernelTakesAtOnce(t *testing.T) {
	ours, theirs := ends(t)
	sent := make([]byte, 16<<20)
	for i := range sent {
		sent[i] = byte(i / 251)
	}
	failed := make(chan error, 1)
	go func() {
		n, err := ours.Write(sent)
		if err == nil && n != len(sent) {
			err = io.ErrShortWrite
		}
		failed <- errors.Join(err, ours.Conn.(*net.TCPConn).CloseWrite())
	}()
	got, err := io.ReadAll(theirs)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes came, or others: %v", len(got), len(sent), err)
	}
	if err := wait(t, failed, "the end of the write"); err != nil {
		t.Error(err)
	}
	go func() {
		_, err := theirs.Write(sent)
		failed <- errors.Join(err, theirs.CloseWrite())
	}()
	if got, err = io.ReadAll(ours); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes came back, or others: %v", len(got), len(sent), err)
	}
	if err := wait(t, failed, "the end of the client's write"); err != nil {
		t.Error(err)
	}
}

func TestAWriteToAClientThatDoesNotReadEndsAtItsDeadline(t *testing.T) {
	ours, theirs := ends(t)
	much := make([]byte, 64<<20) // more than the kernel keeps
	if err := ours.SetWriteDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := ours.Write(much); !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 {
		t.Errorf("%d bytes, %v", n, err)
	}
	// A deadline that comes while the write waits ends it too.
	if err := ours.SetWriteDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := ours.Write(much)
		ended <- err
	}()
	for waiting := false; !waiting; {
		select {
		case err := <-ended:
			t.Fatalf("the write did not wait: %v", err)
		case <-time.After(time.Millisecond):
		}
		ours.mu.Lock()
		waiting = ours.waiting
		ours.mu.Unlock()
	}
	if err := ours.SetWriteDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := wait(t, ended, "the end of the write"); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	if n, err := ours.Write([]byte{1}); !errors.Is(err, os.ErrDeadlineExceeded) || n != 0 {
		t.Errorf("after the deadline: %d bytes, %v", n, err)
	}
	if err := ours.SetDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := ours.Read(much); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	if err := ours.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, theirs) }()
	if n, err := ours.Write(much); n != len(much) || err != nil {
		t.Errorf("once there is no deadline: %d bytes, %v", n, err)
	}
}

func TestALongMessageToAClientThatDoesNotReadEndsAtItsDeadline(t *testing.T) {
	ours, _ := ends(t)
	const size = 64 << 20 // more than the kernel keeps, and than gorilla's buffer
	ended := make(chan error, 1)
	request := httptest.NewRequest(http.MethodGet, "/rtc", nil)
	request.Header = http.Header{"Connection": {"upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"MDEyMzQ1Njc4OWFiY2RlZg=="}}
	conn, err := (&websocket.Upgrader{ReadBufferSize: 4096, WriteBufferSize: 4096}).Upgrade(taken{ours}, request, nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = conn.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
		ended <- conn.WriteMessage(websocket.BinaryMessage, make([]byte, size))
	}()
	var late net.Error
	if err := wait(t, ended, "the end of the message"); !errors.As(err, &late) || !late.Timeout() {
		t.Errorf("it ended with %v", err)
	}
}

// taken is a ResponseWriter whose connection is taken over.
type taken struct{ net.Conn }

func (taken) Header() http.Header { return http.Header{} }
func (taken) WriteHeader(int)     {}

func (c taken) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return c.Conn, bufio.NewReadWriter(bufio.NewReader(c.Conn), bufio.NewWriter(c.Conn)), nil
}

func TestALineThatIsClosedSaysSo(t *testing.T) {
	ours, theirs := ends(t)
	ended := make(chan error, 1)
	go func() {
		_, err := ours.Read(make([]byte, 1))
		ended <- err
	}()
	_ = ours.Close()
	if err := wait(t, ended, "the end of the read"); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if _, err := ours.Write([]byte{1}); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	ours, theirs = ends(t)
	_ = theirs.SetLinger(0) // closing resets
	_ = theirs.Close()
	if _, err := ours.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a reset reads as %v", err)
	}
	var failed *net.OpError
	if _, err := ours.Write([]byte{1}); !errors.As(err, &failed) || failed.Op != "write" {
		t.Errorf("a write after it gives %v", err)
	}
}
