// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/stun/v4"

	"github.com/trunkboard/trunkboard/turn/relay"
	"github.com/trunkboard/trunkboard/turn/stunmsg"
)

// addresses are the values of all XOR-RELAYED-ADDRESS attributes of the last answer.
func (c *rawClient) addresses() (out []netip.AddrPort) {
	for _, a := range c.last.Attributes {
		if a.Type == stun.AttrXORRelayedAddress {
			if addr, ok := stunmsg.XORAddress(a.Value, c.last.TransactionID[:]); ok {
				out = append(out, addr)
			}
		}
	}
	return out
}

func dualConfig() Config {
	cfg := testConfig()
	cfg.Relays = append(cfg.Relays, RelayAddress{Local: netip.IPv6Loopback()})
	cfg.Allow = append(cfg.Allow, netip.MustParsePrefix("::1/128"))
	return cfg
}

func TestADualAllocationReachesBothFamiliesAndMayGiveOneBack(t *testing.T) {
	s := start(t, dualConfig())
	peer4 := echo(t)
	peer6, err := echo6(t)
	if err != nil {
		t.Fatal(err)
	}
	c := s.raw(t, "udp")
	if code := c.allocate(attr(attrAdditionalFamily, familyIPv6, 0, 0, 0)); code != 0 {
		t.Fatal(code)
	}
	if got := c.addresses(); len(got) != 2 || !got[0].Addr().Is4() || !got[1].Addr().Is6() {
		t.Fatalf("relayed addresses %v", got)
	}
	for i, peer := range []netip.AddrPort{peer4, peer6} {
		if code := c.bind(0x4000+uint16(i), peer); code != 0 {
			t.Fatalf("ChannelBind %v: %d", peer, code)
		}
		frame := []byte{0x40, byte(i), 0, 4, 'e', 'c', 'h', 'o'}
		c.write(frame)
		if p, err := c.read(5 * time.Second); err != nil || string(p) != string(frame) {
			t.Errorf("%v: %x, %v", peer, p, err)
		}
	}
	if code := c.ask(stun.MethodRefresh, attr(stun.AttrLifetime, 0, 0, 0, 0), attr(stun.AttrRequestedAddressFamily, familyIPv4, 0, 0, 0)); code != 0 {
		t.Fatalf("Refresh 0 of the IPv4 relay: %d", code)
	}
	if code := c.permit(peer4); code != 443 {
		t.Errorf("a peer of the family that was given back: %d", code)
	}
	if code := c.ask(stun.MethodRefresh, attr(stun.AttrRequestedAddressFamily, familyIPv4, 0, 0, 0)); code != 443 {
		t.Errorf("Refresh of the family that was given back: %d", code)
	}
	if code := c.permit(peer6); code != 0 || s.AllocationCount() != 1 {
		t.Errorf("the other family: %d, %d allocations", code, s.AllocationCount())
	}
	eventually(t, "the port is free", func() bool { return s.ports[0][0].Free() == 65536-49152 })
}

func TestADualAllocationWithoutIPv6SaysWhatIsMissing(t *testing.T) {
	s := start(t, testConfig())
	c := s.raw(t, "udp")
	if code := c.allocate(attr(attrAdditionalFamily, familyIPv6, 0, 0, 0)); code != 0 {
		t.Fatal(code)
	}
	v, err := c.last.Get(attrAddressError)
	if err != nil || string(v) != string([]byte{familyIPv6, 0, 4, 40}) || len(c.addresses()) != 1 {
		t.Errorf("ADDRESS-ERROR-CODE %x, %v, relays %v", v, err, c.addresses())
	}
}

func TestCombinationsThatMakeNoSenseAreBadRequests(t *testing.T) {
	cfg := dualConfig()
	cfg.TCPRelays = true
	s := start(t, cfg)
	v4, v6 := attr(stun.AttrRequestedAddressFamily, familyIPv4, 0, 0, 0), attr(attrAdditionalFamily, familyIPv6, 0, 0, 0)
	for name, attrs := range map[string][]stun.Setter{
		"both families' attributes":    {wantUDP, v4, v6},
		"additional IPv4":              {wantUDP, attr(attrAdditionalFamily, familyIPv4, 0, 0, 0)},
		"a pair of ports, twice":       {wantUDP, v6, attr(stun.AttrEvenPort, 0x80)},
		"token and family":             {wantUDP, v6, attr(stun.AttrReservationToken, 1, 2, 3, 4, 5, 6, 7, 8)},
		"a ticket in Allocate":         {wantUDP, attr(attrMobilityTicket, 1)},
		"TCP relay over UDP":           {wantTCP},
		"short REQUESTED-TRANSPORT":    {attr(stun.AttrRequestedTransport, 17)},
		"short ADDITIONAL…":            {wantUDP, attr(attrAdditionalFamily, familyIPv6)},
		"ConnectionBind without id":    nil,
		"LIFETIME of the wrong length": {wantUDP, attr(stun.AttrLifetime, 1)},
	} {
		method := stun.MethodAllocate
		if attrs == nil {
			method = stun.MethodConnectionBind
		}
		if code := s.raw(t, "udp").ask(method, attrs...); code != 400 {
			t.Errorf("%s: %d, want 400", name, code)
		}
	}
	if n := s.AllocationCount(); n != 0 {
		t.Errorf("%d allocations", n)
	}
}

func TestAClientThatMovesKeepsItsAllocation(t *testing.T) {
	cfg := testConfig()
	cfg.Mobility, cfg.UserQuota = true, 1
	s := start(t, cfg)
	peer := echo(t)
	for _, from := range []string{"udp", "tcp"} {
		c := s.raw(t, from)
		if code := c.allocate(attr(attrMobilityTicket)); code != 0 {
			t.Fatal(code)
		}
		ticket, err := c.last.Get(attrMobilityTicket)
		if err != nil || len(ticket) < 16 {
			t.Fatalf("ticket %x, %v", ticket, err)
		}
		if code := c.bind(0x4000, peer); code != 0 {
			t.Fatal(code)
		}
		if from == "tcp" {
			c.conn.Close() // and the allocation waits
			eventually(t, "the end of the connection is known", func() bool { return s.gate.Open() == 0 })
		}
		if code := s.raw(t, "udp").allocate(); code != 486 {
			t.Errorf("a second allocation: %d, want 486", code) // T23: no escape from the quota
		}

		thief := s.raw(t, "udp")
		thief.username, thief.password = func() (string, string) {
			x := s.creds.Issue("@mallory:example.org", "M", time.Hour)
			return x.Username, x.Credential
		}()
		if code := thief.ask(stun.MethodRefresh, attr(attrMobilityTicket, ticket...)); code != 441 {
			t.Errorf("another user with the ticket: %d, want 441", code)
		}
		if code := thief.ask(stun.MethodRefresh, attr(attrMobilityTicket, 1, 2, 3)); code != 400 {
			t.Errorf("a guessed ticket: %d, want 400", code)
		}

		n := s.raw(t, "udp")
		n.username, n.password = c.username, c.password
		if code := n.ask(stun.MethodRefresh, attr(attrMobilityTicket, ticket...)); code != 0 {
			t.Fatalf("from %s: Refresh from another address: %d", from, code)
		}
		next, err := n.last.Get(attrMobilityTicket)
		if err != nil || string(next) == string(ticket) {
			t.Errorf("the new ticket is %x, %v", next, err)
		}
		frame := []byte{0x40, 0, 0, 4, 'e', 'c', 'h', 'o'}
		n.write(frame)
		if p, err := n.read(5 * time.Second); err != nil || string(p) != string(frame) {
			t.Errorf("from %s: echo at the new address: %x, %v", from, p, err)
		}
		if from == "udp" {
			if code := c.ask(stun.MethodRefresh); code != 437 {
				t.Errorf("the old address: %d, want 437", code)
			}
			if code := c.ask(stun.MethodRefresh, attr(attrMobilityTicket, ticket...)); code != 400 {
				t.Errorf("the old ticket: %d, want 400", code)
			}
		}
		if n := s.AllocationCount(); n != 1 {
			t.Errorf("%d allocations", n)
		}
		if code := n.ask(stun.MethodRefresh, attr(stun.AttrLifetime, 0, 0, 0, 0)); code != 0 {
			t.Fatal(code)
		}
	}
	off := start(t, testConfig())
	if code := off.raw(t, "udp").allocate(attr(attrMobilityTicket)); code != 405 {
		t.Errorf("mobility where there is none: %d, want 405", code)
	}
}

func TestClientsAreSentToAnAlternateServerOfTheirFamily(t *testing.T) {
	cfg := testConfig()
	cfg.Alternates = []netip.AddrPort{
		netip.MustParseAddrPort("[2606:4700::1]:3478"), netip.MustParseAddrPort("10.0.0.1:3478"), netip.MustParseAddrPort("1.1.1.1:3478"),
	}
	s := start(t, cfg)
	for range 3 {
		c := s.raw(t, "udp")
		if code := c.allocate(); code != 300 {
			t.Fatal(code)
		}
		v, err := c.last.Get(stun.AttrAlternateServer)
		if err != nil || len(v) != 8 || netip.AddrFrom4([4]byte(v[4:])).String() != "1.1.1.1" || binary.BigEndian.Uint16(v[2:]) != 3478 {
			t.Errorf("ALTERNATE-SERVER %x, %v", v, err)
		}
	}
	if n := s.AllocationCount(); n != 0 {
		t.Errorf("%d allocations", n)
	}
}

// discoverable is a server with NAT discovery, and its first address.
func discoverable(t *testing.T) (*testServer, netip.AddrPort) {
	t.Helper()
	free := func() uint16 {
		pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer pc.Close()
		return pc.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	}
	cfg := testConfig()
	cfg.Discovery = []netip.AddrPort{
		netip.AddrPortFrom(loopback, free()), netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), free()),
	}
	cfg.ListenUDP = []string{cfg.Discovery[0].String()}
	return start(t, cfg), cfg.Discovery[0]
}

func TestEachOfFourAddressesAnswersForTheOthers(t *testing.T) {
	s, first := discoverable(t)
	other := s.cfg.Discovery[1]
	pc, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	ask := func(to netip.AddrPort, attrs ...stun.Setter) (*stun.Message, netip.AddrPort) {
		t.Helper()
		m := stun.MustBuild(append([]stun.Setter{stun.TransactionID, stun.BindingRequest}, attrs...)...)
		if _, err := pc.WriteToUDPAddrPort(m.Raw, to); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 4096)
		_ = pc.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, from, err := pc.ReadFromUDPAddrPort(buf)
		r := &stun.Message{Raw: buf[:n]}
		if err != nil || r.Decode() != nil {
			t.Fatalf("no answer: %v", err)
		}
		return r, from
	}
	for flags, want := range map[byte]netip.AddrPort{
		0: first, changePort: netip.AddrPortFrom(first.Addr(), other.Port()), changeHost: netip.AddrPortFrom(other.Addr(), first.Port()),
		changeHost | changePort: other,
	} {
		r, from := ask(first, attr(stun.AttrChangeRequest, 0, 0, 0, flags))
		var origin stun.ResponseOrigin
		var otherAddress stun.OtherAddress
		if err := origin.GetFrom(r); err != nil || from != want || origin.String() != want.String() {
			t.Errorf("CHANGE-REQUEST %x: from %v, RESPONSE-ORIGIN %v, %v; want %v", flags, from, origin, err, want)
		}
		if err := otherAddress.GetFrom(r); err != nil || otherAddress.String() != other.String() {
			t.Errorf("OTHER-ADDRESS %v, %v", otherAddress, err)
		}
	}
	r, _ := ask(first, attr(stun.AttrPadding, make([]byte, 1000)...))
	if v, err := r.Get(stun.AttrPadding); err != nil || len(v) != 1000 {
		t.Errorf("%d bytes of PADDING, %v", len(v), err)
	}
	for name, attrs := range map[string][]stun.Setter{
		"a short CHANGE-REQUEST":    {attr(stun.AttrChangeRequest, 1)},
		"RESPONSE-PORT and PADDING": {attr(stun.AttrPadding, 0), attr(stun.AttrResponsePort, 0, 1, 0, 0)},
	} {
		if r, _ := ask(first, attrs...); r.Type.Class != stun.ClassErrorResponse {
			t.Errorf("%s: %v", name, r)
		}
	}
}

func TestAProxysWordCountsOnlyIfItIsTrusted(t *testing.T) {
	header := append([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"), 192, 0, 2, 7, 127, 0, 0, 1, 0x30, 0x39, 0x0d, 0x96)
	for _, trusted := range []bool{true, false} {
		cfg := testConfig()
		if trusted {
			cfg.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		}
		s := start(t, cfg)
		c := s.raw(t, "tcp")
		c.write(header)
		c.write(stun.MustBuild(stun.TransactionID, stun.BindingRequest).Raw)
		p, err := c.read(5 * time.Second)
		var mapped stun.XORMappedAddress
		m := &stun.Message{Raw: p}
		if trusted && (err != nil || m.Decode() != nil || mapped.GetFrom(m) != nil || mapped.String() != "192.0.2.7:12345") {
			t.Errorf("trusted: %v, %v", mapped, err)
		}
		if !trusted && err == nil {
			t.Errorf("anybody may say who it is: %x", p)
		}
	}
}

func TestTheClientHearsOfICMPErrorsButNotOfAStorm(t *testing.T) {
	cfg := testConfig()
	cfg.Engine = "linux"
	s := start(t, cfg)
	closed, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	peer := closed.LocalAddr().(*net.UDPAddr).AddrPort()
	closed.Close()
	c := s.raw(t, "udp")
	if code := c.allocate(); code != 0 {
		t.Fatal(code)
	}
	if code := c.permit(peer); code != 0 {
		t.Fatal(code)
	}
	c.sendTo(peer, "anybody?")
	p, err := c.read(5 * time.Second)
	m := &stun.Message{Raw: p}
	if err != nil || m.Decode() != nil || m.Type != stun.NewType(stun.MethodData, stun.ClassIndication) {
		t.Fatalf("%x, %v", p, err)
	}
	v, _ := m.Get(0x8004)
	if want := []byte{0, 0, 3 << 1, 3, 0, 0, 0, 0}; string(v) != string(want) { // destination unreachable, port unreachable
		t.Errorf("ICMP %x, want %x", v, want)
	}
	from, ok := stunmsg.XORAddress(func() []byte { v, _ := m.Get(stun.AttrXORPeerAddress); return v }(), m.TransactionID[:])
	if !ok || from != peer {
		t.Errorf("about %v, want %v", from, peer)
	}
	// A packet after an error goes out as if there had been none.
	alive := echo(t)
	if code := c.bind(0x4000, alive); code != 0 {
		t.Fatal(code)
	}
	heard := 0
	for range 200 {
		c.sendTo(peer, "anybody?")
	}
	c.write([]byte{0x40, 0, 0, 4, 'e', 'c', 'h', 'o'})
	for {
		p, err := c.read(5 * time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if p[0] == 0x40 {
			break
		}
		heard++
	}
	if heard > 3*10 { // ten a second
		t.Errorf("%d errors were passed on", heard)
	}
	eventually(t, "the others are counted", func() bool { return s.plane.Counts.Dropped[relay.DropICMP].Load() > 0 })
}
