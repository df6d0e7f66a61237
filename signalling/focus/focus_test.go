// SPDX-License-Identifier: Apache-2.0

package focus

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"log/slog"
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

// town is a Homeserver and an SFU in memory.
type town struct {
	mu      sync.Mutex
	present map[string]bool // room, user
	removed chan string
	tokens  []Token
	lines   []string
	asked   func() // called inside Present
}

func (w *town) OpenIDUser(_ context.Context, server, token string) (string, string, error) {
	user, device, ok := strings.Cut(token, "/")
	if !ok {
		return "", "", signalling.Refuse(401, "M_UNAUTHORIZED", "no")
	}
	return user, device, nil
}

func (w *town) Present(_ context.Context, room, user, _ string) error {
	w.mu.Lock()
	ok, asked := w.present[room+" "+user], w.asked
	w.mu.Unlock()
	if asked != nil {
		asked()
	}
	if !ok {
		return signalling.Forbidden("not in the room")
	}
	return nil
}

func (w *town) Delay(_ context.Context, _, _, delayID string, claimed time.Duration) (string, time.Duration, error) {
	return delayID, claimed, nil
}

func (w *town) Open(room string) { w.note("opened " + room) }

func (w *town) Sign(t Token) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tokens = append(w.tokens, t)
	return "jwt", nil
}

func (w *town) Remove(room, identity string) bool {
	w.removed <- identity
	return true
}

func (w *town) Restart(context.Context, string) error { return nil }
func (w *town) Send(context.Context, string) error    { return nil }
func (w *town) Cancel(context.Context, string) error  { return nil }

func (w *town) Arrived(m Member, session string, _ time.Time) {
	w.note("arrived " + m.UserID + " " + session)
}
func (w *town) Departed(m Member, session string, _ time.Time) {
	w.note("departed " + m.UserID + " " + session)
}

func (w *town) note(line string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lines = append(w.lines, line)
}

func newTown() (*town, *Service) {
	w := &town{present: map[string]bool{"!r:test @alice:test": true, "!r:test @bob:else": true}, removed: make(chan string, 8)}
	clock := clocktest.New()
	log := slog.New(slog.DiscardHandler)
	s := New(Deps{
		Config: Config{ServerName: "test", PublicURL: "https://test"}, Media: w, Homeserver: w, Attendance: w,
		Leaves: matrixrtc.NewLeaves(w, nil, clock, log), Clock: clock, Log: log,
	})
	return w, s
}

var aliceHere = Member{RoomID: "!r:test", SlotID: matrixrtc.RoomSlot, UserID: "@alice:test", DeviceID: "A", Form: Plain}

func TestUsersOfOtherServersListenAndUsersOfOursSendToo(t *testing.T) {
	w, s := newTown()
	bob := Member{RoomID: "!r:test", SlotID: "s", UserID: "@bob:else", MemberID: "m"}
	for _, c := range []struct {
		m       Member
		publish bool
		want    bool
	}{{aliceHere, false, true}, {bob, false, false}, {bob, true, true}} {
		if _, err := s.Grant(t.Context(), c.m, c.publish); err != nil {
			t.Fatal(err)
		}
		got := w.tokens[len(w.tokens)-1]
		if got.Publish != c.want || got.Life != time.Hour || got.Identity != c.m.Identity() || got.Room != c.m.MediaRoom() {
			t.Errorf("%v: %+v", c.m, got)
		}
	}
}

func TestAnotherServerAsksForItsOwnUsersAndOurSFUOnly(t *testing.T) {
	_, s := newTown()
	good := RemoteRequest{UserID: "@bob:else", URL: "wss://test/livekit/sfu", RoomID: "!r:test", SlotID: "s", MemberID: "m"}
	for _, c := range []struct {
		name, origin string
		change       func(*RemoteRequest)
		code         string
	}{
		{"good", "else", func(*RemoteRequest) {}, ""},
		{"somebody else's user", "third", func(*RemoteRequest) {}, "M_FORBIDDEN"},
		{"another SFU", "else", func(q *RemoteRequest) { q.URL = "wss://else/livekit/sfu" }, "M_INVALID_PARAM"},
		{"a room without the user", "else", func(q *RemoteRequest) { q.RoomID = "!s:test" }, "M_FORBIDDEN"},
		{"no member", "else", func(q *RemoteRequest) { q.MemberID = "" }, "M_BAD_JSON"},
	} {
		q := good
		c.change(&q)
		_, err := s.GrantRemote(t.Context(), c.origin, q)
		if got := ""; err != nil {
			got = signalling.AsError(err).Code
			if got != c.code {
				t.Errorf("%s: %s, want %q", c.name, got, c.code)
			}
		} else if c.code != "" {
			t.Errorf("%s: let in", c.name)
		}
	}
}

func admit(t *testing.T, s *Service, room, identity, held string) error {
	_, err := s.Admit(t.Context(), room, identity, held)
	return err
}

func TestATokenIsGoodForTheNamesOfItsHolderOnly(t *testing.T) {
	_, s := newTown()
	room, identity := aliceHere.MediaRoom(), aliceHere.Identity()
	if _, err := s.Admit(t.Context(), room, identity, aliceHere.holder()); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"another room":     admit(t, s, "r", identity, aliceHere.holder()),
		"another identity": admit(t, s, room, "@bob:test:B", aliceHere.holder()),
		"no holder":        admit(t, s, room, identity, ""),
		"broken":           admit(t, s, room, identity, base64.RawStdEncoding.EncodeToString([]byte(`{"RoomID":`))),
	} {
		if err == nil {
			t.Errorf("%s: let in", name)
		}
	}
}

func TestWhereRoomsAreRestrictedOnlyUsersOfFullAccessOpenThem(t *testing.T) {
	w, s := newTown()
	s.Restricted, s.FullAccess = true, func(server string) bool { return server == "related" }
	w.present["!r:test @cleo:related"] = true
	for user, full := range map[string]bool{"@alice:test": true, "@cleo:related": true, "@bob:else": false} {
		m := Member{RoomID: "!r:test", SlotID: matrixrtc.RoomSlot, UserID: user, DeviceID: "A", Form: Plain}
		w.lines = nil
		if _, err := s.Grant(t.Context(), m, false); err != nil {
			t.Fatal(err)
		}
		if opened := slices.Contains(w.lines, "opened "+m.MediaRoom()); opened != full || w.tokens[len(w.tokens)-1].Publish != full {
			t.Errorf("%s: %v %+v", user, w.lines, w.tokens[len(w.tokens)-1])
		}
		if open, err := s.Admit(t.Context(), m.MediaRoom(), m.Identity(), m.holder()); err != nil || open != full {
			t.Errorf("%s: may open %v, %v", user, open, err)
		}
		err := s.Delegate(t.Context(), m, "d", time.Hour)
		if full != (err == nil) {
			t.Errorf("%s hands over a leave: %v", user, err)
		}
	}
}

func TestWhoeverIsRemovedWhileHeEntersIsTakenOut(t *testing.T) {
	w, s := newTown()
	room, identity := aliceHere.MediaRoom(), aliceHere.Identity()
	w.asked = func() { // the kick comes right after the look at the room
		w.mu.Lock()
		w.present["!r:test @alice:test"] = false
		w.asked = nil
		w.mu.Unlock()
		s.UserLeft("!r:test", "@alice:test")
	}
	if _, err := s.Admit(t.Context(), room, identity, aliceHere.holder()); err != nil {
		t.Fatal(err)
	}
	if got := <-w.removed; got != identity { // nobody there yet
		t.Error(got)
	}
	s.Came(room, identity, "PA_1")
	select {
	case got := <-w.removed:
		if got != identity {
			t.Error(got)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the removed user stays in the SFU")
	}
	s.Went(room, identity, "PA_1", false, false)
	if _, err := s.Admit(t.Context(), room, identity, aliceHere.holder()); err == nil {
		t.Error("let in again")
	}
}

func TestAttendanceIsToldOfEachSessionOnce(t *testing.T) {
	w, s := newTown()
	room, identity := aliceHere.MediaRoom(), aliceHere.Identity()
	for _, session := range []string{"PA_1", "PA_2"} {
		if _, err := s.Admit(t.Context(), room, identity, aliceHere.holder()); err != nil {
			t.Fatal(err)
		}
		if session == "PA_2" {
			s.Went(room, identity, "PA_1", true, false)
		}
		s.Came(room, identity, session)
	}
	s.Went(room, identity, "PA_1", false, false) // not there any more
	if s.Count() != 1 {
		t.Errorf("%d present", s.Count())
	}
	s.Went(room, identity, "PA_2", false, true)
	s.Came("another room", "operator", "PA_3") // a token of the operator's keys
	want := []string{"arrived @alice:test PA_1", "departed @alice:test PA_1", "arrived @alice:test PA_2", "departed @alice:test PA_2"}
	if diff := cmp.Diff(want, w.lines); diff != "" {
		t.Error(diff)
	}
	if s.Count() != 0 {
		t.Errorf("%d present", s.Count())
	}
	s.holders.Purge()
	if len(s.byUser) != 0 {
		t.Errorf("remembered for ever: %v", s.byUser)
	}
}

func TestAServerOnTrialSendsClientsToTheHostAtWhichTheyAsked(t *testing.T) {
	_, s := newTown()
	r := httptest.NewRequest("POST", "http://192.0.2.7:8008/sfu/get", nil)
	if got := MediaURL(s.Base(r)); got != "wss://test/livekit/sfu" {
		t.Error(got)
	}
	s.FollowHost = true
	if got := MediaURL(s.Base(r)); got != "ws://192.0.2.7:8008/livekit/sfu" {
		t.Error(got)
	}
	if !s.Ours("ws://192.0.2.7:8008/livekit/sfu", r) || s.Ours("ws://evil/livekit/sfu", r) {
		t.Error("which SFU is ours")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"room":"!r:t","openid_token":{"access_token":"a","token_type":"Bearer","matrix_server_name":"t","expires_in":1},"device_id":"D","delay_id":"d","delay_timeout":1000}`))
	f.Add([]byte(`{"room_id":"!r:t","slot_id":"s","openid_token":{"access_token":"a","matrix_server_name":"t"},"member":{"id":"m","claimed_user_id":"@a:t","claimed_device_id":"D"}}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, body []byte) {
		q, err := parse(body)
		if err != nil {
			if e := signalling.AsError(err); e.Status != 400 {
				t.Errorf("%v", err)
			}
			return
		}
		if !json.Valid(body) || q.OpenID.AccessToken == "" {
			t.Errorf("taken: %q", body)
		}
		if d, err := q.delay(); err == nil && d < 0 {
			t.Errorf("delay %s", d)
		}
	})
}

func FuzzReadHolder(f *testing.F) {
	f.Add(aliceHere.holder())
	f.Add("e30")
	f.Fuzz(func(t *testing.T, text string) {
		if m, ok := readHolder(text); ok {
			if again, ok := readHolder(m.holder()); !ok || again != m {
				t.Errorf("%+v became %+v", m, again)
			}
			if slices.Contains([]string{m.RoomID, m.SlotID, m.UserID}, "") {
				t.Errorf("%+v", m)
			}
		}
	})
}
