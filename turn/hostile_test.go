// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/stun/v4"
)

func TestAPacketThroughOnesOwnRelayComesBackOnce(t *testing.T) {
	cfg := strictConfig()
	s := start(t, cfg)
	c := s.raw(t, "udp")
	if code := c.allocate(); code != 0 {
		t.Fatal(code)
	}
	if code := c.bind(0x4000, c.addresses()[0]); code != 0 {
		t.Fatal(code)
	}
	frame := []byte{0x40, 0, 0, 4, 'l', 'o', 'o', 'p'}
	c.write(frame)
	if p, err := c.read(5 * time.Second); err != nil || string(p) != string(frame) {
		t.Fatalf("%x, %v", p, err)
	}
	if code := c.ask(stun.MethodRefresh); code != 0 { // an answer behind whatever else there is
		t.Fatal(code)
	}
	if out, in := s.plane.Counts.ToPeer.Packets.Load(), s.plane.Counts.ToClient.Packets.Load(); out != 1 || in != 1 {
		t.Errorf("%d packets to the peer and %d back for one", out, in)
	}
}

func TestTheStrongerIntegrityCannotBeLeftOutOfTheCheck(t *testing.T) {
	// This server offers no password algorithms, so a client has nothing to be bid down from; a request that only claims SHA-256 is one
	// without integrity.
	s := start(t, testConfig())
	c := s.raw(t, "udp")
	c.allocate()
	m := stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodRefresh, stun.ClassRequest), stun.NewUsername(c.username), stun.NewRealm(c.realm),
		stun.Nonce(c.nonce), attr(stun.AttrMessageIntegritySHA256, make([]byte, 32)...))
	if code := c.exchange(m); code != 401 {
		t.Errorf("%d, want 401", code)
	}
}

func TestTheFirstOfTwoPeersCountsAndNothingBehindTheIntegrity(t *testing.T) {
	s := start(t, strictConfig())
	c := s.raw(t, "udp")
	if code := c.allocate(); code != 0 {
		t.Fatal(code)
	}
	public, private := netip.MustParseAddrPort("1.1.1.1:9"), netip.MustParseAddrPort("10.0.0.1:9")
	// Of two peers in a ChannelBind the first is bound.
	if code := c.ask(stun.MethodChannelBind, attr(stun.AttrChannelNumber, 0x40, 0, 0, 0), peerAttr(public), peerAttr(private)); code != 0 {
		t.Errorf("public first: %d, want 0", code)
	}
	if code := c.ask(stun.MethodChannelBind, attr(stun.AttrChannelNumber, 0x40, 1, 0, 0), peerAttr(private), peerAttr(public)); code != 403 {
		t.Errorf("private first: %d, want 403", code)
	}
	// What was appended on the way is not read.
	m := stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodCreatePermission, stun.ClassRequest), peerAttr(public), stun.NewUsername(c.username),
		stun.NewRealm(c.realm), stun.Nonce(c.nonce), stun.NewLongTermIntegrity(c.username, c.realm, c.password),
		peerAttr(netip.MustParseAddrPort("8.8.8.8:9")))
	if code := c.exchange(m); code != 0 {
		t.Errorf("with a peer behind the integrity: %d", code)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.users["@alice:example.org"]; a != nil {
		for x := range a.allocations {
			if x.session.Permits(netip.MustParseAddr("8.8.8.8")) || !x.session.Permits(public.Addr()) {
				t.Error("the appended peer is permitted, or the other is not")
			}
		}
	}
}

func TestHalfOpenConnectionsAreBounded(t *testing.T) {
	cfg := testConfig()
	cfg.TLS, cfg.ListenTLS, cfg.MaxConnections, cfg.MaxConnectionsPerSource = certificate(t), []string{"127.0.0.1:0"}, 20, 8
	s := start(t, cfg)
	var open []net.Conn
	for range 40 {
		conn, err := net.Dial("tcp", s.Addrs().TLS[0].String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, _ = conn.Write([]byte{22, 3, 1, 1, 0, 1}) // the start of a handshake that does not go on
		open = append(open, conn)
	}
	eventually(t, "32 are refused", func() bool { return s.counts.refusals[refusedConnection].Load() == 32 })
	if n := s.gate.Open(); n != 8 {
		t.Errorf("%d connections are open, want 8", n)
	}
	for _, conn := range open {
		conn.Close()
	}
	eventually(t, "there is room again", func() bool { return s.gate.Open() == 0 })
	if code := s.raw(t, "tcp").allocate(); code != 0 {
		t.Errorf("afterwards: %d", code)
	}
}
