// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// internet is what several Apps of a test find one another by: name servers and an authority for certificates.
type internet struct {
	t    *testing.T
	dir  string
	ca   *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool

	mu    sync.Mutex
	ports map[string]uint16
}

func newInternet(t *testing.T) *internet {
	t.Helper()
	n := &internet{t: t, dir: t.TempDir(), ports: map[string]uint16{}, pool: x509.NewCertPool()}
	var err error
	if n.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	raw, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, n.key.Public(), n.key)
	if err != nil {
		t.Fatal(err)
	}
	if n.ca, err = x509.ParseCertificate(raw); err != nil {
		t.Fatal(err)
	}
	n.pool.AddCert(n.ca)
	n.write("ca.pem", "CERTIFICATE", raw)
	return n
}

func (n *internet) write(name, kind string, raw []byte) string {
	n.t.Helper()
	file := filepath.Join(n.dir, name)
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: raw}), 0o600); err != nil {
		n.t.Fatal(err)
	}
	return file
}

// LookupSRV leads to the port of a server.
func (n *internet) LookupSRV(_ context.Context, service, _, name string) (string, []*net.SRV, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if p := n.ports[name]; p != 0 && service == "matrix-fed" {
		return name, []*net.SRV{{Target: name + ".", Port: p}}, nil
	}
	return "", nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

// LookupNetIP leads to this machine.
func (n *internet) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ports[host] != 0 {
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

// config is the configuration of a server called name.
func (n *internet) config(name string, set ...string) []string {
	n.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		n.t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), DNSNames: []string{name}}
	if a, err := netip.ParseAddrPort(name); err == nil {
		tmpl.DNSNames, tmpl.IPAddresses = nil, []net.IP{a.Addr().AsSlice()}
	}
	raw, err := x509.CreateCertificate(rand.Reader, tmpl, n.ca, key.Public(), n.key)
	if err != nil {
		n.t.Fatal(err)
	}
	keyRaw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		n.t.Fatal(err)
	}
	return append([]string{
		"server_name=" + name, "registration.mode=open", "tls.mode=files", "tls.certificate=" + n.write(name+".pem", "CERTIFICATE", raw), "tls.key=" + n.write(name+".key", "PRIVATE KEY", keyRaw),
		"federation.allow_private=127.0.0.0/8", "federation.trusted_ca=" + filepath.Join(n.dir, "ca.pem"), "limits.enabled=false",
	}, set...)
}

// start runs a server called name that the others find.
func (n *internet) start(name string, set ...string) *App {
	n.t.Helper()
	return n.run(name, []string{"homeserver"}, set...)
}

// startParts is start with the parts to run.
func (n *internet) startParts(name string, parts ...string) *App {
	n.t.Helper()
	return n.run(name, parts)
}

func (n *internet) run(name string, parts []string, set ...string) *App {
	n.t.Helper()
	a, _ := startWith(n.t, testConfig(n.t, n.config(name, set...)...), func(a *App) {
		_, port, _ := net.SplitHostPort(a.Addr("listen.federation"))
		p, _ := strconv.Atoi(port)
		n.mu.Lock()
		n.ports[name] = uint16(p)
		n.mu.Unlock()
		a.dns = n
	}, parts...)
	return a
}

func TestServersAskEachOtherForTheirKeys(t *testing.T) {
	leavesNothing(t)
	n := newInternet(t)
	one := n.start("one.test")
	two := n.start("two.test")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: n.pool, ServerName: "one.test"}}}
	_, own := fetch(t, client, "https://"+one.Addr("listen.federation")+"/_matrix/key/v2/server")
	if !strings.Contains(own, `"server_name":"one.test"`) {
		t.Errorf("one says %s", own)
	}
	plain := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	_, of := fetch(t, plain, "http://"+two.Addr("listen.client")+"/_matrix/key/v2/query/one.test")
	if !strings.Contains(of, `"one.test":{"ed25519:`) || !strings.Contains(of, `"two.test":{"ed25519:`) {
		t.Errorf("two says %s", of)
	}
	status, body := fetch(t, plain, "http://"+two.Addr("listen.client")+"/_matrix/federation/v1/version")
	if status != 200 || !strings.Contains(body, "Trunkboard") {
		t.Errorf("version: %d %s", status, body)
	}
}

func TestWithoutFederationOtherServersFindNothing(t *testing.T) {
	leavesNothing(t)
	a, _ := start(t, testConfig(t, "federation.enabled=false"), "homeserver")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	if status, body := fetch(t, client, "http://"+a.Addr("listen.client")+"/_matrix/key/v2/server"); status != 404 || !strings.Contains(body, "M_UNRECOGNIZED") {
		t.Errorf("%d %s", status, body)
	}
}
