// SPDX-License-Identifier: Apache-2.0

// Package doctor looks for what breaks calls: ports that nobody can reach, a relay that hands out a wrong address, a certificate that
// browsers refuse, a wrong clock, well-known files that lead elsewhere. Each finding says in plain words what to do next.
//
// It looks from the machine it runs on. Run on the server it sees the settings too; run anywhere else (trunkboard doctor
// https://example.org) it sees what callers there see, which is the better test of firewalls.
package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/trunkboard/trunkboard/turn/probe"
)

// Verdict is how bad a finding is.
type Verdict string

const (
	Good    Verdict = "ok"      // nothing to do
	Warning Verdict = "warning" // works for some, or not for much longer
	Broken  Verdict = "broken"  // calls or rooms fail because of it
	Skipped Verdict = "skipped" // could not be looked at from here
)

// Finding is the result of one check.
type Finding struct {
	Check   string  `json:"check"` // what was looked at, a short stable name such as "relay over TLS"
	Verdict Verdict `json:"verdict"`
	Text    string  `json:"text"`           // what was seen
	Next    string  `json:"next,omitempty"` // what to do about it; empty if nothing
}

// Patient is the server to examine. Zero fields are left out of the examination, or found out where that is possible.
type Patient struct {
	ServerName string // the name in user ids; well-known files and federation are looked up by it
	PublicURL  string // where clients reach it; empty: by the well-known file of ServerName
	// Ways lists the STUN and TURN servers that clients are sent to, with credentials for them. None: Token is used to ask the server.
	Ways               []probe.Server
	Username, Password string
	Token              string // an access token for questions that need an account

	Local *Local // what only the machine of the server knows; nil when the doctor runs elsewhere

	Roots *x509.CertPool // authorities to trust instead of the system's
	Dial  func(ctx context.Context, network, address string) (net.Conn, error)
	Now   func() time.Time
}

// Local is what the settings and the machine say.
type Local struct {
	DataDir        string
	Relays         []RelayAddress
	MinPort        int
	MaxPort        int
	MaxAllocations int
	TLS            bool // a certificate is set
	Trial          bool // it serves this machine only: private addresses are right
}

// RelayAddress is where relays are opened, and what peers are told.
type RelayAddress struct{ Local, Public netip.Addr }

// patience bounds each single question, over any network.
const patience = 8 * time.Second

// Examine runs all checks and hands each finding to report, from one goroutine, in a stable order. The context ends it early.
func Examine(ctx context.Context, p Patient, report func(Finding)) {
	if p.Now == nil {
		p.Now = time.Now
	}
	e := &examination{Patient: p}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: p.Roots, MinVersion: tls.VersionTLS12}, DialContext: p.Dial, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	e.client = &http.Client{Transport: transport, Timeout: patience}

	// Each group gathers on its own; groups that wait for the network run side by side.
	first := e.gather(ctx, (*examination).machine)
	for _, f := range first {
		report(f)
	}
	for _, f := range e.gather(ctx, (*examination).clientWellKnown) {
		report(f)
	}
	groups := []func(*examination, context.Context) []Finding{
		(*examination).site, (*examination).federation, (*examination).relays,
	}
	found := make([][]Finding, len(groups))
	var wg sync.WaitGroup
	for i, g := range groups {
		wg.Go(func() { found[i] = e.gather(ctx, g) })
	}
	wg.Wait()
	for _, list := range found {
		for _, f := range list {
			report(f)
		}
	}
}

type examination struct {
	Patient
	client *http.Client
	base   string // where clients reach the server, without a slash at the end
}

func (e *examination) gather(ctx context.Context, group func(*examination, context.Context) []Finding) []Finding {
	if ctx.Err() != nil {
		return nil
	}
	return group(e, ctx)
}
