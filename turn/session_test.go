// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pion/stun/v4"
)

// events keeps what a server tells of its sessions.
type events struct {
	mu  sync.Mutex
	all []SessionEvent
}

func (e *events) add(x SessionEvent) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, x)
}

func (e *events) of(id uint64) (out []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, x := range e.all {
		if x.ID == id {
			out = append(out, x.What)
		}
	}
	return out
}

func TestSessionsAreListedToldAndEnded(t *testing.T) {
	var told events
	cfg := testConfig()
	cfg.Mobility, cfg.Notify = true, told.add
	s := start(t, cfg)
	peer := echo(t)
	as := func(user, device, transport string) *rawClient {
		c := s.raw(t, transport)
		cred := s.creds.Issue(user, device, time.Hour)
		c.username, c.password = cred.Username, cred.Credential
		if code := c.allocate(attr(attrMobilityTicket)); code != 0 {
			t.Fatal(code)
		}
		return c
	}
	ann, ben := as("@ann:x", "PHONE", "udp"), as("@ben:x", "LAPTOP", "tcp")
	if code := ann.bind(0x4000, peer); code != 0 {
		t.Fatal(code)
	}
	ann.write([]byte{0x40, 0, 0, 4, 1, 2, 3, 4})
	if _, err := ann.read(time.Minute); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the way back is counted", func() bool { return s.Sessions()[0].ToClient.Packets == 1 })
	list := s.Sessions()
	if len(list) != 2 {
		t.Fatalf("%+v", list)
	}
	x, y := list[0], list[1]
	if x.User != "@ann:x" || x.Device != "PHONE" || x.Realm != "turn" || x.Transport != "udp" || x.Client.String() != ann.conn.LocalAddr().String() ||
		x.Server != s.Addrs().UDP[0] || !slices.Equal(x.Relays, []netip.AddrPort{ann.relayed}) || x.ToPeer != (Amount{1, 4}) || x.ToClient != (Amount{1, 4}) ||
		!x.Expires.After(x.Started) || x.Username() != ann.username {
		t.Errorf("%+v", x)
	}
	if y.Transport != "tcp" || y.Server != s.Addrs().TCP[0] || y.Client.String() != ben.conn.LocalAddr().String() || y.ID == x.ID {
		t.Errorf("%+v", y)
	}
	if code := ann.ask(stun.MethodRefresh); code != 0 {
		t.Fatal(code)
	}
	if n := s.EndSessions(func(x Session) bool { return x.ID == y.ID }); n != 1 {
		t.Errorf("%d sessions ended, want 1", n)
	}
	if _, err := ben.read(time.Minute); err == nil {
		t.Error("the connection of the session that was ended is still open")
	}
	if n := s.EndSessions(func(Session) bool { return false }); n != 0 || s.AllocationCount() != 1 {
		t.Errorf("%d ended for no reason, %d left", n, s.AllocationCount())
	}
	// A session that moves is the same one elsewhere.
	if code := ann.ask(stun.MethodRefresh, attr(stun.AttrLifetime, 0, 0, 0, 0)); code != 0 {
		t.Fatal(code)
	}
	eve := as("@eve:x", "PHONE", "udp")
	ticket, err := eve.last.Get(attrMobilityTicket)
	if err != nil {
		t.Fatal(err)
	}
	before := s.Sessions()[0]
	moved := s.raw(t, "tcp")
	moved.username, moved.password = eve.username, eve.password
	if code := moved.ask(stun.MethodRefresh, attr(attrMobilityTicket, append([]byte(nil), ticket...)...)); code != 0 {
		t.Fatal(code)
	}
	if after := s.Sessions()[0]; after.ID != before.ID || after.Transport != "tcp" || after.Client.String() != moved.conn.LocalAddr().String() {
		t.Errorf("before %+v, after %+v", before, after)
	}
	if got := told.of(x.ID); !slices.Equal(got, []string{SessionNew, SessionRefreshed, SessionDeleted}) {
		t.Errorf("of the first session was told %v", got)
	}
	if got := told.of(y.ID); !slices.Equal(got, []string{SessionNew, SessionDeleted}) {
		t.Errorf("of the second session was told %v", got)
	}
}
