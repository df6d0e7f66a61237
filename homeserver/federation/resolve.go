// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"github.com/trunkboard/trunkboard/signalling"
)

const (
	defaultPort   = 8448
	resolved      = 4096 // servers whose place is kept
	wellKnownSize = 64 << 10
	wellKnownTime = 10 * time.Second
	maxHops       = 5
	delegationDef = 24 * time.Hour   // without a Cache-Control
	delegationMax = 48 * time.Hour   // whatever the header says
	delegationMin = 5 * time.Minute  // the same
	delegationBad = 10 * time.Minute // for servers without a usable well-known
	srvLife       = 5 * time.Minute
	maxTargets    = 4   // of one SRV record
	maxFinding    = 256 // servers that are looked for at the same time, where strangers name them
)

// DNS is what federation asks name servers; *net.Resolver is one.
type DNS interface {
	LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// serverName is a server name taken apart (appendices, "Server Name").
type serverName struct {
	host string // small letters, without brackets
	port int    // 0: not given
	ip   netip.Addr
}

var dnsName = regexp.MustCompile(`^[A-Za-z0-9.-]{1,255}$`)

func parseName(s string) (n serverName, err error) {
	refuse := signalling.InvalidParam("%q is not the name of a server", s)
	if len(s) > 255 {
		return n, refuse
	}
	host, port, found := s, "", false
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 0 || end+1 < len(s) && s[end+1] != ':' {
			return n, refuse
		}
		if host = s[1:end]; end+1 < len(s) {
			port, found = s[end+2:], true
		}
		if n.ip, err = netip.ParseAddr(host); err != nil || !n.ip.Is6() || n.ip.Zone() != "" {
			return n, refuse
		}
	} else {
		host, port, found = strings.Cut(s, ":")
		if !dnsName.MatchString(host) {
			return n, refuse
		}
		if ip, err := netip.ParseAddr(host); err == nil {
			n.ip = ip
		}
	}
	if found {
		if n.port, err = strconv.Atoi(port); err != nil || len(port) > 5 || n.port < 1 || n.port > 65535 || port[0] == '+' {
			return n, refuse
		}
	}
	n.host = strings.ToLower(host)
	return n, nil
}

// ValidServer says whether a name can be that of a server. Errors: M_INVALID_PARAM.
func ValidServer(name string) error {
	_, err := parseName(name)
	return err
}

// hostOf is the host of a server name in small letters, without a port; a name that cannot be read stays as it is.
func hostOf(server string) string {
	n, err := parseName(server)
	if err != nil {
		return strings.ToLower(server)
	}
	return n.host
}

// hostPort writes a host, an address perhaps, as it stands in a Host header.
func hostPort(host string, port int) string {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if port == 0 {
		return host
	}
	return host + ":" + strconv.Itoa(port)
}

// Place is where a server is found.
type Place struct {
	Host    string   // Host header
	TLSName string   // whose certificate it must show: a name, or an address
	Targets []Target // in the order in which they are tried
}

// Target is a host name or address with a port.
type Target struct {
	Host string
	Port int
}

// resolver finds servers ("Resolving server names").
type resolver struct {
	dns       DNS
	wellKnown *http.Client
	clock     signalling.Clock
	slots     chan struct{} // a place for each server that is looked for; nil: there is no bound

	ask   singleflight.Group
	known *lru.Cache[string, found]
	asked *lru.Cache[string, delegation]
}

type found struct {
	place Place
	err   error
	until time.Time
}

type delegation struct {
	to    string // "": none
	until time.Time
}

func newResolver(dns DNS, wellKnown *http.Client, clock signalling.Clock) *resolver {
	r := &resolver{dns: dns, wellKnown: wellKnown, clock: clock}
	r.known, _ = lru.New[string, found](resolved)
	r.asked, _ = lru.New[string, delegation](resolved)
	return r
}

// resolve finds a server.
func (r *resolver) resolve(ctx context.Context, server string) (Place, error) {
	if f, ok := r.known.Get(server); ok && r.clock.Now().Before(f.until) {
		return f.place, f.err
	}
	c := r.ask.DoChan(server, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*wellKnownTime)
		defer cancel()
		if r.slots != nil {
			select {
			case r.slots <- struct{}{}:
				defer func() { <-r.slots }()
			case <-ctx.Done():
				return Place{}, ctx.Err()
			}
		}
		f := found{until: r.clock.Now().Add(srvLife)}
		if f.place, f.err = r.find(ctx, server); f.err != nil && ctx.Err() != nil {
			return f.place, f.err
		}
		r.known.Add(server, f)
		return f.place, f.err
	})
	select {
	case x := <-c:
		return x.Val.(Place), x.Err
	case <-ctx.Done():
		return Place{}, ctx.Err()
	}
}

func (r *resolver) find(ctx context.Context, server string) (Place, error) {
	n, err := parseName(server)
	if err != nil {
		return Place{}, err
	}
	if n.ip.IsValid() || n.port != 0 { // steps 1 and 2
		return direct(n), nil
	}
	if to := r.delegated(ctx, n.host); to != "" { // step 3
		d, err := parseName(to)
		if err == nil && (d.ip.IsValid() || d.port != 0) {
			return direct(d), nil
		}
		if err == nil {
			return r.bySRV(ctx, d)
		}
	}
	return r.bySRV(ctx, n) // steps 4 to 6
}

// direct is the place of a name that holds an address or a port.
func direct(n serverName) Place {
	port := n.port
	if port == 0 {
		port = defaultPort
	}
	return Place{Host: hostPort(n.host, n.port), TLSName: n.host, Targets: []Target{{n.host, port}}}
}

func (r *resolver) bySRV(ctx context.Context, n serverName) (Place, error) {
	p := Place{Host: n.host, TLSName: n.host}
	for _, service := range []string{"matrix-fed", "matrix"} { // the second one is deprecated, and in use
		_, list, err := r.dns.LookupSRV(ctx, service, "tcp", n.host)
		var none *net.DNSError
		if err != nil && !(errors.As(err, &none) && none.IsNotFound) && ctx.Err() != nil {
			return p, err
		}
		for _, x := range list {
			if host := strings.TrimSuffix(strings.ToLower(x.Target), "."); host != "" && x.Port != 0 && len(p.Targets) < maxTargets {
				p.Targets = append(p.Targets, Target{host, int(x.Port)})
			}
		}
		if len(p.Targets) > 0 {
			return p, nil
		}
	}
	p.Targets = []Target{{n.host, defaultPort}}
	return p, nil
}

// delegated asks a host for its well-known document; "" when there is none that says anything.
func (r *resolver) delegated(ctx context.Context, host string) string {
	old, had := r.asked.Get(host)
	now := r.clock.Now()
	if had && now.Before(old.until) {
		return old.to
	}
	to, life, err := r.fetchWellKnown(ctx, host)
	if err != nil {
		to, life = "", delegationBad
		if had { // it delegated once, and will again when it is back
			to = old.to
		}
	}
	r.asked.Add(host, delegation{to, now.Add(life)})
	return to
}

func (r *resolver) fetchWellKnown(ctx context.Context, host string) (to string, life time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, wellKnownTime)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host+"/.well-known/matrix/server", nil)
	if err != nil {
		return "", 0, err
	}
	q.Header.Set("User-Agent", userAgent)
	a, err := r.wellKnown.Do(q)
	if err != nil {
		return "", 0, err
	}
	defer a.Body.Close()
	if a.StatusCode != http.StatusOK {
		return "", 0, fmt.Errorf("well-known of %s: status %d", host, a.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(a.Body, wellKnownSize+1))
	if err != nil {
		return "", 0, err
	}
	if len(body) > wellKnownSize {
		return "", 0, fmt.Errorf("well-known of %s: longer than %d bytes", host, wellKnownSize)
	}
	var doc struct {
		Server string `json:"m.server"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return "", 0, err
	}
	if _, err := parseName(doc.Server); err != nil {
		return "", 0, err
	}
	return doc.Server, cacheLife(a.Header), nil
}

// cacheLife is how long an answer says it may be kept, within our bounds.
func cacheLife(h http.Header) time.Duration {
	life := delegationDef
	for part := range strings.SplitSeq(h.Get("Cache-Control"), ",") {
		name, value, _ := strings.Cut(strings.ToLower(strings.TrimSpace(part)), "=")
		switch name {
		case "no-store", "no-cache":
			return delegationMin
		case "max-age":
			if s, err := strconv.ParseInt(strings.Trim(value, `"`), 10, 32); err == nil {
				life = time.Duration(s) * time.Second
			}
		}
	}
	return min(max(life, delegationMin), delegationMax)
}

// redirects bounds those of well-known requests: a few, and never away from HTTPS.
func redirects(r *http.Request, via []*http.Request) error {
	if len(via) >= maxHops {
		return errors.New("too many redirects")
	}
	if r.URL.Scheme != "https" || r.URL.User != nil {
		return &url.Error{Op: "redirect", URL: r.URL.Redacted(), Err: errors.New("not https")}
	}
	return nil
}

// addresses lists the addresses of a target, IPv4 and IPv6 in turn, a few at most.
func (r *resolver) addresses(ctx context.Context, host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip}, nil
	}
	all, err := r.dns.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	var four, six []netip.Addr
	for _, a := range all {
		if a = a.Unmap(); a.Is4() {
			four = append(four, a)
		} else {
			six = append(six, a)
		}
	}
	var out []netip.Addr
	for i := range max(len(four), len(six)) {
		if i < len(four) {
			out = append(out, four[i])
		}
		if i < len(six) {
			out = append(out, six[i])
		}
	}
	return slices.Clip(out[:min(len(out), 6)]), nil
}
