// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"log/slog"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/stun/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
)

// closedRanges are 24 ranges that relays are misused to reach, with an address of each.
var closedRanges = map[string]string{
	"127.0.0.0/8": "127.0.0.2", "0.0.0.0/8": "0.0.0.0", "10.0.0.0/8": "10.1.2.3", "172.16.0.0/12": "172.31.255.1", "192.168.0.0/16": "192.168.1.1",
	"169.254.0.0/16": "169.254.169.254", "100.64.0.0/10": "100.127.1.1", "192.0.0.0/24": "192.0.0.8", "198.18.0.0/15": "198.19.0.1",
	"224.0.0.0/4": "239.1.2.3", "240.0.0.0/4": "250.1.1.1", "broadcast": "255.255.255.255", "::": "::", "::1": "::1", "fe80::/10": "febf::1",
	"fc00::/7": "fd00::1", "fec0::/10": "fec0::1", "ff00::/8": "ff02::1", "2001:db8::/32": "2001:db8::7", "IPv4-mapped": "::ffff:10.0.0.1",
	"IPv4-compatible": "::10.0.0.1", "NAT64": "64:ff9b::a9fe:a9fe", "6to4": "2002:a00:1::1", "Teredo": "2001::a00:1",
}

func TestNinetySixChecksOfRangesAndMethods(t *testing.T) {
	cfg := strictConfig()
	// The relays are on addresses of their own, so that ::1 and 127.0.0.2 are not the relay's.
	cfg.Relays = []RelayAddress{{Local: loopback}, {Local: netip.IPv6Loopback(), External: netip.MustParseAddr("2606:4700::9")}}
	cfg.TCPRelays = true
	s := start(t, cfg)
	clients := map[string]map[byte]*rawClient{"udp": {}, "tcp": {}}
	for transport, of := range clients {
		for _, family := range []byte{familyIPv4, familyIPv6} {
			c := s.raw(t, transport)
			want := wantUDP
			if transport == "tcp" {
				want = wantTCP
			}
			if code := c.ask(stun.MethodAllocate, want, attr(stun.AttrRequestedAddressFamily, family, 0, 0, 0)); code != 0 {
				t.Fatalf("%s, family %d: Allocate: %d", transport, family, code)
			}
			of[family] = c
		}
	}
	checks := 0
	for name, ip := range closedRanges {
		peer, family := netip.AddrPortFrom(netip.MustParseAddr(ip), 80), byte(familyIPv6)
		if peer.Addr().Is4() {
			family = familyIPv4
		}
		over := clients["udp"][family]
		own := peer.Addr() == netip.IPv6Loopback() // here the address of the relay itself: permitted, but nothing gets to a port that is no relay
		if code := over.permit(peer); code != 403 && !own {
			t.Errorf("%s: CreatePermission: %d, want 403", name, code)
		}
		if code := over.bind(0x4000, peer); code != 403 {
			t.Errorf("%s: ChannelBind: %d, want 403", name, code)
		}
		over.sendTo(peer, "x") // never answered; looked at below
		if code := clients["tcp"][family].ask(stun.MethodConnect, peerAttr(peer)); code != 403 {
			t.Errorf("%s: Connect: %d, want 403", name, code)
		}
		checks += 4
	}
	if checks != 96 {
		t.Errorf("%d checks", checks)
	}
	for _, c := range clients["udp"] {
		if code := c.ask(stun.MethodRefresh); code != 0 { // an answer behind all indications
			t.Fatal(code)
		}
	}
	if n := s.plane.Counts.ToPeer.Packets.Load(); n != 0 {
		t.Errorf("%d packets of Send indications left", n)
	}
}

// strangersRequests are what somebody without credentials may send to have the answer go elsewhere.
func strangersRequests() map[string]*stun.Message {
	out := map[string]*stun.Message{
		"Binding":                           stun.MustBuild(stun.TransactionID, stun.BindingRequest),
		"Binding with an unknown attribute": stun.MustBuild(stun.TransactionID, stun.BindingRequest, attr(0x7abc)),
	}
	for _, method := range []stun.Method{stun.MethodAllocate, stun.MethodRefresh, stun.MethodCreatePermission, stun.MethodChannelBind,
		stun.MethodConnect, stun.MethodConnectionBind, stun.Method(0x0fff), stun.Method(0)} {
		kind := stun.NewType(method, stun.ClassRequest)
		name := method.String()
		out[name+", bare"] = stun.MustBuild(stun.TransactionID, kind)
		out[name+", smallest attribute"] = stun.MustBuild(stun.TransactionID, kind, attr(0x8022))
		out[name+", transport"] = stun.MustBuild(stun.TransactionID, kind, wantUDP)
		out[name+", fingerprint"] = stun.MustBuild(stun.TransactionID, kind, stun.Fingerprint)
		out[name+", integrity alone"] = stun.MustBuild(stun.TransactionID, kind, stun.MessageIntegrity("k"))
		out[name+", forged nonce"] = stun.MustBuild(stun.TransactionID, kind, stun.NewUsername("1:x"), stun.NewRealm("turn"), stun.NewNonce("AAAAAAAA"), stun.MessageIntegrity("k"))
		out[name+", another realm"] = stun.MustBuild(stun.TransactionID, kind, stun.NewUsername("x"), stun.NewRealm("x"), stun.NewNonce("x"), stun.MessageIntegrity("k"))
	}
	return out
}

func TestNoAnswerToAStrangerIsMoreThanHalfAsLongAgain(t *testing.T) {
	s := start(t, testConfig())
	const headers = 28 // of IPv4 and UDP, which a reflector sends as well
	c := s.raw(t, "udp")
	answered := 0
	for name, m := range strangersRequests() {
		if strings.HasSuffix(name, "smallest attribute") && len(m.Raw) > 24 {
			t.Errorf("%s: %d bytes", name, len(m.Raw))
		}
		c.write(m.Raw)
		// A Binding request behind it is answered always, so that it is known when nothing comes.
		last := stun.MustBuild(stun.TransactionID, stun.BindingRequest)
		c.write(last.Raw)
		for {
			p, err := c.read(time.Minute)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if bytes.Equal(p[8:20], last.TransactionID[:]) {
				break
			}
			answered++
			if got, limit := headers+len(p), 1.5*float64(headers+len(m.Raw)); float64(got) > limit {
				t.Errorf("%s: %d bytes answer %d, more than 1.5 times as much", name, got, headers+len(m.Raw))
			}
		}
	}
	if answered < 30 {
		t.Errorf("only %d requests were answered", answered)
	}
}

func TestARefreshLivesNoLongerThanTheLongestAndZeroEndsAtOnce(t *testing.T) {
	s := start(t, testConfig())
	c := s.raw(t, "udp")
	if code := c.allocate(); code != 0 {
		t.Fatal(code)
	}
	for asked, want := range map[string]string{"\xff\xff\xff\xff": "\x00\x00\x0e\x10", "\x00\x00\x00\x01": "\x00\x00\x02\x58", "\x80\x00\x00\x00": "\x00\x00\x0e\x10"} {
		if code := c.ask(stun.MethodRefresh, attr(stun.AttrLifetime, []byte(asked)...)); code != 0 {
			t.Fatal(code)
		}
		if v, _ := c.last.Get(stun.AttrLifetime); string(v) != want {
			t.Errorf("for %x: lifetime %x, want %x", asked, v, want)
		}
	}
	if code := c.ask(stun.MethodRefresh, attr(stun.AttrLifetime, 0, 0, 0)); code != 400 {
		t.Errorf("three bytes: %d, want 400", code)
	}
	if n := s.AllocationCount(); n != 1 {
		t.Errorf("%d allocations", n)
	}
	if code := c.ask(stun.MethodRefresh, attr(stun.AttrLifetime, 0, 0, 0, 0)); code != 0 || s.AllocationCount() != 0 {
		t.Errorf("lifetime 0: %d, and %d allocations are left", code, s.AllocationCount())
	}
}

func TestANonceOfAnotherServerOrOfBeforeARestartIsStale(t *testing.T) {
	before := start(t, testConfig())
	c := before.raw(t, "udp")
	if code := c.allocate(); code != 0 {
		t.Fatal(code)
	}
	after := start(t, testConfig())
	d := after.raw(t, "udp")
	d.username, d.password, d.realm, d.nonce = c.username, c.password, c.realm, c.nonce
	if code := d.askOnce(stun.MethodAllocate, wantUDP); code != 438 {
		t.Errorf("%d, want 438", code)
	}
	if !d.challenged() {
		t.Fatal("no new nonce with the answer")
	}
	if code := d.askOnce(stun.MethodAllocate, wantUDP); code != 0 {
		t.Errorf("with the new nonce: %d", code)
	}
}

func TestDamagedFingerprintsAndCookiesGetNoAnswer(t *testing.T) {
	s := start(t, testConfig())
	c := s.raw(t, "udp")
	if code := c.allocate(); code != 0 {
		t.Fatal(code)
	}
	good := c.build(stun.MethodRefresh, attr(stun.AttrLifetime, 0, 0, 0, 0))
	fingerprint := append([]byte(nil), good.Raw...)
	fingerprint[len(fingerprint)-1] ^= 1
	cookie := append([]byte(nil), good.Raw...)
	cookie[4] ^= 1 // RFC 3489 knew none
	for name, p := range map[string][]byte{"fingerprint": fingerprint, "cookie": cookie, "length": append(append([]byte(nil), good.Raw...), 0)} {
		c.write(p)
		last := stun.MustBuild(stun.TransactionID, stun.BindingRequest)
		c.write(last.Raw)
		if p, err := c.read(time.Minute); err != nil || !bytes.Equal(p[8:20], last.TransactionID[:]) {
			t.Errorf("%s: answered with %x, %v", name, p, err)
		}
	}
	if n := s.AllocationCount(); n != 1 {
		t.Errorf("%d allocations are left: something of it was done", n)
	}
}

// lockedBuffer is a log that several goroutines write.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestNoSecretStandsInTheLogOrInTheMetrics(t *testing.T) {
	creds, err := NewCredentials(CredentialsConfig{Secrets: []string{secret}})
	if err != nil {
		t.Fatal(err)
	}
	user, err := NewLongTermUser("turn", "ann", "wonderland")
	if err != nil {
		t.Fatal(err)
	}
	if err := creds.SetUsers([]LongTermUser{user}); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig()
	cfg.Mobility, cfg.OAuth = true, OAuth{Server: "s", Keys: map[string][]byte{"kid": oauthKey}}
	var log lockedBuffer
	reg := prometheus.NewRegistry()
	inner, err := New(cfg, creds, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})), reg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- inner.Run(ctx) }()
	s := &testServer{Server: inner, creds: creds, clock: inner.cfg.Clock}
	peer := echo(t)
	c := s.raw(t, "udp")
	if code := c.allocate(attr(attrMobilityTicket)); code != 0 {
		t.Fatal(code)
	}
	ticket, err := c.last.Get(attrMobilityTicket)
	if err != nil {
		t.Fatal(err)
	}
	ticket = bytes.Clone(ticket)
	if code := c.bind(0x4000, peer); code != 0 {
		t.Fatal(code)
	}
	c.write([]byte{0x40, 0, 0, 8, 'w', 'h', 'i', 's', 'p', 'e', 'r', 's'})
	if _, err := c.read(time.Minute); err != nil {
		t.Fatal(err)
	}
	bad := s.raw(t, "udp")
	bad.username, bad.password = "ann", "not her password"
	if code := bad.allocate(); code != 401 {
		t.Fatal(code)
	}
	ann := s.raw(t, "tcp")
	ann.username, ann.password = "ann", "wonderland"
	if code := ann.allocate(); code != 0 {
		t.Fatal(code)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&log, f); err != nil {
			t.Fatal(err)
		}
	}
	creds.Revoke("@alice:example.org", "")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	text := log.String()
	if !strings.Contains(text, "turn: allocated") || !strings.Contains(text, "trunkboard_turn_allocations 2") {
		t.Fatalf("the log and the metrics are not there:\n%s", text)
	}
	key := stun.NewLongTermIntegrity(c.username, c.realm, c.password)
	for name, hidden := range map[string]string{
		"the shared secret": secret, "a REST password": c.password, "the user name it belongs to": c.username, "a password": "wonderland", "a wrong password": "not her",
		"a key": hex.EncodeToString(key), "a key in base64": base64.StdEncoding.EncodeToString(key), "a long-term key": hex.EncodeToString(user.Key[:]),
		"a mobility ticket": string(ticket), "a payload": "whispers", "a token's key": string(oauthKey),
	} {
		if strings.Contains(text, hidden) {
			t.Errorf("%s stands in it:\n%s", name, text)
		}
	}
}

// TestSecretsAreComparedInConstantTime looks at the source: a clock would not tell on a busy machine. Nonces and integrities are compared
// with hmac.Equal, by us and by the codec, and nothing here compares bytes in any other way.
func TestSecretsAreComparedInConstantTime(t *testing.T) {
	calls := func(file string) map[string]int {
		tree, err := parser.ParseFile(gotoken.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		out := make(map[string]int)
		ast.Inspect(tree, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				if sel, ok := call.Fun.(*ast.SelectorExpr); ok {
					if pkg, ok := sel.X.(*ast.Ident); ok {
						out[pkg.Name+"."+sel.Sel.Name]++
					}
				}
			}
			return true
		})
		return out
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if found := calls(file); !strings.HasSuffix(file, "_test.go") && found["bytes.Equal"]+found["bytes.Compare"]+found["slices.Equal"]+found["reflect.DeepEqual"] > 0 {
			t.Errorf("%s compares bytes as fast as they differ", file)
		}
	}
	if calls("nonce.go")["hmac.Equal"] == 0 {
		t.Error("nonces are not compared with hmac.Equal")
	}
	codec, err := exec.Command("go", "list", "-f", "{{.Dir}}", "github.com/pion/stun/v4").Output()
	if err != nil {
		t.Fatal(err)
	}
	files, err = filepath.Glob(filepath.Join(strings.TrimSpace(string(codec)), "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("the codec's source: %v", err)
	}
	equal := 0
	for _, file := range files {
		if !strings.HasSuffix(file, "_test.go") {
			equal += calls(file)["hmac.Equal"] + calls(file)["subtle.ConstantTimeCompare"]
		}
	}
	if equal == 0 {
		t.Error("the codec's integrity check is not in constant time")
	}
}
