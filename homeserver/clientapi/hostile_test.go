// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"context"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/configs"
	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/homeserver/calls"
	"github.com/trunkboard/trunkboard/homeserver/delayed"
	"github.com/trunkboard/trunkboard/homeserver/e2ee"
	"github.com/trunkboard/trunkboard/homeserver/guests"
	"github.com/trunkboard/trunkboard/homeserver/media"
	"github.com/trunkboard/trunkboard/homeserver/notices"
	"github.com/trunkboard/trunkboard/homeserver/push"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/rtc"
	"github.com/trunkboard/trunkboard/homeserver/search"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/homeserver/syncapi"
	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/focus"
	"github.com/trunkboard/trunkboard/signalling/limit"
	"github.com/trunkboard/trunkboard/signalling/matrixrtc"
	"github.com/trunkboard/trunkboard/signalling/presence"
)

// siege is the whole client API over a real store, with someone who attacks it and a witness who must not notice. Wendy, the
// witness, sits in a room with alice; mallory is outside of it and has an account of her own.
type siege struct {
	*home
	*siegeServices
	alice, bob, mallory, wendy string // access tokens
	room                       string // of alice and wendy
	since                      string // how far wendy has synced
	n                          int
}

type siegeServices struct {
	dir      string // of the database
	calls    *calls.Service
	push     *push.Service
	registry *prometheus.Registry
}

const siegeSecret = "shared-s3cret-of-the-operator"

// limited turns the limits on that an operator gets when he chooses nothing.
func limited(_ *accounts.Config, d *Deps) {
	l := configs.Default().Limits
	rates := map[string]limit.Rate{}
	for op, r := range map[string]configs.Rate{"registration": l.Registration, "login": l.Login, "emails": l.Emails, "calls": l.Calls, "signalling": l.Signalling, "messages": l.Messages, "requests": l.Requests} {
		rates[op] = limit.Rate{PerSecond: r.PerSecond(), Burst: r.Burst}
	}
	d.Limiter = limit.New(d.Clock, rates, 0)
}

// wire puts every service on a store, as the program does it. Called again it is the same server after a restart.
func (s *siege) wire(st *storage.Store, change ...func(*accounts.Config, *Deps)) {
	t := s.t
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	log, clock := slog.New(slog.NewTextHandler(s.log, nil)), signalling.SystemClock{}
	cfg := accounts.Config{Server: "test", Open: true, Guests: true, Cost: accounts.CostMinimum, SharedSecret: siegeSecret}
	d := Deps{Config: Config{ServerName: "test"}, Clock: s.clock, Log: log}
	for _, f := range change {
		f(&cfg, &d)
	}
	var err error
	s.acc, err = accounts.New(ctx, st, cfg, s.clock, log)
	must(err)
	r, err := rooms.New(ctx, st, "test", s.clock, log)
	must(err)
	r.UseProfiles(s.acc.NameAndAvatar)
	r.UseInvitePolicy(s.acc.MayInvite)
	r.UseGuests(s.acc.IsGuest)
	r.UseErased(s.acc.Erased)
	keys := e2ee.New(st, "test", log, e2ee.Deps{Rooms: r, Clock: clock})
	rules := push.New(st, clock, log)
	here := presence.NewMem(presence.Config{}, clock)
	sync := syncapi.New(syncapi.Deps{Store: st, Rooms: r, Keys: keys, Account: s.acc.ForSync(), Ignores: s.acc, Invites: s.acc, Unread: rules, Presence: here, Clock: clock, Log: log})
	records := calls.New(calls.Deps{Store: st, Rooms: r, Clock: s.clock, Log: log})
	visitors := guests.New(r, s.acc, log)
	st.Observe(func(pos int64, notes []storage.Note) {
		rules.Observe(pos, notes)
		sync.Observe(pos, notes)
		records.Observe(pos, notes)
		visitors.Observe(pos, notes)
	})
	later := delayed.New(st, r, clock, log)
	files, err := media.New(media.Config{ServerName: "test", Dir: filepath.Join(t.TempDir(), "media"), MaxUpload: 1 << 20}, st, clock, log)
	must(err)
	s.acc.Hook(accounts.Hooks{
		DeviceDeleted: keys.DeviceDeleted, DeviceRenamed: keys.DeviceRenamed, Logout: keys.ForgetDevice,
		Deactivate: func(ctx context.Context, user string, erase bool) error {
			if err := keys.Deactivate(ctx, user, erase); err != nil {
				return err
			}
			return r.LeaveAll(ctx, user)
		},
	})
	s.acc.Hook(accounts.Hooks{DeviceDeleted: rules.DeviceDeleted})
	s.siegeServices.calls, s.siegeServices.push, s.registry = records, rules, prometheus.NewRegistry()
	d.Metrics, d.Accounts, d.Media, d.Push, d.Calls, d.E2EE = s.registry, s.acc, files, rules, records, keys
	d.Rooms, d.Delayed, d.Notices, d.Search, d.Sync, d.Presence = r, later, notices.New(st, r, s.acc), search.New(st, clock, log), sync, here
	d.ICE = siegeRelay{}
	leaves := matrixrtc.NewLeaves(later, rtc.Book{Store: st}, clock, log)
	d.Focus = focus.New(focus.Deps{
		Config: focus.Config{ServerName: "test", PublicURL: "https://test"}, Media: siegeMedia{}, Homeserver: rtc.Home{Accounts: s.acc, Rooms: r, Later: later},
		Leaves: leaves, Clock: clock, Log: log,
	})

	running := []func(context.Context) error{records.Run, rules.Run, later.Run, sync.Run, visitors.Run, d.Focus.Run}
	ended := make(chan error, len(running))
	for _, run := range running {
		go func() { ended <- run(ctx) }()
	}
	srv := httptest.NewServer(recorded(s.t, New(d)))
	s.url = srv.URL
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
		cancel()
		for range running {
			<-ended
		}
		if err := here.Close(); err != nil {
			t.Error(err)
		}
	})
}

// siegeMedia is an SFU that nobody enters.
type siegeMedia struct{}

func (siegeMedia) Sign(t focus.Token) (string, error) {
	return t.Room + " " + t.Identity + " " + strconv.FormatBool(t.Publish), nil
}
func (siegeMedia) Open(string)                {}
func (siegeMedia) Remove(string, string) bool { return false }

type siegeRelay struct{}

func (siegeRelay) Issue(user, device string) signalling.ICEServer {
	return signalling.ICEServer{URIs: []string{"turn:test"}, Username: user + device, Credential: "relay-password"}
}

func newSiege(t *testing.T, st *storage.Store, change ...func(*accounts.Config, *Deps)) *siege {
	t.Helper()
	s := &siege{home: newHome(t, st), siegeServices: &siegeServices{}}
	s.wire(st, change...)
	for name, token := range map[string]*string{"alice": &s.alice, "bob": &s.bob, "mallory": &s.mallory, "wendy": &s.wendy} {
		made, err := s.acc.Create(context.Background(), accounts.NewUser{Localpart: name, Password: pw, Login: &accounts.Login{DeviceID: strings.ToUpper(name)}})
		if err != nil {
			t.Fatal(err)
		}
		*token = made.AccessToken
	}
	s.room = s.newRoom(s.alice, `{"preset":"private_chat","invite":["@wendy:test"]}`)
	s.do("POST", "/v3/join/"+esc(s.room), s.wendy, `{}`).ok()
	s.since = s.do("GET", "/v3/sync", s.wendy, nil).ok().str("next_batch")
	t.Cleanup(func() {
		for line := range strings.Lines(s.log.String()) {
			if strings.Contains(line, "panic") || strings.Contains(line, "level=ERROR") {
				t.Errorf("in the log: %.2000s", line)
			}
		}
	})
	return s
}

// within is the siege in a subtest.
func (s *siege) within(t *testing.T) *siege {
	inner := *s
	h := *s.home
	h.t, inner.home = t, &h
	return &inner
}

// do is home.do, and no answer may be a failure of the server.
func (s *siege) do(method, path, token string, body any) answer {
	s.t.Helper()
	a := s.home.do(method, path, token, body)
	if a.status >= 500 {
		s.t.Errorf("%s: %d %s", a.what, a.status, a.body)
	}
	return a
}

func (s *siege) newRoom(token, body string) string {
	s.t.Helper()
	return s.do("POST", "/v3/createRoom", token, body).ok().str("room_id")
}

// person makes one more account and gives its token.
func (s *siege) person(name string) string {
	s.t.Helper()
	made, err := s.acc.Create(context.Background(), accounts.NewUser{Localpart: name, Password: pw, Login: &accounts.Login{DeviceID: "D" + strings.ToUpper(name)}})
	if err != nil {
		s.t.Fatal(err)
	}
	return made.AccessToken
}

// unaffected checks that since the last time nothing at all reached wendy but what alice writes to her now.
func (s *siege) unaffected() {
	s.t.Helper()
	s.n++
	id := s.do("PUT", fmt.Sprintf("/v3/rooms/%s/send/m.room.message/witness%d", esc(s.room), s.n), s.alice, map[string]any{"msgtype": "m.text", "body": fmt.Sprint(s.n)}).ok().str("event_id")
	a := s.do("GET", "/v3/sync?timeout=5000&since="+url.QueryEscape(s.since), s.wendy, nil).ok()
	s.since = a.str("next_batch")
	var got []string
	gjson.Get(a.body, "rooms").ForEach(func(kind, in gjson.Result) bool {
		in.ForEach(func(room, what gjson.Result) bool {
			for _, part := range []string{"timeline", "state", "ephemeral", "account_data"} {
				for _, e := range what.Get(part + ".events").Array() {
					got = append(got, kind.Str+" "+room.Str+" "+part+" "+e.Get("event_id").Str)
				}
			}
			if kind.Str != "join" {
				got = append(got, kind.Str+" "+room.Str)
			}
			return true
		})
		return true
	})
	if want := []string{"join " + s.room + " timeline " + id}; !slices.Equal(got, want) {
		s.t.Errorf("the witness saw %q, want %q", got, want)
	}
	for _, part := range []string{"to_device.events", "account_data.events"} {
		if e := gjson.Get(a.body, part); len(e.Array()) != 0 {
			s.t.Errorf("the witness got %s: %s", part, e.Raw)
		}
	}
}

// codes checks for one of several refusals.
func (a answer) oneOf(codes ...string) answer {
	a.t.Helper()
	if a.status < 400 || !slices.Contains(codes, a.str("errcode")) {
		a.t.Errorf("%s: %d %s, want one of %v", a.what, a.status, a.body, codes)
	}
	return a
}

// attack is a row of the catalogue of hostile cases.
type attack struct {
	what string // its number and what must hold, as a sentence
	try  func(s *siege)
}

func TestHostile(t *testing.T) {
	at := storagetest.SQLiteURL(t)
	s := newSiege(t, storagetest.Open(t, at))
	s.dir = filepath.Dir(strings.TrimPrefix(at, "sqlite:"))
	s.besiege(t, slices.Concat(attacksOnAccounts(), attacksOnRooms(), attacksOnCalls(), attacksBySize()))
}

func TestHostileWithLimits(t *testing.T) {
	proxied := func(_ *accounts.Config, d *Deps) {
		d.Config.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	}
	s := newSiege(t, storagetest.Open(t, storagetest.SQLiteURL(t)), limited, proxied)
	s.besiege(t, attacksByNumber())
}

func (s *siege) besiege(t *testing.T, rows []attack) {
	for _, row := range rows {
		t.Run(row.what, func(t *testing.T) {
			inner := s.within(t)
			row.try(inner)
			inner.unaffected()
			s.since, s.n = inner.since, inner.n
		})
	}
}
