// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/signalling/clocktest"
)

// world is a network of servers on this machine with name servers and an authority of its own.
type world struct {
	t     *testing.T
	clock *clocktest.Clock
	ca    *x509.Certificate
	caKey *ecdsa.PrivateKey
	roots *x509.CertPool

	mu    sync.Mutex
	srv   map[string]*net.SRV // "_matrix-fed._tcp.name" -> target
	hosts map[string][]netip.Addr
	https map[string]string // what listens on port 443 of an address, for well-known documents
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, clock: clocktest.At(time.Now()), srv: map[string]*net.SRV{}, hosts: map[string][]netip.Addr{}, https: map[string]string{}, roots: x509.NewCertPool()}
	var err error
	if w.caKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	raw, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, w.caKey.Public(), w.caKey)
	if err != nil {
		t.Fatal(err)
	}
	if w.ca, err = x509.ParseCertificate(raw); err != nil {
		t.Fatal(err)
	}
	w.roots.AddCert(w.ca)
	return w
}

// certificate makes one for name, good from half an hour ago until then.
func (w *world) certificate(name string, until time.Time) tls.Certificate {
	w.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-30 * time.Minute), NotAfter: until}
	if ip := net.ParseIP(name); ip != nil {
		tmpl.IPAddresses = []net.IP{ip}
	} else {
		tmpl.DNSNames = []string{name}
	}
	raw, err := x509.CreateCertificate(rand.Reader, tmpl, w.ca, key.Public(), w.caKey)
	if err != nil {
		w.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}
}

// LookupSRV answers from srv.
func (w *world) LookupSRV(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if x := w.srv["_"+service+"._"+proto+"."+name]; x != nil {
		return name, []*net.SRV{x}, nil
	}
	return "", nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

// LookupNetIP answers from hosts.
func (w *world) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if a := w.hosts[host]; a != nil {
		return a, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

// peer is another server, as well behaved as the test makes it.
type peer struct {
	w      *world
	name   string
	signer event.Signer
	mux    *http.ServeMux
	srv    *httptest.Server
	host   string // where it listens
	port   int

	mu     sync.Mutex
	asked  map[string]int // requests by path
	hosts  []string       // Host headers
	keyDoc func() any     // what it says of its keys, before it signs
}

// listen serves h with a certificate for name on a port of 127.0.0.1.
func (w *world) listen(name string, h http.Handler, cert tls.Certificate) *httptest.Server {
	s := httptest.NewUnstartedServer(h)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.EnableHTTP2 = true
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	s.StartTLS()
	w.t.Cleanup(s.Close)
	return s
}

func newSigner(server string) event.Signer {
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	return event.Signer{Server: server, KeyID: "ed25519:1", Key: key}
}

// peer starts a server that name servers lead to by an SRV record.
func (w *world) peer(name string) *peer {
	w.t.Helper()
	p := &peer{w: w, name: name, signer: newSigner(name), mux: http.NewServeMux(), asked: map[string]int{}}
	p.mux.HandleFunc("GET /_matrix/key/v2/server", func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write(p.keys()) })
	p.srv = w.listen(name, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.asked[r.URL.Path]++
		p.hosts = append(p.hosts, r.Host)
		p.mu.Unlock()
		p.mux.ServeHTTP(rw, r)
	}), w.certificate(name, time.Now().Add(time.Hour)))
	host, port, _ := net.SplitHostPort(p.srv.Listener.Addr().String())
	n, _ := strconv.Atoi(port)
	p.host, p.port = host, n
	w.mu.Lock()
	defer w.mu.Unlock()
	w.srv["_matrix-fed._tcp."+name] = &net.SRV{Target: "at." + name + ".", Port: uint16(n)}
	w.hosts["at."+name] = []netip.Addr{netip.MustParseAddr(host)}
	return p
}

func (p *peer) public() string {
	return base64.RawStdEncoding.EncodeToString(p.signer.Key.Public().(ed25519.PublicKey))
}

// keys is what the peer says of its keys.
func (p *peer) keys() []byte {
	var doc any = map[string]any{
		"server_name": p.name, "verify_keys": map[string]any{p.signer.KeyID: map[string]string{"key": p.public()}}, "old_verify_keys": map[string]any{},
		"valid_until_ts": p.w.clock.Now().Add(24 * time.Hour).UnixMilli(),
	}
	if p.keyDoc != nil {
		doc = p.keyDoc()
	}
	raw, _ := json.Marshal(doc)
	signed, err := event.SignJSON(p.signer, raw)
	if err != nil {
		p.w.t.Error(err)
	}
	return signed
}

func (p *peer) count(path string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked[path]
}

// ours is a federation service of this server in the world.
func (w *world) ours(name string, set ...func(*Config)) *Service {
	w.t.Helper()
	store := storagetest.Open(w.t, storagetest.SQLiteURL(w.t))
	log := slog.New(slog.NewTextHandler(w.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	room, err := rooms.New(context.Background(), store, name, w.clock, log)
	if err != nil {
		w.t.Fatal(err)
	}
	conf := Config{Roots: w.roots, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	for _, f := range set {
		f(&conf)
	}
	s := New(Deps{Config: conf, Store: store, Rooms: room, Clock: w.clock, Log: log, DNS: w})
	connect := s.Client.connect
	s.Client.connect = func(ctx context.Context, network, address string) (net.Conn, error) {
		w.mu.Lock()
		if to, ok := w.https[address]; ok {
			address = to
		}
		w.mu.Unlock()
		if strings.HasSuffix(address, ":443") {
			return nil, fmt.Errorf("nobody listens on %s", address)
		}
		return connect(ctx, network, address)
	}
	w.t.Cleanup(s.Client.Close)
	return s
}

// reply answers with JSON.
func reply(v any) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_ = json.NewEncoder(w).Encode(v)
	}
}
