// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// chain is a root, an issuer below it and a leaf for names.
type chain struct {
	roots        *x509.CertPool
	leaf, issuer *x509.Certificate
	key          *ecdsa.PrivateKey
}

func newChain(t *testing.T, until time.Time, names ...string) chain {
	t.Helper()
	make := func(serial int64, name string, ca bool, parent *x509.Certificate, by *ecdsa.PrivateKey, ends time.Time) (*x509.Certificate, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, IsCA: ca, BasicConstraintsValid: ca,
			NotBefore: ends.Add(-400 * 24 * time.Hour), NotAfter: ends, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
		if !ca {
			c.DNSNames = names
			c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
		}
		if parent == nil {
			parent, by = c, key
		}
		der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, by)
		if err != nil {
			t.Fatal(err)
		}
		c, err = x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return c, key
	}
	root, rootKey := make(1, "Root", true, nil, nil, until.Add(time.Hour))
	issuer, issuerKey := make(2, "Issuer", true, root, rootKey, until.Add(time.Hour))
	leaf, key := make(3, "leaf", false, issuer, issuerKey, until)
	c := chain{roots: x509.NewCertPool(), leaf: leaf, issuer: issuer, key: key}
	c.roots.AddCert(root)
	return c
}

func TestCertificatesAreJudgedAsBrowsersDo(t *testing.T) {
	now := time.Now()
	good := newChain(t, now.Add(90*24*time.Hour), "example.org")
	for name, c := range map[string]struct {
		chain []*x509.Certificate
		host  string
		at    time.Time
		want  Verdict
		says  string
	}{
		"good":              {[]*x509.Certificate{good.leaf, good.issuer}, "example.org", now, Good, "good for example.org"},
		"incomplete":        {[]*x509.Certificate{good.leaf}, "example.org", now, Broken, "chain is not complete"},
		"another name":      {[]*x509.Certificate{good.leaf, good.issuer}, "call.example.org", now, Broken, "not for call.example.org"},
		"ends soon":         {[]*x509.Certificate{good.leaf, good.issuer}, "example.org", now.Add(80*24*time.Hour - time.Hour), Warning, "ends in 10 days"},
		"ended":             {[]*x509.Certificate{good.leaf, good.issuer}, "example.org", now.Add(91 * 24 * time.Hour), Broken, "ended on"},
		"strange authority": {[]*x509.Certificate{newChain(t, now.Add(90*24*time.Hour), "example.org").leaf, good.issuer}, "example.org", now, Broken, "refuse"},
	} {
		f := judge(c.chain, c.host, good.roots, c.at)
		if f.Verdict != c.want || !strings.Contains(f.Text, c.says) {
			t.Errorf("%s: %s %q", name, f.Verdict, f.Text)
		}
		if (f.Verdict == Good) != (f.Next == "") {
			t.Errorf("%s: what to do is %q", name, f.Next)
		}
	}
}

// matrix is a site with one Matrix server, whose answers a test may change by path.
func matrix(t *testing.T, answers map[string]string) (base string, c chain, dial func(context.Context, string, string) (net.Conn, error)) {
	t.Helper()
	c = newChain(t, time.Now().Add(90*24*time.Hour), "example.org")
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, ok := answers[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		if text == "503" {
			w.WriteHeader(503)
			return
		}
		if origin, rest, ok := strings.Cut(text, "|"); ok {
			text = rest
			w.Header().Set("Access-Control-Allow-Origin", origin)
		}
		fmt.Fprint(w, text)
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{c.leaf.Raw, c.issuer.Raw}, PrivateKey: c.key}}}
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // the doctor hangs up after the handshake that it looks at
	s.StartTLS()
	t.Cleanup(s.Close)
	return "https://example.org", c, func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, s.Listener.Addr().String())
	}
}

// examine gives the findings by check.
func examine(t *testing.T, p Patient) map[string]Finding {
	t.Helper()
	out := map[string]Finding{}
	Examine(t.Context(), p, func(f Finding) {
		if _, twice := out[f.Check]; twice {
			t.Errorf("%s is found twice", f.Check)
		}
		if f.Verdict == Broken && f.Next == "" {
			t.Errorf("%s is broken, and nothing says what to do: %s", f.Check, f.Text)
		}
		out[f.Check] = f
	})
	return out
}

func TestAHealthySiteHasNothingBroken(t *testing.T) {
	_, c, dial := matrix(t, map[string]string{
		"/.well-known/matrix/client": `*|{"m.homeserver":{"base_url":"https://example.org/"}}`,
		"/.well-known/matrix/server": `{"m.server":"example.org:443"}`,
		"/_matrix/client/versions":   `*|{"versions":["v1.12"]}`,
		"/_matrix/key/v2/server":     `{"server_name":"example.org"}`,
	})
	found := examine(t, Patient{ServerName: "example.org", Roots: c.roots, Dial: dial})
	for _, check := range []string{"well-known for clients", "certificate", "client API", "clock against here", "federation"} {
		if f := found[check]; f.Verdict != Good {
			t.Errorf("%s: %+v", check, f)
		}
	}
	if f := found["relay"]; f.Verdict != Skipped || !strings.Contains(f.Next, "--token") {
		t.Errorf("relay: %+v", f)
	}
}

func TestEachMistakeOfASiteIsFound(t *testing.T) {
	healthy := map[string]string{
		"/.well-known/matrix/client": `*|{"m.homeserver":{"base_url":"https://example.org"}}`,
		"/.well-known/matrix/server": `{"m.server":"example.org:443"}`,
		"/_matrix/client/versions":   `*|{"versions":["v1.12"]}`,
		"/_matrix/key/v2/server":     `{"server_name":"example.org"}`,
	}
	for name, c := range map[string]struct {
		path, answer string
		check        string
		want         Verdict
		says         string
	}{
		"well-known of an old server":     {"/.well-known/matrix/client", `*|{"m.homeserver":{"base_url":"https://old.example.org"}}`, "well-known for clients", Broken, "old.example.org"},
		"well-known without CORS":         {"/.well-known/matrix/client", `{"m.homeserver":{"base_url":"https://example.org"}}`, "well-known for clients", Broken, "may not be read"},
		"well-known that is no JSON":      {"/.well-known/matrix/client", `*|<html>`, "well-known for clients", Broken, "base_url"},
		"a proxy that answers by itself":  {"/_matrix/client/versions", `*|<html>`, "client API", Broken, "not as a Matrix server"},
		"a proxy that changes CORS":       {"/_matrix/client/versions", `https://x|{"versions":[]}`, "client API", Broken, "Allow-Origin"},
		"a server that is not ready":      {"/_matrix/client/versions", `503`, "client API", Broken, "not ready"},
		"federation leads to another":     {"/_matrix/key/v2/server", `{"server_name":"example.net"}`, "federation", Broken, "example.net"},
		"a federation file without names": {"/.well-known/matrix/server", `{}`, "federation", Warning, "names no m.server"},
	} {
		answers := map[string]string{}
		for k, v := range healthy {
			answers[k] = v
		}
		answers[c.path] = c.answer
		base, ca, dial := matrix(t, answers)
		f := examine(t, Patient{ServerName: "example.org", PublicURL: base, Roots: ca.roots, Dial: dial})[c.check]
		if f.Verdict != c.want || !strings.Contains(f.Text, c.says) || f.Next == "" {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

func TestAWrongClockIsFound(t *testing.T) {
	base, c, dial := matrix(t, map[string]string{"/_matrix/client/versions": `*|{}`})
	f := examine(t, Patient{PublicURL: base, Roots: c.roots, Dial: dial, Now: func() time.Time { return time.Now().Add(10 * time.Minute) }})["clock against here"]
	if f.Verdict != Warning || !strings.Contains(f.Text, "10m") {
		t.Errorf("%+v", f)
	}
}

func TestAPrivateRelayAddressIsFound(t *testing.T) {
	inside, outside := netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("203.0.113.7")
	for name, c := range map[string]struct {
		relays []RelayAddress
		trial  bool
		want   Verdict
	}{
		"none":            {nil, false, Broken},
		"private":         {[]RelayAddress{{Local: inside}}, false, Broken},
		"told its public": {[]RelayAddress{{Local: inside, Public: outside}}, false, Good},
		"public":          {[]RelayAddress{{Local: outside}}, false, Good},
		"for trying out":  {[]RelayAddress{{Local: inside}}, true, Good},
	} {
		f := relayAddresses(&Local{Relays: c.relays, Trial: c.trial})
		if f.Verdict != c.want || f.Text == "" {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

func TestADataFolderThatIsNoneIsFound(t *testing.T) {
	if f := dataFolder(t.TempDir()); f.Verdict == Broken {
		t.Errorf("%+v", f)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if f := dataFolder(file); f.Verdict != Broken || f.Next == "" {
		t.Errorf("%+v", f)
	}
	if f := dataFolder(file + "s"); f.Verdict != Skipped {
		t.Errorf("a folder that will be made: %+v", f)
	}
}
