// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trunkboard/trunkboard/configs"
)

// under is an http.Server as the App makes it, but for times that a test can wait for, behind the TLS front that the App puts before it.
// It serves plain HTTP too.
type under struct {
	t             *testing.T
	secure, plain string
}

func abused(t *testing.T, h http.Handler, hurry func(*http.Server)) *under {
	t.Helper()
	leavesNothing(t)
	ca, err := selfSigned(t.TempDir(), []string{"127.0.0.1"}, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	a := &App{log: testLog(t), cfg: configs.Config{}}
	s := a.server(h)
	hurry(s)
	u := &under{t: t}
	var serving sync.WaitGroup
	listen := func(secure bool) string {
		tcp, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		var l net.Listener = tcp
		if secure {
			l = newFront(tcp, ca.GetCertificate, nil, nil, testLog(t))
		}
		serving.Go(func() { _ = s.Serve(l) })
		return tcp.Addr().String()
	}
	u.secure, u.plain = listen(true), listen(false)
	t.Cleanup(func() { _ = s.Close(); serving.Wait() })
	return u
}

func (u *under) dial(protocol string) net.Conn {
	u.t.Helper()
	var c net.Conn
	var err error
	if protocol == "plain" {
		c, err = net.Dial("tcp", u.plain)
	} else {
		c, err = tls.Dial("tcp", u.secure, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}})
	}
	if err != nil {
		u.t.Fatal(err)
	}
	u.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(60 * time.Second))
	return c
}

// HTTP/2 by hand (RFC 9113): no client does what these tests do.
const (
	frameData, frameHeaders, frameReset, frameSettings, frameGoAway, frameContinuation = 0, 1, 3, 4, 7, 9
	endStream, endHeaders                                                              = 1, 4
	enhanceYourCalm                                                                    = 11
)

func frame(kind, flags byte, stream uint32, payload []byte) []byte {
	head := []byte{byte(len(payload) >> 16), byte(len(payload) >> 8), byte(len(payload)), kind, flags}
	return append(binary.BigEndian.AppendUint32(head, stream), payload...)
}

// fields is the header of a request, in HPACK's static table.
func fields(post bool) []byte {
	method := byte(0x82) // GET
	if post {
		method = 0x83
	}
	return append([]byte{method, 0x87, 0x84, 0x41, 1}, 'x') // https, /, :authority x
}

func (u *under) two() net.Conn {
	c := u.dial("h2")
	u.write(c, []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), frame(frameSettings, 0, 0, nil))
	return c
}

func (u *under) write(c net.Conn, parts ...[]byte) {
	u.t.Helper()
	if _, err := c.Write(bytes.Join(parts, nil)); err != nil {
		u.t.Fatal(err)
	}
}

// dribble writes a byte now and then until the connection ends, which it must within a minute.
func dribble(t *testing.T, c net.Conn, b []byte) {
	t.Helper()
	gone := make(chan struct{})
	go func() { defer close(gone); _, _ = io.Copy(io.Discard, c) }()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-gone:
			return
		case <-tick.C:
			if _, err := c.Write(b); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal("the server reads for as long as it is written to")
			}
		}
	}
}

func TestAHeaderThatDribblesEnds(t *testing.T) {
	u := abused(t, http.NotFoundHandler(), func(s *http.Server) { s.ReadHeaderTimeout, s.IdleTimeout = 300*time.Millisecond, 300*time.Millisecond })
	for _, protocol := range []string{"plain", "http/1.1"} {
		c := u.dial(protocol)
		u.write(c, []byte("GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "))
		dribble(t, c, []byte("x"))
	}
	// In HTTP/2 a header goes on in frames of its own; the time between requests bounds it.
	c := u.two()
	u.write(c, frame(frameHeaders, endStream, 1, fields(false)))
	dribble(t, c, frame(frameContinuation, 0, 1, nil))
	c = u.two() // and nothing at all
	_, _ = io.Copy(io.Discard, c)
}

func TestABodyThatDribblesEnds(t *testing.T) {
	read := make(chan error, 8)
	u := abused(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		read <- err
	}), func(s *http.Server) {
		s.ReadHeaderTimeout, s.ReadTimeout, s.IdleTimeout = 300*time.Millisecond, 600*time.Millisecond, 300*time.Millisecond
	})
	ended := func(protocol string) {
		t.Helper()
		select {
		case err := <-read:
			if err == nil {
				t.Errorf("%s: the body was whole", protocol)
			}
		case <-time.After(60 * time.Second):
			t.Errorf("%s: the handler still waits for the body", protocol)
		}
	}
	for _, protocol := range []string{"plain", "http/1.1"} {
		c := u.dial(protocol)
		u.write(c, []byte("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"))
		dribble(t, c, []byte("x"))
		ended(protocol)
	}
	c := u.two()
	u.write(c, frame(frameHeaders, endHeaders, 1, fields(true)))
	dribble(t, c, frame(frameData, 0, 1, []byte("x")))
	ended("h2")
}

func TestAClientThatReadsNothingEnds(t *testing.T) {
	written := make(chan error, 8)
	u := abused(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		var err error
		for page := make([]byte, 64<<10); err == nil; { // more than any buffer on the way holds
			_, err = w.Write(page)
		}
		written <- err
	}), func(s *http.Server) { s.WriteTimeout = 600 * time.Millisecond })
	for _, protocol := range []string{"plain", "http/1.1", "h2"} {
		if protocol == "h2" {
			u.write(u.two(), frame(frameHeaders, endStream|endHeaders, 1, fields(false)))
		} else {
			u.write(u.dial(protocol), []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
		}
		select {
		case <-written:
		case <-time.After(60 * time.Second):
			t.Errorf("%s: the handler still writes", protocol)
		}
	}
}

// CVE-2023-44487: requests are begun and reset as fast as the network carries them.
func TestRapidResetsKeepNobodyBusy(t *testing.T) {
	var working, most, all atomic.Int32
	hold := make(chan struct{})
	u := abused(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 1 {
			_, _ = io.WriteString(w, "served") // the witness
			return
		}
		all.Add(1)
		n := working.Add(1)
		defer working.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		<-hold // work that does not look whether anybody still waits for it
	}), func(*http.Server) {})
	c := u.two()
	calm := make(chan uint32, 1)
	go func() { // what the server says
		head := make([]byte, 9)
		for {
			if _, err := io.ReadFull(c, head); err != nil {
				close(calm)
				return
			}
			payload := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
			if _, err := io.ReadFull(c, payload); err != nil {
				close(calm)
				return
			}
			if head[3] == frameGoAway && len(payload) >= 8 {
				calm <- binary.BigEndian.Uint32(payload[4:])
				return
			}
		}
	}()
	stream := uint32(1)
	for range 100 {
		var b []byte
		for range 100 {
			b = append(b, frame(frameHeaders, endStream|endHeaders, stream, fields(false))...)
			b = append(b, frame(frameReset, 0, stream, []byte{0, 0, 0, 8})...) // CANCEL
			stream += 2
		}
		if _, err := c.Write(b); err != nil {
			break // the server has had enough
		}
	}
	select {
	case code, ok := <-calm:
		if ok && code != enhanceYourCalm {
			t.Errorf("the server goes away with %d", code)
		}
	case <-time.After(60 * time.Second):
		t.Error("the server lets it go on")
	}
	if n := most.Load(); n > maxStreams || n == 0 {
		t.Errorf("%d handlers at the same time, at most %d are meant to", n, maxStreams)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	if _, body := fetch(t, client, "https://"+u.secure+"/"); body != "served" {
		t.Errorf("somebody else is answered %q", body)
	}
	close(hold)
	t.Logf("%d of 10000 reset requests reached a handler, %d at once", all.Load(), most.Load())
}

// from dials from an address of this machine.
func from(t *testing.T, source, to string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}, Timeout: 30 * time.Second}
	c, err := d.Dial("tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(60 * time.Second))
	return c
}

func TestOneAddressCannotTakeAllHandshakes(t *testing.T) {
	a, _ := start(t, testConfig(t, "tls.mode=self-signed", "listen.trusted_proxies=10.0.0.0/8"), "web")
	to := a.Addr("listen.https")
	for range handshakesEach {
		from(t, "127.0.0.2", to) // and not a word
	}
	// One more is closed right away. The server counts a connection when it takes it from the kernel, so the first ones are there by now.
	if n, err := from(t, "127.0.0.2", to).Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("one more handshake: %d, %v", n, err)
	}
	c := tls.Client(from(t, "127.0.0.3", to), &tls.Config{InsecureSkipVerify: true})
	if err := c.Handshake(); err != nil {
		t.Errorf("somebody else: %v", err)
	}
}

func TestOneAddressHoldsABoundedNumberOfConnections(t *testing.T) {
	leavesNothing(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := &App{log: testLog(t), cfg: testConfig(t, "listen.trusted_proxies=127.0.0.9/32")}
	s := a.server(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "served") }))
	s.ConnState = a.newCrowd(3).connState()
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	defer func() { _ = s.Close(); <-done }()
	ask := func(c net.Conn) bool {
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		b := make([]byte, 4096)
		n, _ := c.Read(b)
		return strings.Contains(string(b[:n]), "served")
	}
	var held []net.Conn
	for i := range 3 {
		held = append(held, from(t, "127.0.0.2", l.Addr().String()))
		if !ask(held[i]) {
			t.Errorf("connection %d is refused", i)
		}
	}
	if ask(from(t, "127.0.0.2", l.Addr().String())) {
		t.Error("one more is answered")
	}
	if !ask(from(t, "127.0.0.3", l.Addr().String())) {
		t.Error("somebody else is refused")
	}
	for range 5 {
		if !ask(from(t, "127.0.0.9", l.Addr().String())) {
			t.Error("a reverse proxy is refused")
		}
	}
	held[0].Close()
	// That the server has seen the end of a connection shows in nothing but the next one.
	for deadline := time.Now().Add(60 * time.Second); !ask(from(t, "127.0.0.2", l.Addr().String())); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a connection that was closed counts for ever")
		}
	}
}
