// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/stun/v4"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/trunkboard/trunkboard/turn/relay"
)

// deniedPeers has an address of each range that no relay reaches.
var deniedPeers = []string{
	"127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
	"192.0.0.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
	"::", "::1", "fe80::1", "fc00::1", "fd12:3456::1", "fec0::1", "ff02::1", "2001:db8::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8",
	"::127.0.0.1", "::8.8.8.8", "64:ff9b::7f00:1", "64:ff9b:1::a00:1", "2002:7f00:1::", "2001:0:7f00:1::", "::ffff:0:127.0.0.1",
}

func strictConfig() Config {
	cfg := testConfig()
	cfg.Allow = nil
	return cfg
}

func TestDeniedPeersAreRefusedByEveryMethod(t *testing.T) {
	cfg := strictConfig()
	cfg.Relays = append(cfg.Relays, RelayAddress{Local: netip.IPv6Loopback()})
	cfg.TCPRelays = true
	s := start(t, cfg)
	for family, name := range map[byte]string{1: "IPv4 TCP relay", 2: "IPv6 TCP relay"} {
		c := s.raw(t, "tcp")
		if code := c.ask(stun.MethodAllocate, wantTCP, attr(stun.AttrRequestedAddressFamily, family, 0, 0, 0)); code != 0 {
			t.Fatalf("%s: Allocate: %d", name, code)
		}
		for _, ip := range deniedPeers {
			if code := c.ask(stun.MethodConnect, peerAttr(netip.AddrPortFrom(netip.MustParseAddr(ip), 9))); code != 403 {
				t.Errorf("%s: Connect %s: %d, want 403", name, ip, code)
			}
		}
	}
	for family, name := range map[byte]string{1: "IPv4 relay", 2: "IPv6 relay"} {
		c := s.raw(t, "udp")
		if code := c.allocate(attr(stun.AttrRequestedAddressFamily, family, 0, 0, 0)); code != 0 {
			t.Fatalf("%s: Allocate: %d", name, code)
		}
		for _, ip := range deniedPeers {
			peer := netip.AddrPortFrom(netip.MustParseAddr(ip), 9)
			own := peer.Addr() == loopback || peer.Addr() == netip.IPv6Loopback() // the relay's address here: refused by port
			if code := c.permit(peer); code != 403 && !own {
				t.Errorf("%s: CreatePermission %s: %d, want 403", name, ip, code)
			}
			if code := c.bind(0x4000, peer); code != 403 {
				t.Errorf("%s: ChannelBind %s: %d, want 403", name, ip, code)
			}
			c.sendTo(peer, "x")
		}
		if code := c.ask(stun.MethodRefresh); code != 0 { // an answer behind all of them: they have been handled
			t.Fatalf("Refresh: %d", code)
		}
	}
	if n := s.plane.Counts.ToPeer.Packets.Load(); n != 0 {
		t.Errorf("%d packets left", n)
	}
}

func TestOnePermittedAddressAmongDeniedOnesIsNotPermitted(t *testing.T) {
	s := start(t, strictConfig())
	c := s.raw(t, "udp")
	if code := c.allocate(); code != 0 {
		t.Fatal(code)
	}
	good, bad := netip.MustParseAddrPort("8.8.8.8:1"), netip.MustParseAddrPort("10.0.0.1:1")
	if code := c.ask(stun.MethodCreatePermission, peerAttr(good), peerAttr(bad)); code != 403 {
		t.Fatalf("got %d", code)
	}
	c.sendTo(good, "x")
	if code := c.permit(good); code != 0 {
		t.Fatalf("got %d", code)
	}
	if n := s.plane.Counts.Dropped[relay.DropNoPermission].Load(); n != 1 {
		t.Errorf("%d packets dropped for want of a permission, want 1", n)
	}
}

func TestOwnRelayAddressIsReachedOnlyAtLiveRelaysAndLocalPeers(t *testing.T) {
	for _, engine := range engines {
		t.Run(string(engine), func(t *testing.T) {
			sfu := echo(t)
			other := echo(t) // another service of this host
			cfg := strictConfig()
			cfg.Engine, cfg.LocalPeers = string(engine), []netip.AddrPort{sfu}
			s := start(t, cfg)
			a, b := s.raw(t, "udp"), s.raw(t, "udp")
			if x, y := a.allocate(), b.allocate(); x != 0 || y != 0 {
				t.Fatal(x, y)
			}
			if code := a.bind(0x4000, other); code != 403 {
				t.Errorf("a service that is no relay: %d, want 403", code)
			}
			if code := a.bind(0x4000, sfu); code != 0 {
				t.Errorf("a local peer: %d", code)
			}
			if code := a.bind(0x4001, b.relayed); code != 0 {
				t.Errorf("a live relay: %d", code)
			}
			if code := b.bind(0x4fff, a.relayed); code != 0 {
				t.Errorf("a live relay: %d", code)
			}
			// Relay to relay: the two clients meet here.
			a.write([]byte{0x40, 1, 0, 2, 'h', 'i'})
			if p, err := b.read(5 * time.Second); err != nil || string(p) != "\x4f\xff\x00\x02hi" {
				t.Fatalf("%q %v", p, err)
			}
			a.write([]byte{0x40, 0, 0, 1, '!'})
			if p, err := a.read(5 * time.Second); err != nil || string(p) != "\x40\x00\x00\x01!" {
				t.Fatalf("%q %v", p, err)
			}
			// A permission has no port: the packet is dropped by its port.
			a.sendTo(other, "x")
			// The other end goes away: its port is nobody's, the bound channel leads nowhere.
			if code := b.ask(stun.MethodRefresh, attr(stun.AttrLifetime, 0, 0, 0, 0)); code != 0 {
				t.Fatal(code)
			}
			a.write([]byte{0x40, 1, 0, 2, 'h', 'i'})
			if code := a.ask(stun.MethodRefresh); code != 0 {
				t.Fatal(code)
			}
			if n := s.plane.Counts.Dropped[relay.DropOwnPort].Load(); n != 2 {
				t.Errorf("%d packets dropped by their port, want 2", n)
			}
		})
	}
}

func TestALANRangeDoesNotOpenOwnServices(t *testing.T) {
	plane, err := relay.NewPlane(relay.Portable, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	own, host := netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("10.0.0.6")
	cfg := Config{
		Relays: []RelayAddress{{Local: own, External: netip.MustParseAddr("198.51.100.7")}},
		Allow:  []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("127.0.0.1/1"), netip.MustParsePrefix("10.0.0.77/32")},
	}
	ports := [2][]*relay.Ports{{relay.NewPorts(plane, own, 50000, 50001)}}
	ports[0][0].Enlist(50001)
	r := newPeerRule(cfg, ports, []netip.Addr{own, host, netip.MustParseAddr("10.0.0.77"), loopback})
	for _, c := range []struct {
		peer      string
		ok, open  bool
		wantOther string
	}{
		{"10.9.9.9:1", true, true, ""},
		{"10.0.0.5:6379", true, false, ""},
		{"10.0.0.5:50001", true, true, ""},
		{"198.51.100.7:50001", true, true, "10.0.0.5:50001"},
		{"198.51.100.7:50000", true, false, "10.0.0.5:50000"},
		{"10.0.0.6:6379", false, false, ""},
		{"10.0.0.77:6379", true, true, ""},
		{"127.0.0.1:6379", false, false, ""},
		{"192.168.0.1:1", false, false, ""},
		{"8.8.8.8:53", true, true, ""},
		{"[2a00:1450::1]:53", true, true, ""},
	} {
		peer, ok := r.check(netip.MustParseAddrPort(c.peer))
		if ok != c.ok || ok && (!peer.Own || r.open(peer.Actual)) != c.open {
			t.Errorf("%s: %+v ok %v", c.peer, peer, ok)
		}
		if c.wantOther != "" && peer.Actual.String() != c.wantOther {
			t.Errorf("%s is sent to %v", c.peer, peer.Actual)
		}
	}
}

func TestQuotas(t *testing.T) {
	cfg := testConfig()
	cfg.UserQuota, cfg.TotalQuota = 2, 3
	s := start(t, cfg)
	as := func(user string) *rawClient {
		c := s.raw(t, "udp")
		cred := s.creds.Issue(user, "d", time.Hour)
		c.username, c.password = cred.Username, cred.Credential
		return c
	}
	first := as("@a:x")
	for i, c := range []struct {
		client *rawClient
		want   int
	}{{first, 0}, {as("@a:x"), 0}, {as("@a:x"), 486}, {as("@b:x"), 0}, {as("@c:x"), 508}} {
		if code := c.client.allocate(); code != c.want {
			t.Errorf("%d: %d, want %d", i, code, c.want)
		}
	}
	if code := first.ask(stun.MethodRefresh, attr(stun.AttrLifetime, 0, 0, 0, 0)); code != 0 {
		t.Fatal(code)
	}
	if code := as("@c:x").allocate(); code != 0 {
		t.Errorf("after one was freed: %d", code)
	}
	s.Drain()
	first2 := as("@d:x")
	if code := first2.allocate(); code != 508 {
		t.Errorf("while draining: %d, want 508", code)
	}
}

func TestRequestsAreAnsweredAsRFC8656Says(t *testing.T) {
	clock := newClock()
	cfg := testConfig()
	cfg.Clock, cfg.MaxPeers = clock, 3
	s := start(t, cfg)
	peer := echo(t)
	c := s.raw(t, "udp")
	expect := func(what string, got, want int) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %d, want %d", what, got, want)
		}
	}
	expect("Refresh without an allocation", c.ask(stun.MethodRefresh), 437)
	expect("Allocate without transport", c.ask(stun.MethodAllocate), 400)
	expect("Allocate TCP", c.ask(stun.MethodAllocate, attr(stun.AttrRequestedTransport, 6, 0, 0, 0)), 442)
	expect("unknown attribute", c.ask(stun.MethodAllocate, wantUDP, attr(0x7abc, 1)), 420)
	expect("family junk", c.allocate(attr(stun.AttrRequestedAddressFamily, 9, 0, 0, 0)), 440)
	expect("IPv6 on an IPv4 relay", c.allocate(attr(stun.AttrRequestedAddressFamily, 2, 0, 0, 0)), 440)
	expect("token and family", c.allocate(attr(stun.AttrRequestedAddressFamily, 1, 0, 0, 0), attr(stun.AttrReservationToken, 1, 2, 3, 4, 5, 6, 7, 8)), 400)
	expect("guessed token", c.allocate(attr(stun.AttrReservationToken, 1, 2, 3, 4, 5, 6, 7, 8)), 508)
	expect("long username", func() int {
		u := c.username
		defer func() { c.username = u }()
		c.username = string(make([]byte, 510))
		return c.exchange(stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodAllocate, stun.ClassRequest), wantUDP,
			attr(stun.AttrUsername, make([]byte, 10000)...), stun.NewRealm(c.realm), stun.Nonce(c.nonce), stun.MessageIntegrity("k")))
	}(), 400)
	expect("integrity without the rest", c.exchange(stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodAllocate, stun.ClassRequest), wantUDP, stun.MessageIntegrity("k"))), 400)
	if n := s.AllocationCount(); n != 0 {
		t.Fatalf("%d allocations", n)
	}

	request := c.build(stun.MethodAllocate, wantUDP, attr(stun.AttrLifetime, 0xff, 0xff, 0xff, 0xff))
	expect("Allocate", c.exchange(request), 0)
	lifetime, _ := c.last.Get(stun.AttrLifetime)
	if string(lifetime) != "\x00\x00\x0e\x10" {
		t.Errorf("lifetime %x, want 3600", lifetime)
	}
	answer := string(c.last.Raw)
	expect("the same Allocate again", c.exchange(request), 0)
	if string(c.last.Raw) != answer {
		t.Error("a retransmission got another answer")
	}
	expect("another Allocate", c.allocate(), 437)

	expect("channel too low", c.bind(0x3fff, peer), 400)
	expect("channel reserved", c.bind(0x5000, peer), 400)
	expect("channel", c.bind(0x4000, peer), 0)
	expect("channel again", c.bind(0x4000, peer), 0)
	expect("the channel to another peer", c.bind(0x4000, netip.MustParseAddrPort("8.8.8.8:1")), 400)
	expect("another channel to the peer", c.bind(0x4001, peer), 400)
	expect("IPv6 peer", c.permit(netip.MustParseAddrPort("[2a00:1450::1]:1")), 443)
	expect("no peer", c.ask(stun.MethodCreatePermission), 400)
	expect("damaged peer", c.ask(stun.MethodCreatePermission, attr(stun.AttrXORPeerAddress, 0, 1, 2)), 400)
	expect("second permission", c.permit(netip.MustParseAddrPort("8.8.8.1:1")), 0)
	expect("third permission", c.permit(netip.MustParseAddrPort("8.8.8.2:1")), 0)
	expect("fourth permission", c.permit(netip.MustParseAddrPort("8.8.8.3:1")), 508)

	// Another user on the same 5-tuple.
	eve := *c
	cred := s.creds.Issue("@eve:example.org", "d", time.Hour)
	eve.username, eve.password = cred.Username, cred.Credential
	expect("Refresh by another user", eve.ask(stun.MethodRefresh), 441)
	expect("Allocate by another user", eve.allocate(), 437)

	// The nonce of another client, a forged one, an old one.
	nonce := c.nonce
	other := s.raw(t, "udp")
	other.realm, other.nonce = c.realm, nonce
	expect("another client's nonce", other.askOnce(stun.MethodAllocate, wantUDP), 438)
	c.nonce = append([]byte(nil), nonce...)
	c.nonce[5] ^= 1
	expect("forged nonce", c.askOnce(stun.MethodRefresh), 438)
	c.nonce = nonce

	// The channel lives on its own time, its traffic on the permission's.
	ping := func() bool {
		c.write([]byte{0x40, 0, 0, 1, '?'})
		p, err := c.read(300 * time.Millisecond)
		return err == nil && string(p) == "\x40\x00\x00\x01?"
	}
	if !ping() {
		t.Error("no echo over the channel")
	}
	clock.Advance(5*time.Minute + time.Second)
	if ping() {
		t.Error("the permission has expired and the channel still relays")
	}
	expect("permission", c.permit(peer), 0)
	if !ping() {
		t.Error("the permission was renewed and the channel does not relay")
	}
	clock.Advance(5 * time.Minute)
	expect("permission", c.permit(peer), 0)
	if ping() {
		t.Error("the channel has expired and still relays")
	}
	expect("the number for another peer", c.bind(0x4000, netip.MustParseAddrPort("8.8.8.9:1")), 0)

	clock.Advance(time.Hour)
	expect("old nonce", c.askOnce(stun.MethodRefresh), 438)
	if n := s.AllocationCount(); n != 0 {
		t.Errorf("%d allocations after their lifetime", n)
	}
}

func TestAllocationOutlivesItsCredential(t *testing.T) {
	clock := newClock()
	cfg := testConfig()
	cfg.Clock = clock
	s := start(t, cfg)
	c := s.raw(t, "udp")
	cred := s.creds.Issue("@a:b", "d", time.Minute)
	c.username, c.password = cred.Username, cred.Credential
	if code := c.allocate(); code != 0 {
		t.Fatal(code)
	}
	for range 10 {
		clock.Advance(5 * time.Minute)
		if code := c.ask(stun.MethodRefresh); code != 0 {
			t.Fatalf("Refresh of a running call: %d", code)
		}
	}
	if code := c.ask(stun.MethodRefresh, attr(stun.AttrLifetime, 0, 0, 0, 0)); code != 0 {
		t.Fatal(code)
	}
	if code := c.allocate(); code != 401 {
		t.Errorf("a new allocation with the expired credential: %d, want 401", code)
	}
}

func TestReservedPortsAreUsedOnceAndComeBack(t *testing.T) {
	clock := newClock()
	cfg := testConfig()
	cfg.Clock, cfg.UserQuota = clock, 3
	s := start(t, cfg)
	a, b := s.raw(t, "udp"), s.raw(t, "udp")
	if code := a.allocate(attr(stun.AttrEvenPort, 0x80)); code != 0 {
		t.Fatal(code)
	}
	token, err := a.last.Get(stun.AttrReservationToken)
	if err != nil || a.relayed.Port()%2 != 0 {
		t.Fatalf("port %v, token %v", a.relayed, err)
	}
	token = append([]byte(nil), token...)
	eve := s.raw(t, "udp")
	cred := s.creds.Issue("@eve:x", "d", time.Hour)
	eve.username, eve.password = cred.Username, cred.Credential
	if code := eve.allocate(attr(stun.AttrReservationToken, token...)); code != 508 {
		t.Errorf("another user's token: %d", code)
	}
	if code := b.allocate(attr(stun.AttrReservationToken, token...)); code != 0 || b.relayed.Port() != a.relayed.Port()+1 {
		t.Errorf("the token: %d, %v beside %v", code, b.relayed, a.relayed)
	}
	if code := s.raw(t, "udp").allocate(attr(stun.AttrReservationToken, token...)); code != 508 {
		t.Errorf("the token again: %d", code)
	}
	// A reservation counts as an allocation until its time is over.
	if code := b.ask(stun.MethodRefresh, attr(stun.AttrLifetime, 0, 0, 0, 0)); code != 0 {
		t.Fatal(code)
	}
	if code := s.raw(t, "udp").allocate(attr(stun.AttrEvenPort, 0x80)); code != 0 {
		t.Fatal(code)
	}
	late := s.raw(t, "udp")
	if code := late.allocate(); code != 486 {
		t.Errorf("beside the reservation: %d, want 486", code)
	}
	clock.Advance(31 * time.Second)
	if code := late.allocate(); code != 0 {
		t.Errorf("after the reservation: %d", code)
	}
}

func TestAnswersToStrangersAreSmallAndFew(t *testing.T) {
	cfg := testConfig()
	cfg.UnauthorizedRate, cfg.UnauthorizedBurst, cfg.BindingRate, cfg.BindingBurst = 1, 5, 1, 5
	cfg.Clock = newClock()
	s := start(t, cfg)
	const headers = 28 // of IPv4 and UDP, which a reflector sends as well
	for name, m := range map[string]*stun.Message{
		"smallest Allocate": stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodAllocate, stun.ClassRequest), wantUDP),
		"bare header":       stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodAllocate, stun.ClassRequest)),
		"with fingerprint":  stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodAllocate, stun.ClassRequest), wantUDP, stun.Fingerprint),
		"Binding":           stun.MustBuild(stun.TransactionID, stun.BindingRequest),
	} {
		c := s.raw(t, "udp")
		c.write(m.Raw)
		p, err := c.read(5 * time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if got, limit := headers+len(p), 1.5*float64(headers+len(m.Raw)); float64(got) > limit {
			t.Errorf("%s: %d bytes answer %d", name, got, headers+len(m.Raw))
		}
	}
	c := s.raw(t, "udp")
	answers := 0
	for range 20 {
		c.write(stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodAllocate, stun.ClassRequest), wantUDP).Raw)
	}
	for {
		if _, err := c.read(300 * time.Millisecond); err != nil {
			break
		}
		answers++
	}
	if answers != 2 { // 5 less the three above
		t.Errorf("%d answers in no time", answers)
	}
}

func TestMetricsCountWhatHappened(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	s := start(t, testConfig())
	if err := reg.Register(&collector{s: s.Server}); err != nil {
		t.Fatal(err)
	}
	c := s.raw(t, "udp")
	c.password = "another"
	if code := c.allocate(); code != 401 {
		t.Fatal(code)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.Metric {
			name := f.GetName()
			for _, l := range m.Label {
				name += "/" + l.GetValue()
			}
			got[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	if got["trunkboard_turn_unauthorized_total"] != 2 || got["trunkboard_turn_refusals_total/401_unauthorized"] != 2 || got["trunkboard_turn_allocations"] != 0 {
		t.Errorf("got %v", got)
	}
	if got["turn_unauthenticated_401_requests"] != 2 || len(aliasCounters) < 14 {
		t.Errorf("by coturn's names: %v", got)
	}
	for _, name := range []string{"turn_total_allocations/UDP", "turn_total_traffic_rcvp", "turn_total_traffic_peer_sentb", "stun_binding_request", "turn_packet_processed"} {
		if n, ok := got[name]; !ok || n != 0 {
			t.Errorf("%s: %v %v", name, n, ok)
		}
	}
	if _, ok := got["trunkboard_turn_relayed_bytes_total/to_client"]; !ok {
		t.Errorf("got %v", got)
	}
}

func TestPortInUseIsAnErrorAndFreesTheRest(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	creds, err := NewCredentials(CredentialsConfig{})
	if err != nil {
		t.Fatal(err)
	}
	cfg := testConfig()
	cfg.ListenTCP = []string{busy.Addr().String()}
	if _, err := New(cfg, creds, nil, nil); err == nil {
		t.Fatal("no error")
	}
	if len(creds.watchers) != 0 {
		t.Error("the failed server still watches the credentials")
	}
}
