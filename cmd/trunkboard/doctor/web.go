// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// answer is what one HTTP request brought.
type answer struct {
	status int
	body   []byte
	header http.Header
	date   time.Time // of the server's clock; zero if it did not say
	took   time.Duration
}

// errTooLong is an answer longer than anything that the doctor asks for.
var errTooLong = errors.New("the answer is longer than 1 MiB")

func (e *examination) get(ctx context.Context, address, token string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, "GET", address, nil)
	if err != nil {
		return answer{}, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	start := time.Now()
	res, err := e.client.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // the address is in the finding already
		}
		return answer{}, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20+1))
	if err != nil {
		return answer{}, err
	}
	if len(body) > 1<<20 {
		return answer{}, errTooLong
	}
	a := answer{status: res.StatusCode, body: body, header: res.Header, took: time.Since(start)}
	a.date, _ = http.ParseTime(res.Header.Get("Date"))
	return a, nil
}

// clientWellKnown finds where clients are sent (spec, client-server API, "Well-known URIs") and fills in base.
func (e *examination) clientWellKnown(ctx context.Context) []Finding {
	e.base = strings.TrimRight(e.PublicURL, "/")
	if e.ServerName == "" || e.Local != nil && e.Local.Trial {
		return nil
	}
	f := Finding{Check: "well-known for clients", Verdict: Good}
	host := e.ServerName
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	at := "https://" + host + "/.well-known/matrix/client"
	a, err := e.get(ctx, at, "")
	var found struct {
		Homeserver struct {
			BaseURL string `json:"base_url"`
		} `json:"m.homeserver"`
	}
	switch {
	case err != nil:
		f.Verdict, f.Text = Warning, fmt.Sprintf("%s: %v", at, err)
	case a.status != http.StatusOK:
		f.Verdict, f.Text = Warning, fmt.Sprintf("%s answers %d", at, a.status)
	case json.Unmarshal(a.body, &found) != nil || found.Homeserver.BaseURL == "":
		f.Verdict, f.Text = Broken, at+" names no m.homeserver base_url"
	default:
		given := strings.TrimRight(found.Homeserver.BaseURL, "/")
		f.Text = "leads to " + given
		if e.base == "" {
			e.base = given
		} else if given != e.base {
			f.Verdict, f.Text = Broken, fmt.Sprintf("%s sends clients to %s, but the server is %s", at, given, e.base)
		}
		if f.Verdict == Good && a.header.Get("Access-Control-Allow-Origin") == "" {
			f.Verdict, f.Text = Broken, at+" may not be read by web clients of other sites"
			f.Next = "Send Access-Control-Allow-Origin: * with it."
			return []Finding{f}
		}
	}
	if f.Verdict != Good {
		want := e.base
		if want == "" {
			want = "https://" + host
		}
		f.Next = fmt.Sprintf(`Whoever serves https://%s/ has to answer that path with {"m.homeserver":{"base_url":%q}}; Trunkboard does if it is reached there.`, host, want)
	}
	if e.base == "" {
		e.base = "https://" + host
	}
	return []Finding{f}
}

// site looks at the client API as browsers do.
func (e *examination) site(ctx context.Context) (out []Finding) {
	if e.base == "" {
		return nil
	}
	u, err := url.Parse(e.base)
	if err != nil || u.Host == "" {
		return []Finding{{Check: "client API", Verdict: Broken, Text: fmt.Sprintf("%q is no URL", e.base), Next: "Set public_url to https://HOST."}}
	}
	if u.Scheme == "https" {
		out = append(out, e.certificate(ctx, u))
	} else if e.Local == nil || !e.Local.Trial {
		out = append(out, Finding{Check: "certificate", Verdict: Broken, Text: e.base + " is not HTTPS", Next: "Browsers give camera and microphone to HTTPS pages only. Set tls.mode, or put a reverse proxy with a certificate in front and set public_url to https://…"})
	}
	f := Finding{Check: "client API", Verdict: Good}
	a, err := e.get(ctx, e.base+"/_matrix/client/versions", "")
	switch {
	case err != nil:
		f.Verdict, f.Text = Broken, fmt.Sprintf("%s cannot be reached: %v", e.base, err)
		f.Next = "Is the server running?"
		if errors.Is(err, syscall.ECONNREFUSED) {
			return append(out, f)
		}
		f.Next = "Is the server running, does the name lead to it, and does the firewall let TCP in?"
		return append(out, f)
	case a.status == http.StatusServiceUnavailable:
		f.Verdict, f.Text = Broken, "the server is there, but not ready: its database or another part does not open"
		f.Next = "Its log says which part."
	case a.status != http.StatusOK || !json.Valid(a.body):
		f.Verdict, f.Text = Broken, fmt.Sprintf("%s/_matrix/client/versions answers %d, not as a Matrix server does", e.base, a.status)
		f.Next = "A reverse proxy has to pass /_matrix/ on unchanged."
	case a.header.Get("Access-Control-Allow-Origin") != "*":
		f.Verdict, f.Text = Broken, "web clients of other sites may not read the answers: Access-Control-Allow-Origin is not *"
		f.Next = "Take that header out of the reverse proxy's settings; Trunkboard sends it."
	default:
		f.Text = fmt.Sprintf("answers in %v", a.took.Round(time.Millisecond))
	}
	out = append(out, f)
	if !a.date.IsZero() {
		out = append(out, e.clocks(a))
	}
	return out
}

// clocks compares the server's clock with this machine's.
func (e *examination) clocks(a answer) Finding {
	f := Finding{Check: "clock against here", Verdict: Good}
	apart := e.Now().Sub(a.date).Abs()
	f.Text = fmt.Sprintf("apart by %v at most", (apart + a.took).Round(time.Second))
	if apart > 30*time.Second {
		f.Verdict, f.Text = Warning, fmt.Sprintf("the server's clock and this machine's are %v apart", apart.Round(time.Second))
		f.Next = "Turn on a time service on the one that is wrong. Relay credentials fail when the server is behind the clock that made them."
	}
	return f
}

// certificate looks at the chain that the server presents.
func (e *examination) certificate(ctx context.Context, u *url.URL) Finding {
	f := Finding{Check: "certificate", Verdict: Good}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	dial := e.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	conn, err := dial(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		f.Verdict, f.Text = Broken, fmt.Sprintf("no connection to %s: %v", net.JoinHostPort(u.Hostname(), port), err)
		f.Next = "Does the name lead to the server, and does the firewall let TCP " + port + " in?"
		return f
	}
	defer conn.Close()
	// The chain is judged below, so that the finding can say what is wrong with it.
	c := tls.Client(conn, &tls.Config{ServerName: u.Hostname(), InsecureSkipVerify: true, MinVersion: tls.VersionTLS12})
	if err := c.HandshakeContext(ctx); err != nil {
		f.Verdict, f.Text = Broken, fmt.Sprintf("no TLS on port %s: %v", port, err)
		f.Next = "Is that port the HTTPS listener?"
		return f
	}
	return judge(c.ConnectionState().PeerCertificates, u.Hostname(), e.Roots, e.Now())
}

// judge says what a browser would say of a chain, leaf first.
func judge(chain []*x509.Certificate, host string, roots *x509.CertPool, now time.Time) Finding {
	f := Finding{Check: "certificate", Verdict: Good}
	leaf := chain[0]
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: roots, Intermediates: between, CurrentTime: now})
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	left := leaf.NotAfter.Sub(now)
	switch {
	case now.After(leaf.NotAfter):
		f.Verdict, f.Text = Broken, "the certificate ended on "+leaf.NotAfter.Format(time.DateOnly)
		f.Next = "Renew it; a file that was replaced is read again without a restart."
	case errors.As(err, &name):
		f.Verdict, f.Text = Broken, fmt.Sprintf("the certificate is not for %s but for %s", host, strings.Join(leaf.DNSNames, ", "))
		f.Next = "Get one with that name in it."
	case errors.As(err, &unknown) && len(chain) == 1 && leaf.Issuer.String() != leaf.Subject.String():
		f.Verdict, f.Text = Broken, "the chain is not complete: the server sends its own certificate without that of its issuer, "+leaf.Issuer.CommonName
		f.Next = "Put the issuer's certificate behind it in the file of tls.certificate (often called fullchain.pem). Some browsers hide this; telephones and other servers fail."
	case err != nil:
		f.Verdict, f.Text = Broken, fmt.Sprintf("browsers refuse the certificate: %v", err)
		f.Next = "Use one from a public authority, or install the server's own authority on every device that calls."
	case left < 14*24*time.Hour:
		f.Verdict, f.Text = Warning, fmt.Sprintf("the certificate ends in %d days", int(left.Hours()/24))
		f.Next = "Renew it now: what should have renewed it did not."
	default:
		f.Text = fmt.Sprintf("good for %s until %s", host, leaf.NotAfter.Format(time.DateOnly))
	}
	return f
}
