// SPDX-License-Identifier: Apache-2.0

package fedapi

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/homeserver/e2ee"
	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/federation"
	"github.com/trunkboard/trunkboard/homeserver/media"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/clocktest"
)

// world is a network of servers on this machine, with name servers and an authority of its own.
type world struct {
	t     *testing.T
	clock *clocktest.Clock
	key   *ecdsa.PrivateKey
	ca    *x509.Certificate
	roots *x509.CertPool
	mu    sync.Mutex
	ports map[string]uint16
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, clock: clocktest.At(time.Now()), ports: map[string]uint16{}, roots: x509.NewCertPool()}
	var err error
	if w.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	raw, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, w.key.Public(), w.key)
	if err != nil {
		t.Fatal(err)
	}
	if w.ca, err = x509.ParseCertificate(raw); err != nil {
		t.Fatal(err)
	}
	w.roots.AddCert(w.ca)
	return w
}

// LookupSRV leads to the port of a server.
func (w *world) LookupSRV(_ context.Context, service, _, name string) (string, []*net.SRV, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p := w.ports[name]; p != 0 && service == "matrix-fed" {
		return name, []*net.SRV{{Target: name + ".", Port: p}}, nil
	}
	return "", nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

// LookupNetIP leads to this machine.
func (w *world) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ports[host] != 0 {
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

// server is a whole server of the world; what it would answer can be replaced, path by path, and what it sends is the test's.
type server struct {
	t     *testing.T
	name  string
	rooms *rooms.Service
	fed   *federation.Service
	api   *API

	mu   sync.Mutex
	lies map[string]http.HandlerFunc // by pattern of ServeMux
}

func (w *world) server(name string, more ...func(*Deps)) *server {
	w.t.Helper()
	store := storagetest.Open(w.t, storagetest.SQLiteURL(w.t))
	log := slog.New(slog.NewTextHandler(w.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})).With("server", name)
	room, err := rooms.New(context.Background(), store, name, w.clock, log)
	if err != nil {
		w.t.Fatal(err)
	}
	s := &server{t: w.t, name: name, rooms: room, lies: map[string]http.HandlerFunc{}}
	s.fed = federation.New(federation.Deps{
		Config: federation.Config{Roots: w.roots, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}, Store: store, Rooms: room, Clock: w.clock, Log: log, DNS: w,
		Exists: func(_ context.Context, user string) (bool, error) { return user != "@nobody:"+name, nil },
	})
	acc, err := accounts.New(context.Background(), store, accounts.Config{Server: name}, w.clock, log)
	if err != nil {
		w.t.Fatal(err)
	}
	files, err := media.New(media.Config{Dir: w.t.TempDir(), ServerName: name}, store, w.clock, log)
	if err != nil {
		w.t.Fatal(err)
	}
	d := Deps{Log: log, Federation: s.fed, Rooms: room, Accounts: acc, Media: files, E2EE: e2ee.New(store, name, log, e2ee.Deps{Rooms: room, Clock: w.clock})}
	for _, f := range more {
		f(&d)
	}
	s.api = New(d)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = s.fed.Run(ctx)
	}()
	certKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{name}}
	raw, err := x509.CreateCertificate(rand.Reader, tmpl, w.ca, certKey.Public(), w.key)
	if err != nil {
		w.t.Fatal(err)
	}
	h := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		mux := http.NewServeMux()
		for pattern, lie := range s.lies {
			mux.HandleFunc(pattern, lie)
		}
		s.mu.Unlock()
		if lie, pattern := mux.Handler(r); pattern != "" {
			lie.ServeHTTP(rw, r)
			return
		}
		recorded(s.api).ServeHTTP(rw, r)
	}))
	h.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{raw}, PrivateKey: certKey}}}
	h.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	h.EnableHTTP2 = true
	h.StartTLS()
	w.t.Cleanup(func() {
		cancel()
		<-ended
		h.Close()
	})
	_, port, _ := net.SplitHostPort(h.Listener.Addr().String())
	n, _ := strconv.Atoi(port)
	w.mu.Lock()
	w.ports[name] = uint16(n)
	w.mu.Unlock()
	return s
}

// lie has the server answer a pattern with a value instead of the truth.
func (s *server) lie(pattern string, v any) {
	raw, err := json.Marshal(v)
	if err != nil {
		s.t.Fatal(err)
	}
	s.answer(pattern, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(raw) })
}

func (s *server) answer(pattern string, h http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lies[pattern] = h
}

// ask has the server ask another one, with its signature.
func (s *server) ask(to *server, method, path string, body any) (gjson.Result, error) {
	var raw json.RawMessage
	switch b := body.(type) {
	case nil:
	case json.RawMessage:
		raw = b
	default:
		var err error
		if raw, err = json.Marshal(b); err != nil {
			s.t.Fatal(err)
		}
	}
	out, err := s.fed.Client.Do(s.t.Context(), federation.Ask{Server: to.name, Method: method, Path: path, Body: raw, Limit: 64 << 20})
	return gjson.ParseBytes(out), err
}

// plain asks a server over HTTP without a signature, as anybody may.
func (s *server) plain(method, path string, body any) (int, gjson.Result) {
	s.t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		s.t.Fatal(err)
	}
	rec := httptest.NewRecorder()
	recorded(s.api).ServeHTTP(rec, httptest.NewRequest(method, path, bytes.NewReader(raw)))
	return rec.Code, gjson.ParseBytes(rec.Body.Bytes())
}

// refused asks for what must not be given.
func (s *server) refused(to *server, status int, code, method, path string, body any) {
	s.t.Helper()
	out, err := s.ask(to, method, path, body)
	e := signalling.AsError(err)
	if err == nil || e.Status != status || e.Code != code {
		s.t.Errorf("%s %s: %s, %v; want %d %s", method, path, out.Raw, err, status, code)
	}
}

var txns struct {
	sync.Mutex
	n int
}

// send sends PDUs and gives the outcomes by event id.
func (s *server) send(to *server, pdus ...json.RawMessage) map[string]gjson.Result {
	s.t.Helper()
	txns.Lock()
	txns.n++
	id := strconv.Itoa(txns.n)
	txns.Unlock()
	out, err := s.ask(to, "PUT", "/_matrix/federation/v1/send/"+id, map[string]any{"origin": s.name, "origin_server_ts": 1, "pdus": pdus, "edus": []any{}})
	if err != nil {
		s.t.Fatalf("send: %v", err)
	}
	return out.Get("pdus").Map()
}

// create makes a room that everybody may enter and have its say.
func (s *server) create(v event.Version, user string) string {
	s.t.Helper()
	levels := `{"users":{"` + user + `":100},"state_default":50}`
	if v == "12" {
		levels = `{"state_default":50}`
	}
	id, err := s.rooms.Create(s.t.Context(), rooms.NewRoom{Version: v, Creator: user, Drafts: []rooms.Draft{
		{Sender: user, Type: "m.room.member", StateKey: &user, Content: json.RawMessage(`{"membership":"join"}`)},
		{Sender: user, Type: "m.room.power_levels", StateKey: new(string), Content: json.RawMessage(levels)},
		{Sender: user, Type: "m.room.join_rules", StateKey: new(string), Content: json.RawMessage(`{"join_rule":"public"}`)},
	}})
	if err != nil {
		s.t.Fatal(err)
	}
	return id
}

func (s *server) join(user, room string, via *server) {
	s.t.Helper()
	if err := s.fed.Join(s.t.Context(), federation.Entrance{RoomID: room, User: user, Via: []string{via.name}}); err != nil {
		s.t.Fatalf("%s joins: %v", user, err)
	}
}

func (s *server) room(id string) *rooms.Room {
	s.t.Helper()
	r, err := s.rooms.Room(s.t.Context(), id)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// build makes an event on the room as s knows it, signed by s, without sending or keeping it.
func (s *server) build(room string, p event.Proto, change ...func(prev *[]string, depth *int64)) *event.Event {
	s.t.Helper()
	r := s.room(room)
	head := r.Head()
	var prev []string
	depth := int64(0)
	for _, x := range head.Extremities() {
		prev = append(prev, x.ID)
		depth = max(depth, x.Depth)
	}
	depth++
	for _, f := range change {
		f(&prev, &depth)
	}
	p.RoomID = room
	e, err := event.Build(r.Version, p, prev, depth, r.StateView(s.t.Context(), head), s.rooms.Signer(), s.fed.Clock.Now())
	if err != nil {
		s.t.Fatal(err)
	}
	return e
}

// buildOn makes an event with whatever references, signed by s.
func (s *server) buildOn(room string, p event.Proto, prev, auth []string, depth int64) *event.Event {
	s.t.Helper()
	p.RoomID = room
	e, err := event.BuildOn(s.room(room).Version, p, prev, auth, depth, s.rooms.Signer(), s.fed.Clock.Now())
	if err != nil {
		s.t.Fatal(err)
	}
	return e
}

// level says what power a user has in a room as s knows it.
func (s *server) level(room, user string) int64 {
	s.t.Helper()
	r := s.room(room)
	p, err := event.PowerOf(r.StateView(s.t.Context(), r.Head()))
	if err != nil {
		s.t.Fatal(err)
	}
	return p.User(user)
}

// stateID is the event that sets a piece of state of a room, "" for none.
func (s *server) stateID(room, typ, key string) string {
	ref, _ := s.room(room).Head().Ref(typ, key)
	return ref.ID
}

func (s *server) say(room, user, text string) *event.Event {
	s.t.Helper()
	c, _ := json.Marshal(map[string]string{"msgtype": "m.text", "body": text})
	return s.build(room, event.Proto{Sender: user, Type: "m.room.message", Content: c})
}

// has says whether an event is in the timeline of a room.
func (s *server) has(room, id string) bool {
	s.t.Helper()
	e, err := s.room(room).Event(s.t.Context(), id)
	if err != nil {
		s.t.Fatal(err)
	}
	return e != nil
}

func esc(s string) string { return url.PathEscape(s) }

// honest ends all lies.
func (s *server) honest() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.lies)
}

func entrance(user, room string, via *server) federation.Entrance {
	return federation.Entrance{RoomID: room, User: user, Via: []string{via.name}}
}

// catchUp brings to a server what another one has of a room.
func catchUp(t *testing.T, from, to *server, room string) {
	t.Helper()
	for _, x := range from.room(room).Head().Extremities() {
		e, err := from.room(room).ByRef(t.Context(), rooms.Ref{NID: x.NID, ID: x.ID}) // it may be one that clients are not shown
		if err != nil || e == nil {
			t.Fatalf("%v, %v", e, err)
		}
		if out := from.send(to, e.JSON()); out[x.ID].Get("error").Str != "" {
			t.Fatalf("%v", out)
		}
	}
}
