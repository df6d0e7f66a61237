// SPDX-License-Identifier: Apache-2.0

package livekit

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"github.com/trunkboard/trunkboard/sfu"
	"github.com/trunkboard/trunkboard/sfu/livekit/wire"
	"google.golang.org/protobuf/proto"
)

// Limits of what a client may send.
const (
	maxJoinRequest = 1 << 20 // bytes, unpacked
	maxFrame       = 1 << 20 // bytes
	protocol       = 17      // version of the signalling protocol
)

// ICEServer is a STUN or TURN server that clients may use.
type ICEServer struct {
	URLs                 []string
	Username, Credential string
}

// spoken is the version of LiveKit whose protocol the server speaks. Clients refuse to call methods of others below 1.8.0.
const spoken = "1.13.5"

// Config of a Server.
type Config struct {
	Engine *sfu.Engine
	Keys   Keys
	// AutoCreate lets everybody with a token make the room it names; without it the room must exist or the token allow to create it.
	AutoCreate bool
	// Admit is asked before somebody with a good token joins or comes back; may be nil. With create the room is made if need be. Its
	// error is shown to the client.
	Admit func(ctx context.Context, c *Claims) (create bool, err error)
	// ICEServers gives the servers for a participant; may be nil.
	ICEServers func(identity string) []ICEServer
	// Version is told to clients, who conclude from it what LiveKit's server of that version could; default the one that is spoken here.
	Version, Region string
	// PingEvery and PingTimeout are told to clients; defaults 5 and 15 s. A client that is not heard for twice PingTimeout is cut off.
	PingEvery, PingTimeout time.Duration
	// ResumeWithin is how long a participant may come back after its WebSocket broke; default 15 s.
	ResumeWithin time.Duration
	Log          *slog.Logger
}

// Server is the HTTP side.
type Server struct {
	cfg      Config
	log      *slog.Logger
	upgrader websocket.Upgrader
	node     string
	trailer  []byte
	calls    map[string]call
	ctx      context.Context
	cancel   context.CancelFunc
	wait     sync.WaitGroup
	buffers  sync.Pool // *bytes.Buffer, for messages that come
	mu       sync.Mutex
	closed   bool
	sessions map[*session]struct{} // that are read
	watching bool                  // watch runs
}

// New makes a server.
func New(cfg Config) *Server {
	if cfg.PingEvery == 0 {
		cfg.PingEvery = 5 * time.Second
	}
	if cfg.PingTimeout == 0 {
		cfg.PingTimeout = 15 * time.Second
	}
	if cfg.ResumeWithin == 0 {
		cfg.ResumeWithin = 15 * time.Second
	}
	if cfg.Version == "" {
		cfg.Version = spoken
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		cfg: cfg, log: cfg.Log, node: "ND_" + rand.Text()[:12], trailer: []byte(rand.Text()), calls: calls(), sessions: map[*session]struct{}{},
		// Tokens, not cookies, say who it is, so a page of any origin may connect.
		upgrader: websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }, ReadBufferSize: 4096, WriteBufferSize: 4096, WriteBufferPool: &sync.Pool{}},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Close cuts all connections and waits for them. The engine is closed by its owner, before.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.wait.Wait()
}

// Handler serves the paths of the package comment, at the root.
func (s *Server) Handler() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /rtc", func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, false) })
	m.HandleFunc("GET /rtc/v1", func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, true) })
	m.HandleFunc("GET /rtc/validate", func(w http.ResponseWriter, r *http.Request) { s.validate(w, r, false) })
	m.HandleFunc("GET /rtc/v1/validate", func(w http.ResponseWriter, r *http.Request) { s.validate(w, r, true) })
	m.HandleFunc("POST "+servicePath, s.service)
	// Clients ask this to find out whether they are online.
	m.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		_, _ = io.WriteString(w, "OK")
	})
	return m
}

// refusal is an answer before the upgrade.
type refusal struct {
	status int
	text   string
}

func (r *refusal) Error() string { return r.text }

// noRoom is the text that clients look for.
const noRoom = "requested room does not exist"

// join is a checked request to join.
type join struct {
	claims   *Claims
	room     *sfu.Room
	single   bool
	request  *wire.JoinRequest
	resuming string // SID
}

// check reads a request.
func (s *Server) check(r *http.Request, single bool) (*join, error) {
	c, err := s.cfg.Keys.join(r)
	if err != nil {
		return nil, &refusal{http.StatusUnauthorized, err.Error()}
	}
	j := &join{claims: c, single: single}
	if single {
		j.request, err = readJoinRequest(r.URL.Query().Get("join_request"))
		if err != nil {
			return nil, &refusal{http.StatusBadRequest, err.Error()}
		}
	} else {
		j.request = queryJoinRequest(r)
	}
	if j.request.GetReconnect() {
		j.resuming = j.request.GetParticipantSid()
	}
	create := s.cfg.AutoCreate || c.Video.RoomCreate
	if s.cfg.Admit != nil {
		admitted, err := s.cfg.Admit(r.Context(), c)
		if err != nil {
			return nil, &refusal{http.StatusForbidden, err.Error()}
		}
		create = create || admitted
	}
	j.room, err = s.cfg.Engine.Room(c.Video.Room, create)
	switch {
	case errors.Is(err, sfu.ErrNoRoom):
		return nil, &refusal{http.StatusNotFound, noRoom}
	case err != nil:
		return nil, &refusal{http.StatusServiceUnavailable, "no room for another room"}
	}
	return j, nil
}

// queryJoinRequest makes a join request of the parameters of /rtc.
func queryJoinRequest(r *http.Request) *wire.JoinRequest {
	q := r.URL.Query()
	yes := func(key string, otherwise bool) bool {
		b, err := strconv.ParseBool(q.Get(key))
		if err != nil {
			return otherwise
		}
		return b
	}
	v, _ := strconv.Atoi(q.Get("protocol"))
	return &wire.JoinRequest{
		ClientInfo:         &wire.ClientInfo{Protocol: int32(v), Version: q.Get("version"), Browser: q.Get("browser")},
		ConnectionSettings: &wire.ConnectionSettings{AutoSubscribe: yes("auto_subscribe", true), AdaptiveStream: yes("adaptive_stream", false)},
		Reconnect:          yes("reconnect", false), ParticipantSid: q.Get("sid"),
	}
}

// readJoinRequest unpacks the join_request parameter of /rtc/v1.
func readJoinRequest(text string) (*wire.JoinRequest, error) {
	if text == "" {
		return nil, errors.New("livekit: join_request is missing")
	}
	b, err := base64.URLEncoding.DecodeString(text)
	if err != nil {
		if b, err = base64.RawURLEncoding.DecodeString(strings.TrimRight(text, "=")); err != nil {
			return nil, errors.New("livekit: join_request is not base64url")
		}
	}
	var wrapped wire.WrappedJoinRequest
	if err := proto.Unmarshal(b, &wrapped); err != nil {
		return nil, errors.New("livekit: join_request is not a WrappedJoinRequest")
	}
	b = wrapped.GetJoinRequest()
	switch wrapped.GetCompression() {
	case wire.WrappedJoinRequest_NONE:
	case wire.WrappedJoinRequest_GZIP:
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			return nil, errors.New("livekit: join_request is not gzip")
		}
		if b, err = io.ReadAll(io.LimitReader(z, maxJoinRequest+1)); err != nil {
			return nil, errors.New("livekit: join_request is not gzip")
		}
		if len(b) > maxJoinRequest {
			return nil, fmt.Errorf("livekit: join_request is over %d bytes", maxJoinRequest)
		}
	default:
		return nil, errors.New("livekit: join_request has an unknown compression")
	}
	request := &wire.JoinRequest{}
	if err := proto.Unmarshal(b, request); err != nil {
		return nil, errors.New("livekit: join_request is not a JoinRequest")
	}
	return request, nil
}

func refuse(w http.ResponseWriter, err error) {
	w.Header().Set("Access-Control-Allow-Origin", "*")
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	status := http.StatusInternalServerError
	var r *refusal
	if errors.As(err, &r) {
		status = r.status
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, err.Error())
}

// validate answers why joining would fail, or "success".
func (s *Server) validate(w http.ResponseWriter, r *http.Request, single bool) {
	if _, err := s.check(r, single); err != nil {
		refuse(w, err)
		return
	}
	w.Header().Set("Access-Control-Allow-Origin", "*")
	_, _ = io.WriteString(w, "success")
}

// serve upgrades to a WebSocket and runs it.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, single bool) {
	if !websocket.IsWebSocketUpgrade(r) {
		http.NotFound(w, r)
		return
	}
	j, err := s.check(r, single)
	if err != nil {
		refuse(w, err)
		return
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		refuse(w, &refusal{http.StatusServiceUnavailable, "shutting down"})
		return
	}
	s.wait.Add(1)
	s.mu.Unlock()
	defer s.wait.Done()
	ws, err := s.upgrader.Upgrade(hijacker{w}, r, nil)
	if err != nil {
		return // Upgrade has answered
	}
	ws.SetReadLimit(maxFrame)
	newSession(s, ws, j).run()
}

// enter notes a session that is read, leave that it is not any more.
func (s *Server) enter(x *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions[x] = struct{}{}
	if !s.watching {
		s.watching = true
		s.wait.Go(s.watch)
	}
}

func (s *Server) leave(x *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, x)
}

// watch cuts off clients that are silent, while there are any: one timer for all, because a deadline of each connection would wake the
// process for each.
func (s *Server) watch() {
	t := time.NewTicker(max(s.cfg.PingTimeout/2, time.Millisecond))
	defer t.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-t.C:
		}
		if !s.cutSilent(time.Now().Add(-2 * s.cfg.PingTimeout)) {
			return
		}
	}
}

// cutSilent cuts off who was last heard before a moment; false if there is nobody to watch.
func (s *Server) cutSilent(before time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for x := range s.sessions {
		if x.heard.Load() < before.UnixNano() {
			x.cut()
		}
	}
	s.watching = len(s.sessions) > 0
	return s.watching
}
