// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/outside"
	"github.com/trunkboard/trunkboard/signalling"
)

const (
	userAgent     = "Trunkboard"
	connectTime   = 5 * time.Second  // for one address
	handshakeTime = 10 * time.Second // for TLS
	askTime       = 30 * time.Second // for a whole request, unless the caller says otherwise
	smallAnswer   = 1 << 20          // bytes, unless the caller says otherwise
	perServer     = 16               // connections to one server
)

// Unreachable says that a server did not answer, or answered what is no Matrix answer. It is the Cause of the error that Do gives.
type Unreachable struct {
	Server string
	Err    error
}

// Error names the server and the reason.
func (u *Unreachable) Error() string { return u.Server + " cannot be reached: " + u.Err.Error() }

// Unwrap gives the reason.
func (u *Unreachable) Unwrap() error { return u.Err }

func unreachable(server string, err error) error {
	return signalling.Refuse(http.StatusBadGateway, "M_UNKNOWN", "the server %s cannot be reached", server).Because(&Unreachable{server, err})
}

// Client asks other servers, with this server's signature. It is safe for concurrent use.
type Client struct {
	server    string              // this one
	signer    func() event.Signer // nil: nothing is signed
	resolver  *resolver
	guard     outside.Guard
	permits   func(server string) error
	http      *http.Client
	transport *http.Transport
	tls       *tls.Config
	connect   func(ctx context.Context, network, address string) (net.Conn, error)
}

// NewUnsigned makes a client that signs nothing, for what anybody may ask of a server, where server, a name, runs elsewhere. It looks for
// a few hundred servers at the same time at most: strangers name them. dns may be nil. Who made it closes it.
func NewUnsigned(server string, cfg Config, dns DNS, clock signalling.Clock) *Client {
	if dns == nil {
		dns = net.DefaultResolver
	}
	c := newClient(server, nil, cfg, dns, clock)
	c.resolver.slots = make(chan struct{}, maxFinding)
	return c
}

func newClient(server string, signer func() event.Signer, cfg Config, dns DNS, clock signalling.Clock) *Client {
	dial := &net.Dialer{Timeout: connectTime, Control: outside.Guard{Allow: cfg.Allow}.Control}
	c := &Client{
		server: server, signer: signer, guard: outside.Guard{Allow: cfg.Allow}, permits: cfg.permits, connect: dial.DialContext,
		tls: &tls.Config{RootCAs: cfg.Roots, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}},
	}
	wellKnown := &http.Transport{
		DialContext: c.dialName, TLSHandshakeTimeout: connectTime, ResponseHeaderTimeout: wellKnownTime, MaxResponseHeaderBytes: 64 << 10,
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: cfg.Roots, MinVersion: tls.VersionTLS12},
	}
	c.resolver = newResolver(dns, &http.Client{Transport: wellKnown, Timeout: wellKnownTime, CheckRedirect: redirects}, clock)
	c.transport = &http.Transport{
		DialTLSContext: c.dialServer, ForceAttemptHTTP2: true, ResponseHeaderTimeout: 5 * time.Minute, MaxResponseHeaderBytes: 64 << 10,
		MaxIdleConns: 256, MaxIdleConnsPerHost: 2, MaxConnsPerHost: perServer, IdleConnTimeout: 90 * time.Second,
	}
	c.http = &http.Client{Transport: c.transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return c
}

// Close ends the connections that nobody uses.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// dialName connects to a host by name, for well-known documents.
func (c *Client) dialName(ctx context.Context, _, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return nil, err
	}
	return c.dialTarget(ctx, Target{host, n})
}

// dialServer connects to a server; address is the name of the server as authority wrote it.
func (c *Client) dialServer(ctx context.Context, _, address string) (net.Conn, error) {
	server := strings.TrimSuffix(address, ":0")
	place, err := c.resolver.resolve(ctx, server)
	if err != nil {
		return nil, err
	}
	var last error
	for _, t := range place.Targets {
		raw, err := c.dialTarget(ctx, t)
		if err != nil {
			last = err
			continue
		}
		conf := c.tls.Clone()
		conf.ServerName = place.TLSName
		conn := tls.Client(raw, conf)
		shaking, cancel := context.WithTimeout(ctx, handshakeTime)
		err = conn.HandshakeContext(shaking)
		cancel()
		if err == nil {
			return conn, nil
		}
		raw.Close()
		last = err
	}
	return nil, last
}

// dialTarget tries the addresses of a target. Whether an address may be connected to is checked here, and once more by the dialler on
// what it connects to.
func (c *Client) dialTarget(ctx context.Context, t Target) (net.Conn, error) {
	list, err := c.resolver.addresses(ctx, t.Host)
	if err != nil {
		return nil, err
	}
	last := fmt.Errorf("%s has no address", t.Host)
	for _, a := range list {
		if !c.guard.Permits(a) {
			last = fmt.Errorf("%s is not a public address", a)
			continue
		}
		conn, err := c.connect(ctx, "tcp", net.JoinHostPort(a.String(), strconv.Itoa(t.Port)))
		if err == nil {
			return conn, nil
		}
		last = err
	}
	return nil, last
}

// authority is what stands for a server in a URL, so that connections are pooled by server: a name without a port gets port 0, which
// no server can have.
func authority(server string) string {
	if n, err := parseName(server); err == nil && n.port == 0 {
		return server + ":0"
	}
	return server
}

// Ask is a request to another server.
type Ask struct {
	Server  string
	Method  string          // default GET
	Path    string          // escaped, with the query
	Body    json.RawMessage // nil: none
	Limit   int64           // bytes of the answer; default 1 MiB
	Timeout time.Duration   // default 30 s
	Accept  func(http.Header) error
	plain   bool // without a signature: for keys
}

// Do asks a server and gives the body of its answer. The answer of a server that refuses is an error with its status and code
// (signalling.Error); a server that does not answer is 502 M_UNKNOWN with an *Unreachable as its cause.
func (c *Client) Do(ctx context.Context, a Ask) ([]byte, error) {
	if a.Limit == 0 {
		a.Limit = smallAnswer
	}
	var out []byte
	err := c.Stream(ctx, a, func(r *http.Response) (err error) {
		if out, err = io.ReadAll(io.LimitReader(r.Body, a.Limit+1)); err == nil && int64(len(out)) > a.Limit {
			err = fmt.Errorf("an answer longer than %d bytes", a.Limit)
		}
		return err
	})
	return out, err
}

// Stream is Do for answers that are not kept in memory: read gets a good answer, with Limit as its own to keep.
func (c *Client) Stream(ctx context.Context, a Ask, read func(*http.Response) error) error {
	if a.Server == c.server {
		return signalling.InvalidParam("%s is this server itself", a.Server)
	}
	if err := c.permits(a.Server); err != nil {
		return err
	}
	if a.Method == "" {
		a.Method = http.MethodGet
	}
	if a.Timeout == 0 {
		a.Timeout = askTime
	}
	ctx, cancel := context.WithTimeout(ctx, a.Timeout)
	defer cancel()
	place, err := c.resolver.resolve(ctx, a.Server)
	if err != nil {
		return unreachable(a.Server, err)
	}
	q, err := http.NewRequestWithContext(ctx, a.Method, "https://"+authority(a.Server)+a.Path, nil)
	if err != nil {
		return signalling.InvalidParam("%q cannot be asked of %s", a.Path, a.Server).Because(err)
	}
	q.Host = place.Host
	q.Header.Set("User-Agent", userAgent)
	if a.Body != nil {
		q.Body, q.ContentLength = io.NopCloser(bytes.NewReader(a.Body)), int64(len(a.Body))
		q.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(a.Body)), nil }
		q.Header.Set("Content-Type", "application/json")
	}
	if !a.plain && c.signer != nil {
		h, err := signRequest(c.signer(), a)
		if err != nil {
			return err
		}
		q.Header.Set("Authorization", h)
	}
	r, err := c.http.Do(q)
	if err != nil {
		var with *url.Error // names the URL, and in it perhaps an OpenID token, which is nothing for a log
		if errors.As(err, &with) {
			err = with.Err
		}
		return unreachable(a.Server, err)
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return refusal(a.Server, r)
	}
	if err := read(r); err != nil {
		var e *signalling.Error
		if errors.As(err, &e) {
			return err
		}
		return unreachable(a.Server, err)
	}
	return nil
}

// errorCode says whether a code is one that the specification allows: M_ and those of a namespace, such as ORG.MATRIX.MSC4155.…
func errorCode(code string) bool {
	return code != "" && len(code) <= 64 && strings.ContainsAny(code, "_.") && strings.Trim(code, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.") == ""
}

// refusal reads the standard error object of another server.
func refusal(server string, r *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(r.Body, 64<<10))
	var e struct {
		Code    string `json:"errcode"`
		Message string `json:"error"`
		After   int64  `json:"retry_after_ms"`
		Version string `json:"room_version"`
	}
	if json.Unmarshal(body, &e) != nil || !errorCode(e.Code) || r.StatusCode < 400 {
		if r.StatusCode == http.StatusNotFound || r.StatusCode == http.StatusMethodNotAllowed || r.StatusCode == http.StatusBadRequest {
			e.Code = "M_UNRECOGNIZED" // a server of before the endpoint, or something in front of it
		} else {
			return unreachable(server, fmt.Errorf("status %d", r.StatusCode))
		}
	}
	if len(e.Message) > 300 {
		e.Message = strings.ToValidUTF8(e.Message[:300], "")
	}
	out := signalling.Refuse(r.StatusCode, e.Code, "%s says: %s", server, e.Message)
	if e.Version != "" {
		out = out.With("room_version", e.Version)
	}
	if r.StatusCode >= 500 {
		out = out.Because(&Unreachable{server, fmt.Errorf("status %d, %s", r.StatusCode, e.Code)})
	}
	if e.After > 0 {
		out = out.With("retry_after_ms", e.After)
	}
	return out
}

// ask is Do with a JSON answer.
func (c *Client) ask(ctx context.Context, a Ask, answer any) error {
	body, err := c.Do(ctx, a)
	if err != nil {
		return err
	}
	if err := event.CheckJSON(body); err != nil {
		return unreachable(a.Server, err)
	}
	if err := json.Unmarshal(body, answer); err != nil {
		return unreachable(a.Server, err)
	}
	return nil
}
