// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"
	"google.golang.org/protobuf/proto"

	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/sfu/livekit/wire"
	"github.com/trunkboard/trunkboard/signalling/meeting"
)

// visitor is somebody at a meeting, as a page of his would be.
type visitor struct {
	*caller
	name string // of the meeting
	entry
	status int

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at each message of the SFU
	state   meeting.State
	people  map[string]*wire.ParticipantInfo
	leave   *wire.LeaveRequest
	closed  bool
	ws      *websocket.Conn
	writing sync.Mutex
	media   *wires // nil: the WebSocket only
}

// entry is an answer of /join and /wait.
type entry struct {
	meeting.Entry
	Code string `json:"errcode"`
}

func meetPath(name, what string) string {
	p := "/_trunkboard/meet/v1/" + url.PathEscape(name)
	if what != "" {
		p += "/" + what
	}
	return p
}

// comes asks to be let into a meeting.
func comes(t *testing.T, c *caller, name string, body map[string]any) *visitor {
	t.Helper()
	if body == nil {
		body = map[string]any{}
	}
	v := &visitor{caller: c, name: name, changed: make(chan struct{}), people: map[string]*wire.ParticipantInfo{}}
	v.ask1("join", body)
	return v
}

func guest(t *testing.T, a *App) *caller {
	return &caller{t: t, base: "http://" + a.Addr("listen.client")}
}

// ask1 sends a request whose answer is an entry.
func (v *visitor) ask1(what string, body map[string]any) {
	v.t.Helper()
	status, m := v.ask("POST", meetPath(v.name, what), body)
	b, _ := json.Marshal(m)
	v.entry = entry{}
	if err := json.Unmarshal(b, &v.entry); err != nil {
		v.t.Fatal(err)
	}
	v.status = status
}

func (v *visitor) in() *visitor {
	v.t.Helper()
	if v.status != http.StatusOK || v.Media == nil {
		v.t.Fatalf("not let in: %d %+v", v.status, v.entry)
	}
	return v
}

// talks enters the SFU and follows what it says.
func (v *visitor) talks() *visitor {
	v.t.Helper()
	v.in()
	ws, res, err := websocket.DefaultDialer.Dial(v.Media.URL+"/rtc?access_token="+url.QueryEscape(v.Media.Token), nil)
	if err != nil {
		v.t.Fatalf("the SFU: %v %v", err, res)
	}
	v.mu.Lock()
	v.ws, v.leave, v.closed = ws, nil, false
	v.mu.Unlock()
	joined := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		v.follow(ws, joined)
	}()
	v.t.Cleanup(func() { _ = ws.Close(); <-ended })
	select {
	case <-joined:
	case <-ended:
		v.t.Fatal("the SFU let nobody in")
	case <-time.After(time.Minute):
		v.t.Fatal("no answer of the SFU")
	}
	return v
}

// told changes what the visitor has seen.
func (v *visitor) told(f func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	f()
	close(v.changed)
	v.changed = make(chan struct{})
}

func (v *visitor) follow(ws *websocket.Conn, joined chan struct{}) {
	described := func(r *wire.Room) {
		if r.GetMetadata() != "" {
			v.state = meeting.State{}
			_ = json.Unmarshal([]byte(r.GetMetadata()), &v.state)
		}
	}
	for {
		_, b, err := ws.ReadMessage()
		if err != nil {
			v.told(func() { v.closed = v.closed || v.ws == ws })
			return
		}
		m := &wire.SignalResponse{}
		if proto.Unmarshal(b, m) != nil {
			continue
		}
		if v.media != nil {
			v.media.negotiates(ws, m)
		}
		v.told(func() {
			switch {
			case m.GetJoin() != nil:
				described(m.GetJoin().GetRoom())
				for _, p := range append(m.GetJoin().GetOtherParticipants(), m.GetJoin().GetParticipant()) {
					v.people[p.GetIdentity()] = p
				}
				close(joined)
			case m.GetRoomUpdate() != nil:
				described(m.GetRoomUpdate().GetRoom())
			case m.GetUpdate() != nil:
				for _, p := range m.GetUpdate().GetParticipants() {
					v.people[p.GetIdentity()] = p
					if p.GetState() == wire.ParticipantInfo_DISCONNECTED {
						delete(v.people, p.GetIdentity())
					}
				}
			case m.GetLeave() != nil:
				v.leave = m.GetLeave()
			}
		})
	}
}

// until waits until the visitor has seen something.
func (v *visitor) until(what string, is func() bool) {
	v.t.Helper()
	end := time.After(time.Minute)
	for {
		v.mu.Lock()
		ok, next := is(), v.changed
		v.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-next:
		case <-end:
			v.mu.Lock()
			defer v.mu.Unlock()
			v.t.Fatalf("%s: not seen; the state is %+v", what, v.state)
		}
	}
}

// acts is what a host does; it must be done.
func (v *visitor) acts(action string, more map[string]any) {
	v.t.Helper()
	if status, m := v.act(action, more); status != http.StatusOK {
		v.t.Fatalf("%s: %d %v", action, status, m)
	}
}

func (v *visitor) act(action string, more map[string]any) (int, map[string]any) {
	v.t.Helper()
	body := map[string]any{"session": v.Session, "action": action}
	for k, x := range more {
		body[k] = x
	}
	return (&caller{t: v.t, base: v.base}).ask("POST", meetPath(v.name, "host"), body)
}

// raw sends a request as it is.
func raw(t *testing.T, method, url, kind, auth, body string) (int, http.Header, string) {
	t.Helper()
	r, err := http.NewRequest(method, url, bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	if auth != "" {
		r.Header.Set("Authorization", auth)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	return res.StatusCode, res.Header, string(b)
}

// eachStore runs f on an App with SQLite, and on one with PostgreSQL.
func eachStore(t *testing.T, f func(t *testing.T, set ...string)) {
	t.Run("sqlite", func(t *testing.T) { f(t) })
	t.Run("postgres", func(t *testing.T) { f(t, "database.url="+storagetest.PostgresURL(t)) })
}

func TestTwoGuestsMeetByALink(t *testing.T) {
	eachStore(t, func(t *testing.T, set ...string) {
		a, _ := start(t, testConfig(t, set...))
		who := guest(t, a)
		want := map[string]any{
			"name": "daily-stand-up", "exists": false, "subject": "", "access": "open", "e2ee": false, "participants": 0.0, "may_create": true,
			"sign_in_required": false, "jwt_required": false,
		}
		if diff := cmp.Diff(want, who.must("GET", meetPath("Daily Stand up", ""), nil)); diff != "" {
			t.Error(diff)
		}
		ann := comes(t, guest(t, a), "Daily Stand up", map[string]any{"display_name": "Ann <b>", "avatar_url": "https://example.org/a.png"}).talks()
		if !ann.Host || ann.DisplayName != "Ann <b>" || ann.Matrix == nil || ann.Matrix.AccessToken == "" || ann.RoomID == "" {
			t.Errorf("%+v", ann.entry)
		}
		bob := comes(t, guest(t, a), "daily-stand-up", map[string]any{"display_name": "Bob"}).talks()
		if bob.Host || bob.RoomID != ann.RoomID || bob.Identity == ann.Identity {
			t.Errorf("%+v", bob.entry)
		}
		bob.until("the state", func() bool { return bob.state.Started > 0 })
		if diff := cmp.Diff(meeting.State{
			V: 1, Name: "daily-stand-up", Hosts: []string{ann.Identity}, Started: bob.state.Started, MayUnmute: meeting.Unmute{Audio: true, Video: true},
		}, bob.state); diff != "" {
			t.Error(diff)
		}
		p := bob.people[ann.Identity]
		if p.GetName() != "Ann <b>" || p.GetMetadata() != `{"avatar_url":"https://example.org/a.png","user_id":"`+ann.UserID+`"}` {
			t.Errorf("%v", p)
		}
		// The chat is the room's.
		ann.token, bob.token = ann.Matrix.AccessToken, bob.Matrix.AccessToken
		room := "/_matrix/client/v3/rooms/" + url.PathEscape(ann.RoomID)
		ann.must("PUT", room+"/send/m.room.message/1", map[string]any{"msgtype": "m.text", "body": "hello"})
		heard := bob.must("GET", room+"/messages?dir=b&limit=5", nil)["chunk"].([]any)
		if !slices.ContainsFunc(heard, func(e any) bool { return e.(map[string]any)["type"] == "m.room.message" }) {
			t.Errorf("%v", heard)
		}
		if m := who.must("GET", meetPath("daily-stand-up", ""), nil); m["exists"] != true || m["participants"] != 2.0 {
			t.Errorf("%v", m)
		}
	})
}
