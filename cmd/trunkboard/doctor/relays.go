// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/trunkboard/trunkboard/turn/probe"
)

// relays tries each way that callers have when nothing direct works.
func (e *examination) relays(ctx context.Context) (out []Finding) {
	ways, username, password := e.Ways, e.Username, e.Password
	if len(ways) == 0 {
		if e.Token == "" || e.base == "" {
			return []Finding{{Check: "relay", Verdict: Skipped, Text: "the ways to the relay are told to users only", Next: "Run the doctor on the server, or give it an access token with --token."}}
		}
		var f Finding
		if ways, username, password, f = e.ask(ctx); f.Verdict != "" {
			return []Finding{f}
		}
	}
	ways = slices.Clone(ways)
	for i := range ways {
		if ways[i].Transport == "tls" && ways[i].TLS == nil && e.Roots != nil {
			ways[i].TLS = &tls.Config{ServerName: ways[i].Host, RootCAs: e.Roots, MinVersion: tls.VersionTLS12}
		}
	}
	out = make([]Finding, len(ways))
	reached := make([]bool, len(ways))
	translated := make([]bool, len(ways))
	var wg sync.WaitGroup
	for i, way := range ways {
		wg.Go(func() { out[i], reached[i], translated[i] = e.relay(ctx, way, username, password) })
	}
	wg.Wait()
	return append(out, e.network(ways, reached, translated)...)
}

// ask gets the ways from the server as a client does.
func (e *examination) ask(ctx context.Context) (ways []probe.Server, username, password string, f Finding) {
	f.Check = "relay"
	a, err := e.get(ctx, e.base+"/_matrix/client/v3/voip/turnServer", e.Token)
	if err != nil {
		f.Verdict, f.Text = Skipped, err.Error()
		return
	}
	if a.status == http.StatusUnauthorized {
		f.Verdict, f.Text, f.Next = Skipped, "the access token is not known to the server", "Make one on the server: trunkboard token create --user NAME."
		return
	}
	var server struct {
		Username, Password string
		URIs               []string
	}
	if a.status != http.StatusOK || json.Unmarshal(a.body, &server) != nil || len(server.URIs) == 0 {
		f.Verdict, f.Text = Broken, fmt.Sprintf("the server sends clients to no relay (status %d)", a.status)
		f.Next = "Callers behind strict firewalls fail without one: turn.listen must not be empty."
		return
	}
	for _, uri := range server.URIs {
		way, err := probe.ParseURI(uri)
		if err != nil {
			f.Verdict, f.Text = Broken, err.Error()
			return
		}
		ways = append(ways, way)
	}
	return ways, server.Username, server.Password, Finding{}
}

// relay tries one way: is it open, do the credentials hold, do packets get through.
func (e *examination) relay(ctx context.Context, way probe.Server, username, password string) (f Finding, reached, translated bool) {
	f = Finding{Check: "relay at " + way.String(), Verdict: Good}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	bound, err := probe.Bind(ctx, way)
	if err != nil {
		f.Verdict, f.Text = Broken, fmt.Sprintf("cannot be reached: %v", err)
		port := fmt.Sprintf("%s %d", map[string]string{"udp": "UDP", "tcp": "TCP", "tls": "TCP"}[way.Transport], way.Port)
		f.Next = "Open " + port + " in the firewall, and look whether the name leads to the server."
		var certificate *tls.CertificateVerificationError
		if errors.As(err, &certificate) {
			f.Next = "The port is open, but callers refuse its certificate: see the certificate above."
		}
		if errors.Is(err, syscall.ECONNREFUSED) {
			f.Next = "Nothing listens there: is the server running, and is that port among those of turn.listen, turn.tls_listen and listen.https?"
		}
		if way.Transport == "udp" && e.Local == nil {
			f.Next += " From a network that blocks UDP this is to be expected: calls then take TCP or TLS."
		}
		return f, false, false
	}
	if username == "" {
		f.Text = fmt.Sprintf("answers in %v", bound.Took.Round(100*time.Microsecond))
		return f, true, bound.Translated()
	}
	relayed, err := probe.Relay(ctx, way, username, password)
	switch {
	case errors.Is(err, probe.ErrSilent):
		f.Verdict, f.Text = Broken, fmt.Sprintf("relays are given out at %s, but no packet gets from one to another", relayed.Relayed.Addr())
		f.Next = "Is that the server's public address (turn.relay.addresses)? Does the firewall let the UDP ports of turn.relay in? Behind NAT the router must also send packets back in that come from inside."
	case err != nil:
		f.Verdict, f.Text = Broken, fmt.Sprintf("gives out no relay: %v", err)
		f.Next = "Is the clock right on both sides, and is turn.secret the same on all nodes? The server's log says more at level debug."
	case relayed.Received < relayed.Sent:
		f.Verdict, f.Text = Warning, fmt.Sprintf("%d of %d packets were lost between two relays", relayed.Sent-relayed.Received, relayed.Sent)
		f.Next = "Run it again; if it stays, look at the load of the server and at net.core.rmem_max."
	default:
		f.Text = fmt.Sprintf("relays at %s, %v from caller to caller", relayed.Relayed.Addr(), relayed.Took.Round(100*time.Microsecond))
	}
	return f, true, bound.Translated()
}

// network says what kind of network this machine stands in, as far as the ways show.
func (e *examination) network(ways []probe.Server, reached, translated []bool) []Finding {
	if e.Local != nil {
		return nil // the server's own network is not a caller's
	}
	f := Finding{Check: "this network", Verdict: Good, Text: "UDP gets out, no address translation"}
	udp, other := false, false
	for i, way := range ways {
		if !reached[i] {
			continue
		}
		if way.Transport == "udp" {
			udp = true
			if translated[i] {
				f.Text = "UDP gets out through an address translator, as in most homes and offices"
			}
		} else {
			other = true
		}
	}
	switch {
	case !udp && other:
		f.Verdict, f.Text = Warning, "UDP is blocked here: calls go through TCP or TLS, with more delay"
		f.Next = "They work. Better ones need UDP to the relay's port to be let out."
	case !udp:
		f.Verdict, f.Text = Broken, "no way to the relay is open from here"
		f.Next = "Where only port 443 gets out, give the server HTTPS on 443 (listen.https): TURN over TLS is answered there too."
	}
	return []Finding{f}
}
