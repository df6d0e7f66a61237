// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"testing"
	"time"

	"github.com/pion/stun/v4"

	"github.com/trunkboard/trunkboard/turn/relay"
)

func TestAnOriginLeadsToItsRealmWithItsOwnQuotas(t *testing.T) {
	cfg := testConfig()
	cfg.UserQuota = 5
	cfg.Realms = []Realm{
		{Name: "red", Origins: []string{"https://red.example"}, UserQuota: 1, TotalQuota: 2},
		{Name: "blue", Origins: []string{"https://blue.example"}},
	}
	s := start(t, cfg)
	allocate := func(origin string, user string) (*rawClient, int) {
		c := s.raw(t, "udp")
		cred := s.creds.Issue(user, "D", time.Hour)
		c.username, c.password = cred.Username, cred.Credential
		return c, c.allocate(attr(stun.AttrOrigin, []byte(origin)...))
	}
	red, code := allocate("https://RED.example", "@a:x")
	if code != 0 || red.realm != "red" {
		t.Fatalf("%d in realm %q", code, red.realm)
	}
	for _, c := range []struct {
		origin, user, realm string
		want                int
	}{
		{"https://red.example", "@a:x", "red", 486},
		{"https://red.example", "@b:x", "red", 0},
		{"https://red.example", "@c:x", "red", 508},
		{"https://blue.example", "@a:x", "blue", 0},
		{"https://blue.example", "@a:x", "blue", 0},
		{"https://other.example", "@a:x", "turn", 0},
	} {
		got, code := allocate(c.origin, c.user)
		if code != c.want || got.realm != c.realm {
			t.Errorf("%s %s: %d in realm %q, want %d in %q", c.origin, c.user, code, got.realm, c.want, c.realm)
		}
	}
	// A realm that is not the origin's is not to be had.
	c := s.raw(t, "udp")
	c.allocate()
	c.realm = "red"
	if code := c.askOnce(stun.MethodAllocate, wantUDP, attr(stun.AttrOrigin, []byte("https://blue.example")...)); code != 401 {
		t.Errorf("red by way of blue: %d, want 401", code)
	}
	// A log-out ends the allocations of every realm.
	s.creds.Revoke("@a:x", "")
	eventually(t, "only @b:x is left", func() bool { return s.AllocationCount() == 2 })
}

func TestBandwidthIsSharedByAUserAndByAll(t *testing.T) {
	clock := newClock()
	cfg := testConfig()
	cfg.Clock, cfg.UserBandwidth, cfg.Bandwidth = clock, 3000, 5000
	s := start(t, cfg)
	peer := echo(t)
	frame := make([]byte, 4+500)
	copy(frame, []byte{0x40, 0, 500 >> 8, 500 & 0xff})
	count := func() (relayed, dropped uint64) {
		return s.plane.Counts.ToPeer.Packets.Load() + s.plane.Counts.ToClient.Packets.Load(), s.plane.Counts.Dropped[relay.DropBandwidth].Load()
	}
	// flood sends packets one by one until one is not let through.
	flood := func(c *rawClient) {
		for range 50 {
			sent, dropped := count()
			c.write(frame)
			eventually(t, "the packet is there and back, or dropped", func() bool {
				s, d := count()
				return s == sent+2 || d > dropped
			})
			if _, d := count(); d > dropped {
				return
			}
		}
		t.Error("50 packets were let through")
	}
	users := []string{"@a:x", "@a:x", "@b:x"}
	total := uint64(0)
	for i, want := range []uint64{5, 0, 4} { // of 500 bytes, with 4 of header on the way back
		c := s.raw(t, "udp")
		cred := s.creds.Issue(users[i], "D", time.Hour)
		c.username, c.password = cred.Username, cred.Credential
		if code := c.allocate(); code != 0 {
			t.Fatal(code)
		}
		if code := c.bind(0x4000, peer); code != 0 {
			t.Fatal(code)
		}
		flood(c)
		n, _ := count()
		if n-total != want {
			t.Errorf("client %d relayed %d packets, want %d", i, n-total, want)
		}
		total = n
	}
	clock.Advance(time.Second)
	_, dropped := count()
	sent, _ := count()
	c := s.raw(t, "udp")
	if code := c.allocate(); code != 0 {
		t.Fatal(code)
	}
	if code := c.bind(0x4000, peer); code != 0 {
		t.Fatal(code)
	}
	c.write(frame)
	eventually(t, "a second later there is room", func() bool { n, d := count(); return n == sent+2 && d == dropped })
}
