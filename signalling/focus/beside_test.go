// SPDX-License-Identifier: Apache-2.0

package focus

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/clocktest"
	"github.com/trunkboard/trunkboard/signalling/matrixrtc"
)

// synapse answers as a Synapse 1.160 does (loadtest/interop asks a real one), or as told.
type synapse struct {
	mu      sync.Mutex
	rooms   map[string][]string // members by room
	devices map[string][]string // by user of its own
	openID  map[string]string   // users by token
	tell    func(w http.ResponseWriter, r *http.Request) bool
	asked   []string
	log     bytes.Buffer
}

const adminToken = "syt_administrator"

func (s *synapse) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, r.URL.EscapedPath())
	if s.tell != nil && s.tell(w, r) {
		return
	}
	say := func(status int, v any) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(v)
	}
	refuse := func(status int, code string) { say(status, map[string]string{"errcode": code, "error": "no"}) }
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch {
	case r.URL.Path == "/_matrix/federation/v1/openid/userinfo":
		if user := s.openID[r.URL.Query().Get("access_token")]; user != "" {
			say(200, map[string]string{"sub": user})
			return
		}
		refuse(401, "M_UNKNOWN_TOKEN")
	case parts[0] != "_synapse":
		refuse(404, "M_UNRECOGNIZED")
	case r.Header.Get("Authorization") == "Bearer syt_user":
		refuse(403, "M_FORBIDDEN")
	case r.Header.Get("Authorization") != "Bearer "+adminToken:
		refuse(401, "M_UNKNOWN_TOKEN")
	case strings.HasSuffix(r.URL.Path, "/joined_rooms"): // of users that it does not know too
		in := []string{}
		for room, members := range s.rooms {
			if slices.Contains(members, parts[4]) {
				in = append(in, room)
			}
		}
		say(200, map[string]any{"joined_rooms": in, "total": len(in)})
	case strings.HasSuffix(r.URL.Path, "/members"):
		members, ok := s.rooms[parts[4]]
		if !ok {
			refuse(404, "M_NOT_FOUND")
			return
		}
		say(200, map[string]any{"members": members, "total": len(members)})
	case strings.HasPrefix(r.URL.Path, "/_synapse/admin/v2/") && strings.HasSuffix(r.URL.Path, "/devices"):
		devices, ok := s.devices[parts[4]]
		if !ok {
			refuse(404, "M_NOT_FOUND")
			return
		}
		list := []map[string]string{}
		for _, d := range devices {
			list = append(list, map[string]string{"device_id": d, "user_id": parts[4]})
		}
		say(200, map[string]any{"devices": list, "total": len(list)})
	default:
		refuse(404, "M_UNRECOGNIZED")
	}
}

func (s *synapse) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// questions are those since the last call.
func (s *synapse) questions() (asked []string) {
	s.change(func() { asked, s.asked = s.asked, nil })
	return asked
}

func newSynapse(t *testing.T) (*synapse, Beside, *httptest.Server) {
	t.Helper()
	s := &synapse{
		rooms:   map[string][]string{"!r:test": {"@alice:test", "@bob:else"}, "!none:test": {}},
		devices: map[string][]string{"@alice:test": {"X", "A"}, "@eve:test": {}},
		openID:  map[string]string{"alice's": "@alice:test"},
	}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	client := NewClient()
	t.Cleanup(client.CloseIdleConnections)
	return s, Beside{ServerName: "test", URL: server.URL, Token: adminToken, Elsewhere: liars{}, Client: client}, server
}

// liars is other servers: the token is what they answer.
type liars struct{}

func (liars) OpenIDUser(_ context.Context, _, token string) (string, error) {
	if token == "" {
		return "", errors.New("no such token")
	}
	return token, nil
}

func status(err error) int {
	if err == nil {
		return 200
	}
	return signalling.AsError(err).Status
}

func TestASynapseTellsAnAdministratorWhoIsInARoomAndLoggedIn(t *testing.T) {
	s, b, server := newSynapse(t)
	for _, c := range []struct {
		name, room, user, device string
		want                     int
	}{
		{"a member", "!r:test", "@alice:test", "A", 200},
		{"without a device", "!r:test", "@alice:test", "", 200},
		{"logged out", "!r:test", "@alice:test", "B", 403},
		{"another server's member, whose devices it does not know", "!r:test", "@bob:else", "any", 200},
		{"not in the room", "!r:test", "@eve:test", "A", 403},
		{"unknown room", "!s:test", "@alice:test", "A", 403},
		{"unknown user", "!r:test", "@nobody:test", "A", 403},
		{"a name that a proxy would tidy up", "!r:test", "@x/../@alice:test", "", 403},
	} {
		if got := status(b.Present(t.Context(), c.room, c.user, c.device)); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
	if users, err := b.Joined(t.Context(), "!r:test"); err != nil || !slices.Equal(users, []string{"@alice:test", "@bob:else"}) {
		t.Errorf("%v %v", users, err)
	}
	for _, room := range []string{"!s:test", "!x/../r:test"} {
		if users, err := b.Joined(t.Context(), room); err != nil || users != nil {
			t.Errorf("%s: %v %v", room, users, err)
		}
	}
	for _, token := range []string{"syt_user", "syt_wrong"} {
		wrong := b
		wrong.Token = token
		_, err := wrong.Joined(t.Context(), "!r:test")
		if e := wrong.Present(t.Context(), "!r:test", "@alice:test", "A"); status(e) != 502 || status(err) != 502 || status(wrong.LoggedIn(t.Context(), "@alice:test", "A")) != 502 {
			t.Errorf("%s: %v %v", token, e, err)
		}
	}
	none := b
	none.Token = ""
	s.questions()
	if err := none.Present(t.Context(), "!r:test", "@eve:test", "B"); err != nil || len(s.questions()) != 0 {
		t.Error("without a token nobody is asked", err)
	}
	server.Close()
	_, err := b.Joined(t.Context(), "!r:test")
	if e := b.Present(t.Context(), "!r:test", "@alice:test", "A"); status(e) != 502 || status(err) != 502 {
		t.Errorf("%v %v", e, err)
	}
}

// What is no answer to the question says nothing about anybody.
func TestStrangeAnswersOfTheHomeserverPutNobodyOut(t *testing.T) {
	s, b, _ := newSynapse(t)
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirect is followed") }))
	defer elsewhere.Close()
	for name, tell := range map[string]func(w http.ResponseWriter, r *http.Request){
		"empty object": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{}`) },
		"null":         func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `null`) },
		"another shape": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"joined_rooms":7,"members":{},"devices":""}`)
		},
		"a page":        func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `<html>`) },
		"a proxy's 404": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) },
		"no such endpoint": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(404)
			_, _ = io.WriteString(w, `{"errcode":"M_UNRECOGNIZED"}`)
		},
		"too many requests": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(429)
			_, _ = io.WriteString(w, `{"errcode":"M_LIMIT_EXCEEDED"}`)
		},
		"broken": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(500)
			_, _ = io.WriteString(w, `{"errcode":"M_NOT_FOUND"}`)
		},
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL+"/steal", http.StatusTemporaryRedirect)
		},
	} {
		s.change(func() {
			s.tell = func(w http.ResponseWriter, r *http.Request) bool { tell(w, r); return true }
		})
		_, err := b.Joined(t.Context(), "!r:test")
		if e := b.Present(t.Context(), "!r:test", "@alice:test", "A"); status(e) != 502 || status(err) != 502 || status(b.LoggedIn(t.Context(), "@alice:test", "A")) != 502 {
			t.Errorf("%s: %v, %v", name, e, err)
		}
		if _, _, err := b.OpenIDUser(t.Context(), "test", "alice's"); err == nil {
			t.Errorf("%s: the token is good", name)
		}
	}
	// A list that is too long is none; the members are asked for one by one.
	s.change(func() {
		s.tell = func(w http.ResponseWriter, r *http.Request) bool {
			if strings.HasSuffix(r.URL.Path, "/members") {
				_, _ = io.WriteString(w, `{"members":["`+strings.Repeat("x", besideList)+`"]}`)
				return true
			}
			return false
		}
	})
	if users, err := b.Joined(t.Context(), "!r:test"); users != nil || err != nil {
		t.Errorf("%d users, %v", len(users), err)
	}
}

func TestOpenIDTokensNameUsersOfTheirServerOnly(t *testing.T) {
	s, b, server := newSynapse(t)
	if user, _, err := b.OpenIDUser(t.Context(), "test", "alice's"); user != "@alice:test" || err != nil {
		t.Error(user, err)
	}
	if _, _, err := b.OpenIDUser(t.Context(), "test", "no token"); status(err) != 401 {
		t.Error(err)
	}
	for _, user := range []string{"@mallory:liar.test", "@a.b/c=d:liar.test"} {
		if got, _, err := b.OpenIDUser(t.Context(), "liar.test", user); got != user || err != nil {
			t.Error(got, err)
		}
	}
	for _, user := range []string{
		"", "mallory:liar.test", "@mallory", "@alice:test", "@mallory:liar.test:8448", "@mallory:LIAR.test", "@mallory:liar.testx", "@alice:test:liar.test",
		"@x/../../rooms:liar.test", "@x\\..\\y:liar.test", "@x//y:liar.test", "@x\n:liar.test", "@" + strings.Repeat("x", 255) + ":liar.test",
	} {
		if got, _, err := b.OpenIDUser(t.Context(), "liar.test", user); status(err) != 401 {
			t.Errorf("%q: %q %v", user, got, err)
		}
	}
	// The listener has no OpenID, says Synapse: that is the operator's to see.
	s.change(func() { s.tell = func(w http.ResponseWriter, r *http.Request) bool { r.URL.Path = "/"; return false } })
	if _, _, err := b.OpenIDUser(t.Context(), "test", "alice's"); status(err) != 502 {
		t.Error(err)
	}
	server.Close()
	if _, _, err := b.OpenIDUser(t.Context(), "test", "alice's"); status(err) != 502 || strings.Contains(err.Error(), "alice") {
		t.Errorf("a token for the log: %v", err)
	}
}

func TestADelayedEventIsNamedByOnePartOfAPath(t *testing.T) {
	_, b, _ := newSynapse(t)
	for id, good := range map[string]bool{"syd_abc": true, "a b": false, "..": false, ".": false, "a/../b": false, "x\r\n": false} {
		if _, _, err := b.Delay(t.Context(), "@alice:test", "!r:test", id, time.Hour); (err == nil) != good {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestADeviceIsNoPartOfAServersName(t *testing.T) {
	_, s := newTown()
	s.Homeserver.(*town).present["!r:test @alice:test:8448"] = true
	for _, c := range []struct {
		user, device string
		good         bool
	}{{"@alice:test:8448", "A", true}, {"@alice:test", "8448:A", false}, {"@alice:test", "A:8448", true}} {
		m := Member{RoomID: "!r:test", SlotID: matrixrtc.RoomSlot, UserID: c.user, DeviceID: c.device, Form: Plain}
		if _, err := s.Grant(t.Context(), m, false); (err == nil) != c.good {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestSoManyQuestionsToOtherServersAreUnderWay(t *testing.T) {
	_, s := newTown()
	ask := func(server string) int {
		t.Helper()
		body := `{"room":"!r:test","device_id":"D","openid_token":{"access_token":"@alice:` + server + `/D","matrix_server_name":"` + server + `"}}`
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, httptest.NewRequest("POST", "/sfu/get", strings.NewReader(body)))
		return w.Code
	}
	s.Homeserver.(*town).present["!r:test @alice:else"] = true
	if got := ask("else"); got != 200 || len(s.asking) != 0 {
		t.Error(got, len(s.asking))
	}
	for range questions {
		s.asking <- struct{}{}
	}
	if own, other := ask("test"), ask("else"); own != 200 || other != 429 {
		t.Errorf("own %d, of another server %d", own, other)
	}
}

// newBeside is a token service beside a Synapse, with alice's two devices and bob in the SFU; what it logs goes to the synapse's log.
func newBeside(t *testing.T) (*synapse, *town, *watcher, *clocktest.Clock) {
	t.Helper()
	y, b, _ := newSynapse(t)
	y.devices["@alice:test"] = []string{"A", "B"}
	w, s := newTown()
	clock := s.Clock.(*clocktest.Clock)
	s.Homeserver, s.Watch, s.Log = b, b, slog.New(slog.NewTextHandler(&y.log, nil))
	for _, m := range []Member{aliceHere, aliceThere, bobHere} {
		if err := admit(t, s, m.MediaRoom(), m.Identity(), m.holder()); err != nil {
			t.Fatal(err)
		}
		s.Came(m.MediaRoom(), m.Identity(), "PA_"+m.DeviceID)
	}
	y.questions()
	return y, w, &watcher{Service: s, pause: watchEvery}, clock
}

var (
	aliceThere = Member{RoomID: "!r:test", SlotID: matrixrtc.RoomSlot, UserID: "@alice:test", DeviceID: "B", Form: Plain}
	bobHere    = Member{RoomID: "!r:test", SlotID: matrixrtc.RoomSlot, UserID: "@bob:else", DeviceID: "C", MemberID: "m", Form: DeviceHashed}
)

// gone is who was taken out, each of whom is told to the service as the SFU would.
func gone(t *testing.T, w *town, s *Service, members ...Member) {
	t.Helper()
	s.work.Wait()
	got, want := []string{}, []string{}
	for _, m := range members {
		want = append(want, m.Identity())
		s.Went(m.MediaRoom(), m.Identity(), "PA_"+m.DeviceID, false, false)
	}
	for len(w.removed) > 0 {
		got = append(got, <-w.removed)
	}
	slices.Sort(got)
	slices.Sort(want)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("taken out: %s", d)
	}
}

const (
	members = "/_synapse/admin/v1/rooms/%21r:test/members"
	devices = "/_synapse/admin/v2/users/@alice:test/devices"
)

func TestWhoLeavesTheRoomOfAnotherHomeserverIsTakenOutOfTheSFU(t *testing.T) {
	y, w, s, clock := newBeside(t)
	if pause := s.round(t.Context()); pause != watchEvery {
		t.Error(pause)
	}
	gone(t, w, s.Service)
	if d := cmp.Diff([]string{members}, y.questions()); d != "" {
		t.Errorf("a room is one question: %s", d)
	}
	y.change(func() { y.rooms["!r:test"] = []string{"@alice:test"} }) // bob is kicked
	s.round(t.Context())
	gone(t, w, s.Service, bobHere)
	if err := admit(t, s.Service, bobHere.MediaRoom(), bobHere.Identity(), bobHere.holder()); status(err) != 403 {
		t.Errorf("comes back: %v", err)
	}
	y.questions()

	y.change(func() { y.devices["@alice:test"] = []string{"A"} }) // one device logs out
	s.round(t.Context())
	gone(t, w, s.Service)
	clock.Advance(devicesEvery)
	s.round(t.Context())
	gone(t, w, s.Service, aliceThere)
	if d := cmp.Diff([]string{members, members, devices, devices}, y.questions()); d != "" {
		t.Error(d)
	}
	clock.Advance(devicesEvery / 2)
	s.round(t.Context())
	if d := cmp.Diff([]string{members}, y.questions()); d != "" {
		t.Errorf("devices are asked for less often: %s", d)
	}

	y.change(func() { delete(y.rooms, "!r:test") }) // the room is deleted
	s.round(t.Context())
	gone(t, w, s.Service, aliceHere)
	y.questions()
	if s.round(t.Context()); len(y.questions()) != 0 {
		t.Error("asked for nobody")
	}
}

func TestAListThatIsLateTakesNobodyOut(t *testing.T) {
	y, w, s, _ := newBeside(t)
	y.tell = func(rw http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/members") {
			return false
		}
		_, _ = io.WriteString(rw, `{"members":[],"total":0}`)
		return true
	}
	s.round(t.Context())
	gone(t, w, s.Service)
	// Bob is kicked, and is back with another session when the answer about him comes.
	y.change(func() {
		y.tell = nil
		y.rooms["!r:test"] = []string{"@alice:test"}
	})
	s.Homeserver = back{s.Homeserver, func() {
		y.change(func() { y.rooms["!r:test"] = []string{"@alice:test", "@bob:else"} })
		s.Homeserver = s.Homeserver.(back).Homeserver
		if err := admit(t, s.Service, bobHere.MediaRoom(), bobHere.Identity(), bobHere.holder()); err != nil {
			t.Error(err)
		}
		s.Came(bobHere.MediaRoom(), bobHere.Identity(), "PA_2")
	}}
	s.round(t.Context())
	gone(t, w, s.Service)
	if s.Count() != 3 {
		t.Errorf("%d members", s.Count())
	}
}

// back lets something happen between an answer of the homeserver and its use.
type back struct {
	Homeserver
	then func()
}

func (b back) Present(ctx context.Context, room, user, device string) error {
	err := b.Homeserver.Present(ctx, room, user, device)
	b.then()
	return err
}

func TestAHomeserverThatIsDownIsAskedLessAndLessAndNobodyIsTakenOut(t *testing.T) {
	y, w, s, _ := newBeside(t)
	second := Member{RoomID: "!a:test", SlotID: matrixrtc.RoomSlot, UserID: "@alice:test", DeviceID: "A", Form: Plain}
	y.change(func() { y.rooms["!a:test"] = []string{"@alice:test"} })
	if err := admit(t, s.Service, second.MediaRoom(), second.Identity(), second.holder()); err != nil {
		t.Fatal(err)
	}
	s.Came(second.MediaRoom(), second.Identity(), "PA_S")
	y.questions()
	y.change(func() {
		y.rooms = map[string][]string{"!a:test": {}, "!r:test": {}}
		y.tell = func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(503); return true }
	})
	var pauses []time.Duration
	for range 8 {
		pauses = append(pauses, s.round(t.Context())/time.Second)
	}
	if d := cmp.Diff([]time.Duration{10, 20, 40, 80, 160, 300, 300, 300}, pauses); d != "" {
		t.Error(d)
	}
	first, other := "/_synapse/admin/v1/rooms/%21a:test/members", members
	if d := cmp.Diff([]string{first, other, first, other, first, other, first, other}, y.questions()); d != "" {
		t.Errorf("one question a round, about another room each time: %s", d)
	}
	gone(t, w, s.Service)
	y.change(func() { y.tell = nil })
	if pause := s.round(t.Context()); pause != watchEvery {
		t.Error(pause)
	}
	s.work.Wait()
	if len(w.removed) != 4 {
		t.Errorf("%d taken out", len(w.removed))
	}
	text := y.log.String()
	if strings.Count(text, "level=WARN") != 1 || strings.Count(text, "says again") != 1 || strings.Contains(text, adminToken) {
		t.Errorf("the log says:\n%s", text)
	}
}

func TestTheHomeserverIsAskedATenthOfTheTimeAtMost(t *testing.T) {
	y, _, s, clock := newBeside(t)
	for _, c := range []struct{ takes, pause time.Duration }{{time.Millisecond, watchEvery}, {2 * time.Second, 18 * time.Second}, {2 * time.Minute, watchMost}} {
		y.change(func() {
			y.tell = func(http.ResponseWriter, *http.Request) bool { clock.Advance(c.takes); return false }
			y.devices["@alice:test"] = []string{"A", "B"}
		})
		for _, m := range []Member{aliceHere, aliceThere} { // so that only the room is asked for
			s.present[place{m.MediaRoom(), m.Identity()}].seen = clock.Now().Add(c.takes)
		}
		s.present[place{bobHere.MediaRoom(), bobHere.Identity()}].seen = clock.Now().Add(c.takes)
		if got := s.round(t.Context()); got != c.pause {
			t.Errorf("after %s: %s, want %s", c.takes, got, c.pause)
		}
	}
}

// bell is a clock that tells when something waits for it.
type bell struct {
	*clocktest.Clock
	waits chan<- struct{}
}

func (b bell) AfterFunc(d time.Duration, f func()) func() bool {
	defer func() { b.waits <- struct{}{} }()
	return b.Clock.AfterFunc(d, f)
}

func TestTheWatchRunsWithTheServiceAndEndsWithIt(t *testing.T) {
	y, w, s, clock := newBeside(t)
	waits := make(chan struct{}, 8)
	s.Clock = bell{clock, waits}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	y.change(func() { y.rooms["!r:test"] = []string{"@alice:test"} })
	select {
	case <-waits:
	case <-time.After(60 * time.Second):
		t.Fatal("nobody looks")
	}
	clock.Advance(watchEvery)
	select {
	case got := <-w.removed:
		if got != bobHere.Identity() {
			t.Error(got)
		}
	case <-time.After(60 * time.Second):
		t.Error("nobody looks")
	}
	stop()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(60 * time.Second):
		t.Error("the service does not end")
	}
}
