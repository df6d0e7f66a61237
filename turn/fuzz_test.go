// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"bytes"
	"io"
	"log/slog"
	"net/netip"
	"testing"

	"github.com/pion/stun/v4"

	"github.com/trunkboard/trunkboard/turn/relay"
	"github.com/trunkboard/trunkboard/turn/stunmsg"
)

// sentSocket keeps what the server answers.
type sentSocket struct{ sent [][]byte }

func (s *sentSocket) Serve(func(*relay.Batch), func(), relay.Socket) {}
func (s *sentSocket) SendRun(_ *relay.Batch, frames [][]byte, to netip.AddrPort) int {
	for _, f := range frames {
		s.Send(f, to, false)
	}
	return len(frames)
}
func (s *sentSocket) Send(p []byte, _ netip.AddrPort, _ bool) bool {
	s.sent = append(s.sent, bytes.Clone(p))
	return true
}
func (s *sentSocket) Addr() netip.AddrPort { return netip.AddrPort{} }
func (s *sentSocket) Close()               {}

// FuzzHandler gives the control plane arbitrary packets, and the same bytes as the attributes of an authenticated request with and
// without an allocation behind it. Whatever comes, the answer is sound STUN and no allocation is left over.
func FuzzHandler(f *testing.F) {
	f.Add(uint8(0), stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodAllocate, stun.ClassRequest), wantUDP, stun.Fingerprint).Raw)
	f.Add(uint8(1), []byte{0, 0x19, 0, 4, 17, 0, 0, 0, 0, 0x18, 0, 1, 0x80, 0, 0, 0})
	f.Add(uint8(2), []byte{0, 0x0d, 0, 4, 0, 0, 0, 0})
	f.Add(uint8(2), []byte{0, 0x0d, 0, 2, 0, 0, 0, 0})
	f.Add(uint8(3), []byte{0, 0x12, 0, 8, 0, 1, 0x21, 0x13, 0x29, 0x1a, 0xac, 0x4a, 0, 0x12, 0, 3, 0, 1, 0, 0})
	f.Add(uint8(4), []byte{0, 0x0c, 0, 4, 0x40, 0, 0, 0, 0, 0x12, 0, 8, 0, 1, 0x21, 0x13, 0x29, 0x1a, 0xac, 0x4a})
	f.Add(uint8(5), []byte{0, 0x12, 0, 8, 0, 1, 0x21, 0x13, 0x29, 0x1a, 0xac, 0x4a, 0, 0x13, 0, 1, 'x', 0, 0, 0})
	creds, err := NewCredentials(CredentialsConfig{Secrets: []string{secret}})
	if err != nil {
		f.Fatal(err)
	}
	cfg := testConfig()
	cfg.ListenTCP, cfg.Allow, cfg.UnauthorizedRate = []string{}, nil, -1
	s, err := New(cfg, creds, slog.New(slog.NewTextHandler(io.Discard, nil)), nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(s.Close)
	cred := creds.Issue("@fuzz:x", "d", 0)
	key := stun.NewLongTermIntegrity(cred.Username, "turn", cred.Credential)
	methods := []stun.Method{0, stun.MethodAllocate, stun.MethodRefresh, stun.MethodCreatePermission, stun.MethodChannelBind}
	f.Fuzz(func(t *testing.T, how uint8, body []byte) {
		sock := &sentSocket{}
		from := netip.MustParseAddrPort("192.0.2.1:5000")
		c := &client{remote: from, transport: "udp", table: new(relay.Table), socket: sock}
		h := newHandler(s)
		nonce := s.nonces.make(s.cfg.Clock.Now(), from, "udp")
		// seal makes an authenticated request of attributes, which may be damaged.
		seal := func(method stun.Method, attributes []byte) []byte {
			m := stun.MustBuild(stun.TransactionID, stun.NewType(method, stun.ClassRequest))
			m.Raw = append(m.Raw, attributes...)
			m.Length = uint32(len(attributes))
			m.Attributes = nil
			for _, a := range []stun.Setter{stun.NewUsername(cred.Username), stun.NewRealm("turn"), stun.Nonce(nonce[:]), key} {
				if a.AddTo(m) != nil {
					return nil
				}
			}
			return m.Raw
		}
		if len(body) > 2000 {
			return
		}
		switch k := how % 6; k {
		case 0:
			h.handle(body, c)
		case 5:
			h.handle(seal(stun.MethodAllocate, []byte{0, 0x19, 0, 4, 17, 0, 0, 0}), c)
			m := stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodSend, stun.ClassIndication))
			m.Raw = append(m.Raw, body...)
			m.Length = uint32(len(body))
			m.WriteLength()
			h.handle(m.Raw, c)
		default:
			h.handle(seal(methods[k], body), c)
			h.handle(seal(stun.MethodAllocate, []byte{0, 0x19, 0, 4, 17, 0, 0, 0}), c)
			h.handle(seal(methods[k], body), c)
		}
		for _, p := range sock.sent {
			if _, ok := stunmsg.Check(p); !ok {
				t.Fatalf("unsound answer %x", p)
			}
		}
		if a := c.allocation(); a != nil {
			s.end(a, "test")
		}
		if n := s.AllocationCount(); n != 0 {
			t.Fatalf("%d allocations are left", n)
		}
	})
}

func FuzzUsername(f *testing.F) {
	f.Add("1800000100:v1:abc:@a%3Ab:d")
	f.Add("1800000100:@a:b")
	f.Add("1800000100:v1:0::")
	c, err := NewCredentials(CredentialsConfig{Clock: newClock()})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(c.Issue("@%3A::%:x", ":%25", 0).Username)
	f.Fuzz(func(t *testing.T, name string) {
		if id, err := c.parse(name); err == nil && id.user == "" {
			t.Fatalf("%q is nobody's", name)
		}
		if name == "" {
			return
		}
		// Whatever an id is made of, it comes back, and belongs to nobody else.
		id, err := c.parse(c.Issue(name, name, 0).Username)
		if err != nil {
			t.Fatalf("id %q: %v", name, err)
		}
		if want := (party{user: unescapeID.Replace(nameOf(name)), device: unescapeID.Replace(nameOf(name))}); id.party != want {
			t.Fatalf("id %q came back as %q", name, id.party)
		}
		if len(name) < longID/3 && name != "" && !bytes.ContainsFunc([]byte(name), func(r rune) bool { return r < ' ' || r == 0x7f }) && id.user != name {
			t.Fatalf("id %q came back as %q", name, id.user)
		}
	})
}
