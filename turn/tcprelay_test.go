// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/stun/v4"

	"github.com/trunkboard/trunkboard/signalling/clocktest"
)

// tcpEcho answers what each connection says until the other side has ended.
func tcpEcho(t testing.TB) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(conn, conn)
				conn.Close()
			}()
		}
	}()
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

func tcpRelays(t *testing.T, clock *clocktest.Clock) (*testServer, *rawClient) {
	cfg := testConfig()
	cfg.TCPRelays, cfg.MaxPeers = true, 3
	if clock != nil {
		cfg.Clock = clock
	}
	s := start(t, cfg)
	c := s.raw(t, "tcp")
	if code := c.ask(stun.MethodAllocate, wantTCP); code != 0 {
		t.Fatal(code)
	}
	return s, c
}

func (c *rawClient) connectionID(t *testing.T) []byte {
	t.Helper()
	id, err := c.last.Get(stun.AttrConnectionID)
	if err != nil {
		t.Fatal(err)
	}
	return append([]byte(nil), id...)
}

func TestBytesGoThroughATCPRelay(t *testing.T) {
	s, c := tcpRelays(t, nil)
	peer := tcpEcho(t)
	if code := c.ask(stun.MethodConnect, peerAttr(peer)); code != 0 {
		t.Fatalf("Connect: %d", code)
	}
	id := c.connectionID(t)
	if code := c.ask(stun.MethodConnect, peerAttr(peer)); code != 446 {
		t.Errorf("Connect again: %d, want 446", code)
	}
	if code := c.bind(0x4000, peer); code != 400 {
		t.Errorf("a channel of a TCP relay: %d, want 400", code)
	}
	other := s.raw(t, "tcp")
	cred := s.creds.Issue("@mallory:example.org", "M", time.Hour)
	other.username, other.password = cred.Username, cred.Credential
	if code := other.ask(stun.MethodConnectionBind, attr(stun.AttrConnectionID, id...)); code != 400 {
		t.Errorf("ConnectionBind of another user: %d, want 400", code)
	}
	d := s.raw(t, "tcp")
	d.username, d.password = c.username, c.password
	if code := d.ask(stun.MethodConnectionBind, attr(stun.AttrConnectionID, 1, 2, 3, 4)); code != 400 {
		t.Errorf("ConnectionBind of nothing: %d, want 400", code)
	}
	if code := d.ask(stun.MethodConnectionBind, attr(stun.AttrConnectionID, id...)); code != 0 {
		t.Fatalf("ConnectionBind: %d", code)
	}
	want := make([]byte, 1<<20)
	for i := range want {
		want[i] = byte(i * 7)
	}
	go func() {
		_, _ = d.conn.Write(want)
		_ = d.conn.(*net.TCPConn).CloseWrite()
	}()
	_ = d.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	got, err := io.ReadAll(d.conn)
	if err != nil || string(got) != string(want) {
		t.Fatalf("%d of %d bytes came back, %v", len(got), len(want), err)
	}
	eventually(t, "the peer may be connected to again", func() bool { return c.ask(stun.MethodConnect, peerAttr(peer)) == 0 })
}

func TestAPermittedPeerConnectsToATCPRelay(t *testing.T) {
	s, c := tcpRelays(t, nil)
	relayed := c.addresses()[0]
	stranger, err := net.Dial("tcp", relayed.String())
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	_ = stranger.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := stranger.Read(make([]byte, 1)); err == nil {
		t.Fatal("a peer without permission is let in")
	}
	if code := c.permit(netip.AddrPortFrom(loopback, 0)); code != 0 {
		t.Fatal(code)
	}
	peer, err := net.Dial("tcp", relayed.String())
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	p, err := c.read(10 * time.Second)
	m := &stun.Message{Raw: p}
	if err != nil || m.Decode() != nil || m.Type != stun.NewType(stun.MethodConnectionAttempt, stun.ClassIndication) {
		t.Fatalf("%x, %v", p, err)
	}
	id, err := m.Get(stun.AttrConnectionID)
	if err != nil {
		t.Fatal(err)
	}
	d := s.raw(t, "tcp")
	d.username, d.password = c.username, c.password
	if code := d.ask(stun.MethodConnectionBind, attr(stun.AttrConnectionID, id...)); code != 0 {
		t.Fatalf("ConnectionBind: %d", code)
	}
	if _, err := peer.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if p, err := d.read(10 * time.Second); err != nil || string(p) != "hello" {
		t.Errorf("%q, %v", p, err)
	}
	c.conn.Close() // the control connection ends the allocation, and that ends the pipe
	if _, err := d.read(10 * time.Second); err == nil {
		t.Error("the pipe outlives the allocation")
	}
}

func TestConnectionsThatNobodyBindsAreClosed(t *testing.T) {
	clock := newClock()
	s, c := tcpRelays(t, clock)
	var first []byte
	for i := range 4 {
		code, want := c.ask(stun.MethodConnect, peerAttr(tcpEcho(t))), 0
		if i == 3 {
			want = 508 // MaxPeers
		}
		if code != want {
			t.Fatalf("Connect %d: %d, want %d", i, code, want)
		}
		if i == 0 {
			first = c.connectionID(t)
		}
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	clock.Advance(31 * time.Second)
	if code := c.ask(stun.MethodConnect, peerAttr(closed.Addr().(*net.TCPAddr).AddrPort())); code != 447 {
		t.Errorf("a peer that does not listen: %d, want 447", code)
	}
	d := s.raw(t, "tcp")
	d.username, d.password = c.username, c.password
	if code := d.ask(stun.MethodConnectionBind, attr(stun.AttrConnectionID, first...)); code != 400 {
		t.Errorf("ConnectionBind after 30 s: %d, want 400", code)
	}
	if n := len(s.data); n != 0 {
		t.Errorf("%d connections wait", n)
	}
}
