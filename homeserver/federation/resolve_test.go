// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/signalling"
)

// wellKnown lets host answer with h on port 443.
func (w *world) wellKnown(host string, h http.HandlerFunc) {
	s := w.listen(host, h, w.certificate(host, time.Now().Add(time.Hour)))
	w.mu.Lock()
	defer w.mu.Unlock()
	ip := netip.AddrFrom4([4]byte{127, 1, 0, byte(len(w.https) + 1)})
	w.hosts[host] = []netip.Addr{ip}
	w.https[ip.String()+":443"] = s.Listener.Addr().String()
}

func says(server string) http.HandlerFunc { return reply(map[string]string{"m.server": server}) }

func TestServersAreFoundAsTheSpecSays(t *testing.T) {
	w := newWorld(t)
	s := w.ours("here.test")
	w.srv["_matrix-fed._tcp.srv.test"] = &net.SRV{Target: "a.host.", Port: 1}
	w.srv["_matrix._tcp.old.test"] = &net.SRV{Target: "b.host.", Port: 2}
	w.srv["_matrix-fed._tcp.target.test"] = &net.SRV{Target: "c.host.", Port: 3}
	w.wellKnown("port.test", says("other.test:99"))
	w.wellKnown("literal.test", says("192.0.2.9"))
	w.wellKnown("delegated.test", says("target.test"))
	w.wellKnown("plain.test", says("nosrv.test"))
	w.wellKnown("broken.test", func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, `{"m.server": "no name/"}`) })
	w.wellKnown("missing.test", http.NotFound)
	w.wellKnown("huge.test", func(rw http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(rw, `{"m.server":"evil.test:1","x":"`+strings.Repeat("x", wellKnownSize)+`"}`)
	})
	w.wellKnown("loop.test", func(rw http.ResponseWriter, r *http.Request) {
		http.Redirect(rw, r, "/again"+r.URL.Path, http.StatusFound)
	})
	w.wellKnown("moved.test", func(rw http.ResponseWriter, r *http.Request) {
		http.Redirect(rw, r, "https://port.test"+r.URL.Path, http.StatusFound)
	})
	w.wellKnown("downgrade.test", func(rw http.ResponseWriter, r *http.Request) {
		http.Redirect(rw, r, "http://port.test"+r.URL.Path, http.StatusFound)
	})
	for name, want := range map[string]Place{
		"192.0.2.1":       {"192.0.2.1", "192.0.2.1", []Target{{"192.0.2.1", 8448}}},
		"192.0.2.1:1":     {"192.0.2.1:1", "192.0.2.1", []Target{{"192.0.2.1", 1}}},
		"[2001:db8::1]":   {"[2001:db8::1]", "2001:db8::1", []Target{{"2001:db8::1", 8448}}},
		"[2001:db8::1]:8": {"[2001:db8::1]:8", "2001:db8::1", []Target{{"2001:db8::1", 8}}},
		"name.test:80":    {"name.test:80", "name.test", []Target{{"name.test", 80}}},
		"srv.test":        {"srv.test", "srv.test", []Target{{"a.host", 1}}},
		"old.test":        {"old.test", "old.test", []Target{{"b.host", 2}}},
		"none.test":       {"none.test", "none.test", []Target{{"none.test", 8448}}},
		"port.test":       {"other.test:99", "other.test", []Target{{"other.test", 99}}},
		"literal.test":    {"192.0.2.9", "192.0.2.9", []Target{{"192.0.2.9", 8448}}},
		"delegated.test":  {"target.test", "target.test", []Target{{"c.host", 3}}},
		"plain.test":      {"nosrv.test", "nosrv.test", []Target{{"nosrv.test", 8448}}},
		"broken.test":     {"broken.test", "broken.test", []Target{{"broken.test", 8448}}},
		"missing.test":    {"missing.test", "missing.test", []Target{{"missing.test", 8448}}},
		"huge.test":       {"huge.test", "huge.test", []Target{{"huge.test", 8448}}},
		"loop.test":       {"loop.test", "loop.test", []Target{{"loop.test", 8448}}},
		"moved.test":      {"other.test:99", "other.test", []Target{{"other.test", 99}}},
		"downgrade.test":  {"downgrade.test", "downgrade.test", []Target{{"downgrade.test", 8448}}},
	} {
		got, err := s.Client.resolver.resolve(context.Background(), name)
		if d := cmp.Diff(want, got); err != nil || d != "" {
			t.Errorf("%s: %v\n%s", name, err, d)
		}
	}
	for _, name := range []string{"", ":1", "a b", "a/b", "a:0", "a:99999", "a:+1", "a:1:2", "[::1", "[::1]x", "[1.2.3.4]", "[fe80::1%eth0]", "ä.test", strings.Repeat("a", 256), "a\x00"} {
		if p, err := s.Client.resolver.resolve(context.Background(), name); err == nil {
			t.Errorf("%q is a name: %+v", name, p)
		}
	}
}

func TestDelegationIsKeptForNoLongerThanTwoDaysAndOutlivesAnOutage(t *testing.T) {
	for header, want := range map[string]time.Duration{
		"": delegationDef, "max-age=3600": time.Hour, "public, Max-Age=2592000": delegationMax, "max-age=1": delegationMin, "no-store": delegationMin, "max-age=x": delegationDef,
	} {
		if got := cacheLife(http.Header{"Cache-Control": {header}}); got != want {
			t.Errorf("%q: %s, want %s", header, got, want)
		}
	}
	w := newWorld(t)
	s := w.ours("here.test")
	down := false
	w.wellKnown("name.test", func(rw http.ResponseWriter, r *http.Request) {
		if down {
			http.Error(rw, "no", http.StatusBadGateway)
			return
		}
		says("other.test:1")(rw, r)
	})
	for range 2 {
		if p, err := s.Client.resolver.resolve(context.Background(), "name.test"); err != nil || p.Host != "other.test:1" {
			t.Errorf("%+v, %v", p, err)
		}
		down = true
		w.clock.Advance(delegationMax + time.Second)
	}
}

func TestNoRequestLeavesForAnAddressThatIsNotPublic(t *testing.T) {
	w := newWorld(t)
	p := w.peer("there.test")
	s := w.ours("here.test", func(c *Config) { c.Allow = nil })
	reached := false
	w.wellKnown("inside.test", func(http.ResponseWriter, *http.Request) { reached = true })
	w.hosts["rebound.test"] = []netip.Addr{netip.MustParseAddr("169.254.169.254"), netip.MustParseAddr("::ffff:127.0.0.1")}
	port := strconv.Itoa(p.port)
	for _, name := range []string{
		"there.test", "127.0.0.1:" + port, "[::ffff:127.0.0.1]:" + port, "[::1]:" + port, "10.0.0.1", "169.254.169.254:80", "[64:ff9b::7f00:1]:" + port, "rebound.test:" + port, "inside.test",
	} {
		_, err := s.Client.Do(context.Background(), Ask{Server: name, Path: "/_matrix/key/v2/server"})
		var u *Unreachable
		if !errors.As(err, &u) || !strings.Contains(err.Error(), "not a public address") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if reached || p.count("/_matrix/key/v2/server") != 0 {
		t.Error("a request went out")
	}
}

func TestOnlyAServerWithItsOwnCertificateIsSpokenWith(t *testing.T) {
	w := newWorld(t)
	s := w.ours("here.test")
	ok := func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "{}") }
	stranger := newWorld(t)
	for name, cert := range map[string]tls.Certificate{
		"expired.test": w.certificate("expired.test", time.Now().Add(-time.Minute)), "wrong.test": w.certificate("right.test", time.Now().Add(time.Hour)),
		"unknown.test": stranger.certificate("unknown.test", time.Now().Add(time.Hour)),
	} {
		srv := w.listen(name, http.HandlerFunc(ok), cert)
		host, port, _ := net.SplitHostPort(srv.Listener.Addr().String())
		n, _ := strconv.Atoi(port)
		w.srv["_matrix-fed._tcp."+name], w.hosts["at."+name] = &net.SRV{Target: "at." + name, Port: uint16(n)}, []netip.Addr{netip.MustParseAddr(host)}
		_, err := s.Client.Do(context.Background(), Ask{Server: name, Path: "/"})
		var bad *tls.CertificateVerificationError
		if !errors.As(err, &bad) {
			t.Errorf("%s: %v", name, err)
		}
	}
	srv := w.listen("127.0.0.1", http.HandlerFunc(ok), w.certificate("127.0.0.1", time.Now().Add(time.Hour)))
	if _, err := s.Client.Do(context.Background(), Ask{Server: srv.Listener.Addr().String(), Path: "/"}); err != nil {
		t.Errorf("an address with its own certificate: %v", err)
	}
}

func TestAnswersAreBoundedAndRefusalsKeepTheirCode(t *testing.T) {
	w := newWorld(t)
	s, p := w.ours("here.test"), w.peer("there.test")
	p.mux.HandleFunc("/long", func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, strings.Repeat("x", 2000)) })
	p.mux.HandleFunc("/bomb", func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Encoding", "gzip")
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = z.Write(make([]byte, 64<<20))
		_ = z.Close()
		_, _ = rw.Write(b.Bytes())
	})
	p.mux.HandleFunc("/moved", func(rw http.ResponseWriter, r *http.Request) { http.Redirect(rw, r, "/long", http.StatusFound) })
	p.mux.HandleFunc("/no", func(rw http.ResponseWriter, _ *http.Request) {
		rw.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(rw, `{"errcode":"M_FORBIDDEN","error":"you may not"}`)
	})
	p.mux.HandleFunc("/page", func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusTeapot) })
	stop := make(chan struct{})
	p.mux.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-stop:
		case <-r.Context().Done():
		}
	})
	defer close(stop)
	for path, want := range map[string]struct {
		status int
		code   string
		gone   bool
	}{"/long": {502, "M_UNKNOWN", true}, "/bomb": {502, "M_UNKNOWN", true}, "/moved": {502, "M_UNKNOWN", true}, "/no": {403, "M_FORBIDDEN", false}, "/page": {502, "M_UNKNOWN", true}, "/slow": {502, "M_UNKNOWN", true}} {
		_, err := s.Client.Do(context.Background(), Ask{Server: "there.test", Path: path, Limit: 1999, Timeout: 300 * time.Millisecond})
		e := signalling.AsError(err)
		var u *Unreachable
		if e.Status != want.status || e.Code != want.code || errors.As(err, &u) != want.gone {
			t.Errorf("%s: %v", path, err)
		}
	}
	if body, err := s.Client.Do(context.Background(), Ask{Server: "there.test", Path: "/long", Limit: 2000}); err != nil || len(body) != 2000 {
		t.Errorf("%d bytes, %v", len(body), err)
	}
}

func TestServersMayBeAllowedAndDenied(t *testing.T) {
	w := newWorld(t)
	p := w.peer("there.test")
	h := p.request(t, "here.test", "GET", "/x", nil)
	for _, x := range []struct {
		allow, deny []string
		good        bool
	}{{nil, nil, true}, {[]string{"there.test"}, nil, true}, {[]string{"*.test"}, nil, true}, {[]string{"other.test"}, nil, false}, {nil, []string{"THERE.test"}, false}, {[]string{"*"}, []string{"*.test"}, false}, {nil, []string{"here.test"}, true}} {
		s := w.ours("here.test", func(c *Config) { c.AllowServers, c.DenyServers = x.allow, x.deny })
		_, err := s.Authenticate(context.Background(), []string{h}, "GET", "/x", nil)
		_, asked := s.Client.Do(context.Background(), Ask{Server: "there.test", Path: "/_matrix/key/v2/server"})
		if (err == nil) != x.good || (asked == nil) != x.good {
			t.Errorf("allow %v, deny %v: in %v, out %v", x.allow, x.deny, err, asked)
		}
	}
}

func FuzzServerName(f *testing.F) {
	for _, s := range []string{"a.test:8448", "[::1]:1", "1.2.3.4"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := parseName(s)
		if err != nil {
			return
		}
		if again, err := parseName(hostPort(n.host, n.port)); err != nil || again != n {
			t.Errorf("%q: %+v, then %+v, %v", s, n, again, err)
		}
	})
}

// stuckDNS does not answer until it is let go, and tells what it is asked for.
type stuckDNS struct {
	asked chan string
	free  chan struct{}
}

func (d stuckDNS) LookupSRV(ctx context.Context, _, _, name string) (string, []*net.SRV, error) {
	d.asked <- name
	select {
	case <-d.free:
		return "", []*net.SRV{{Target: "found." + name, Port: 1}}, nil
	case <-ctx.Done():
		return "", nil, ctx.Err()
	}
}

func (d stuckDNS) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	return nil, &net.DNSError{Name: host, IsNotFound: true}
}

func TestWhereStrangersNameServersSoManyAreLookedForAtATime(t *testing.T) {
	dns := stuckDNS{asked: make(chan string, 8), free: make(chan struct{})}
	c := NewUnsigned("here.test", Config{}, dns, signalling.SystemClock{})
	defer c.Close()
	if cap(c.resolver.slots) != maxFinding {
		t.Errorf("%d", cap(c.resolver.slots))
	}
	c.resolver.slots = make(chan struct{}, 1)
	found := make(chan error, 2)
	for _, name := range []string{"one.test", "two.test"} {
		go func() {
			_, err := c.resolver.resolve(t.Context(), name)
			found <- err
		}()
	}
	first := <-dns.asked
	impatient, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := c.resolver.resolve(impatient, "three.test"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the third one: %v", err)
	}
	select {
	case second := <-dns.asked:
		t.Errorf("%s is looked for beside %s", second, first)
	default:
	}
	close(dns.free)
	for range 2 {
		select {
		case err := <-found:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(60 * time.Second):
			t.Fatal("who waited was not looked for")
		}
	}
}
