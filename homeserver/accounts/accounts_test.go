// SPDX-License-Identifier: Apache-2.0

package accounts

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/bcrypt"

	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/clocktest"
)

func open(t *testing.T, s *storage.Store) (*Service, *clocktest.Clock) {
	t.Helper()
	clock := clocktest.New()
	a, err := New(t.Context(), s, Config{Server: "test", Open: true, Cost: CostMinimum}, clock, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return a, clock
}

func code(err error) string {
	if err == nil {
		return ""
	}
	e := signalling.AsError(err)
	return e.Code
}

// todo reads a challenge: its session and the stages that are done.
func todo(t *testing.T, err error) (session string, completed []string) {
	t.Helper()
	var e *signalling.Error
	if !errors.As(err, &e) || e.Status != 401 {
		t.Fatalf("no challenge: %v", err)
	}
	completed, _ = e.Fields["completed"].([]string)
	return e.Fields["session"].(string), completed
}

func TestAFlowOfTwoStagesNeedsBothOnOneSession(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, s *storage.Store) {
		a, clock := open(t, s)
		if _, err := a.NewRegistrationToken(t.Context(), "tok", -1, time.Time{}); err != nil {
			t.Fatal(err)
		}
		flows := [][]string{{StageRegistrationToken, StageDummy}}
		interact := func(op string, auth *Auth) error {
			_, err := a.Interact(t.Context(), op, "", flows, auth)
			return err
		}

		session, done := todo(t, interact("x", &Auth{Type: StageRegistrationToken, Token: "tok"})) // without asking first
		if !cmp.Equal(done, []string{StageRegistrationToken}) {
			t.Errorf("completed %v", done)
		}
		if again, done := todo(t, interact("x", &Auth{Session: session})); again != session || len(done) != 1 {
			t.Errorf("asked what is left: %s %v", again, done)
		}
		if other, done := todo(t, interact("y", &Auth{Type: StageDummy, Session: session})); other == session || len(done) != 0 {
			t.Error("a session was taken for another operation")
		}
		if _, done := todo(t, interact("x", &Auth{Type: StageDummy})); !cmp.Equal(done, []string{StageDummy}) {
			t.Errorf("a stage without the session completed %v", done)
		}
		if err := interact("x", &Auth{Type: StageDummy, Session: session}); err != nil {
			t.Errorf("both stages are done: %v", err)
		}
		if _, done := todo(t, interact("x", &Auth{Type: StageDummy, Session: session})); len(done) != 1 {
			t.Error("a finished session serves a second time")
		}

		session, _ = todo(t, interact("x", &Auth{Type: StageDummy}))
		clock.Advance(2 * time.Hour)
		if err := a.Prune(t.Context()); err != nil {
			t.Fatal(err)
		}
		if stages, err := s.Stages(t.Context(), session); err != nil || len(stages) != 0 {
			t.Errorf("after pruning: %v %v", stages, err)
		}
		if err := interact("x", &Auth{Type: StageRegistrationToken, Token: "tok", Session: session}); code(err) != "M_FORBIDDEN" {
			t.Errorf("an expired session: %v", err)
		}
	})
}

func TestATokenThatEndedIsNeverBroughtBackByAReadUnderWay(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, s *storage.Store) {
		a, _ := open(t, s)
		if _, err := a.Create(t.Context(), NewUser{Localpart: "alice", Password: "correct horse"}); err != nil {
			t.Fatal(err)
		}
		for range 30 {
			tok, err := a.LoginPassword(t.Context(), "@alice:test", "correct horse", Login{DeviceID: "D"})
			if err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			var stop atomic.Bool
			for range 4 {
				wg.Go(func() {
					for !stop.Load() {
						if _, err := a.Authenticate(context.Background(), tok.AccessToken); err != nil && code(err) != "M_UNKNOWN_TOKEN" {
							t.Error(err)
						}
					}
				})
			}
			a.Forget("@alice:test") // so that some of them read the database
			if err := a.DeleteDevices(t.Context(), "@alice:test", "D"); err != nil {
				t.Fatal(err)
			}
			if _, err := a.Authenticate(t.Context(), tok.AccessToken); code(err) != "M_UNKNOWN_TOKEN" {
				t.Fatalf("after the log-out: %v", err)
			}
			stop.Store(true)
			wg.Wait()
			if _, err := a.Authenticate(t.Context(), tok.AccessToken); code(err) != "M_UNKNOWN_TOKEN" {
				t.Fatalf("a reader brought it back: %v", err)
			}
		}
	})
}

func TestOneOfTwoWhoRefreshAtOnceIsNotTakenForAThief(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, s *storage.Store) {
		a, _ := open(t, s)
		tok, err := a.Create(t.Context(), NewUser{Localpart: "alice", Password: "correct horse", Login: &Login{Refresh: true}})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		got := make([]Tokens, 8) // a client that asks again because answers are slow
		for i := range got {
			wg.Go(func() {
				var err error
				if got[i], err = a.Refresh(t.Context(), tok.RefreshToken); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		good := 0
		for _, g := range got {
			if _, err := a.Authenticate(t.Context(), g.AccessToken); err == nil {
				good++
			}
		}
		if good != 1 {
			t.Errorf("%d of the answers hold a good token, want the last one only", good)
		}
	})
}

func TestRunWritesWhatWaitsBeforeItEnds(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, s *storage.Store) {
		a, clock := open(t, s)
		tok, err := a.Create(t.Context(), NewUser{Localpart: "alice", Password: "correct horse", Login: &Login{DeviceID: "D"}})
		if err != nil {
			t.Fatal(err)
		}
		x, err := a.Authenticate(t.Context(), tok.AccessToken)
		if err != nil || !a.SeenDue(x) {
			t.Fatalf("a new device was never seen: %v", err)
		}
		a.Seen(x, "192.0.2.1")
		if a.SeenDue(x) {
			t.Error("due again at once")
		}
		clock.Advance(time.Minute)
		if !a.SeenDue(x) {
			t.Error("not due after a minute")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := a.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if d, err := s.Device(t.Context(), "@alice:test", "D"); err != nil || d.SeenIP != "192.0.2.1" || d.SeenTS != clock.Now().Add(-time.Minute).UnixMilli() {
			t.Errorf("%+v %v", d, err)
		}
	})
}

func TestAHookThatFailsKeepsTheDevice(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, s *storage.Store) {
		a, _ := open(t, s)
		tok, err := a.Create(t.Context(), NewUser{Localpart: "alice", Password: "correct horse", Login: &Login{DeviceID: "D"}})
		if err != nil {
			t.Fatal(err)
		}
		fail := errors.New("keys are stuck")
		a.Hook(Hooks{
			DeviceDeleted: func(*storage.Tx, string, string) error { return fail },
			DeviceRenamed: func(*storage.Tx, string, string) error { return fail },
			Logout:        func(string, string) { t.Error("told of a log-out that did not happen") },
		})
		for _, err := range []error{
			a.DeleteDevices(t.Context(), "@alice:test", "D"), a.DeleteAllDevices(t.Context(), "@alice:test", ""),
			a.RenameDevice(t.Context(), "@alice:test", "D", "x"), a.SetPassword(t.Context(), "@alice:test", "battery staple", true, ""),
			a.Deactivate(t.Context(), "@alice:test", false),
		} {
			if err == nil {
				t.Error("succeeded")
			}
		}
		if _, err := a.Authenticate(t.Context(), tok.AccessToken); err != nil {
			t.Error(err)
		}
		if _, err := a.LoginPassword(t.Context(), "@alice:test", "correct horse", Login{}); err != nil {
			t.Errorf("half of the change was kept: %v", err)
		}
		if d, err := a.Device(t.Context(), "@alice:test", "D"); err != nil || d.DisplayName != "" {
			t.Errorf("%+v %v", d, err)
		}
	})
}

func TestStoredHashesAreReadOrRefusedNeverMisread(t *testing.T) {
	h, err := newHasher(CostMinimum)
	if err != nil {
		t.Fatal(err)
	}
	ours, err := h.hash(t.Context(), "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	bc, err := bcrypt.GenerateFromPassword([]byte("correct horse"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	standard, err := newHasher(CostStandard)
	if err != nil {
		t.Fatal(err)
	}
	costly, err := standard.hash(t.Context(), "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		stored, password string
		ok, outdated     bool
	}{
		{ours, "correct horse", true, false}, {ours, "Correct horse", false, false}, {ours, "", false, false},
		{ours, strings.Repeat("x", maxPassword+1), false, false},
		{string(bc), "correct horse", true, true}, {string(bc), "x", false, true},
		{costly, "correct horse", true, true}, {"", "correct horse", false, false},
	} {
		ok, outdated, err := h.verify(t.Context(), c.stored, c.password)
		if err != nil || ok != c.ok || ok && outdated != c.outdated {
			t.Errorf("%.20s… with %.20q: %v %v %v", c.stored, c.password, ok, outdated, err)
		}
	}
	if again, _ := h.hash(t.Context(), "correct horse"); again == ours {
		t.Error("no salt")
	}
	for _, bad := range []string{"x", "$argon2id$", "$argon2id$v=19$m=8,t=1,p=1$!$!", "$argon2i$v=19$m=8,t=1,p=1$c2FsdHNhbHRzYWx0$a2V5a2V5a2V5a2V5a2V5", "$argon2id$v=19$m=4294967295,t=1,p=1$c2FsdHNhbHRzYWx0$a2V5a2V5a2V5a2V5a2V5a2V5", "$argon2id$v=19$m=8,t=0,p=1$c2FsdHNhbHRzYWx0$a2V5a2V5a2V5a2V5a2V5a2V5", "$argon2id$v=19$m=8,t=1,p=1$c2FsdA$a2V5"} {
		if ok, _, err := h.verify(t.Context(), bad, ""); ok || err == nil {
			t.Errorf("%s: %v %v", bad, ok, err)
		}
	}
}

func TestHashingWaitsItsTurnAndGivesUpWithItsCaller(t *testing.T) {
	h, err := newHasher(CostMinimum)
	if err != nil {
		t.Fatal(err)
	}
	for range cap(h.slots) {
		h.slots <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.hash(ctx, "x"); !errors.Is(err, context.Canceled) {
		t.Errorf("hash: %v", err)
	}
	if _, _, err := h.verify(ctx, "", "x"); !errors.Is(err, context.Canceled) {
		t.Errorf("verify: %v", err)
	}
}

func FuzzUnseal(f *testing.F) {
	s := &Service{key: []byte("k"), clock: clocktest.New()}
	b := make([]byte, 20, 36)
	binary.BigEndian.PutUint64(b[12:], uint64(s.clock.Now().Add(time.Hour).Unix()))
	good := hex.EncodeToString(append(b, s.sealMAC("x", b)...)) // the same in every fuzzing process, unlike what seal makes
	f.Add(good)
	f.Add("00")
	f.Fuzz(func(t *testing.T, text string) {
		if _, ok := s.unseal("x", text); ok && !strings.EqualFold(text, good) {
			t.Errorf("%q was not made here", text)
		} else if !ok && text == good {
			t.Error("what was made here is refused")
		}
	})
}

func FuzzWildcardsEndInTime(f *testing.F) {
	f.Add("*a*b?", "aab")
	f.Add("", "")
	f.Add("**?", "é")
	f.Fuzz(func(t *testing.T, pattern, text string) {
		work := inviteWork
		got := wildcard(pattern, text, &work)
		if work < 0 {
			return // it gave up, as it should
		}
		if want := slowWildcard([]byte(pattern), []byte(text), map[[2]int]bool{}); got != want {
			t.Errorf("%q on %q: %v, want %v", pattern, text, got, want)
		}
	})
}

// slowWildcard is wildcard as one would explain it; lost are the places that were tried in vain.
func slowWildcard(pattern, text []byte, lost map[[2]int]bool) bool {
	at := [2]int{len(pattern), len(text)}
	if lost[at] {
		return false
	}
	ok := false
	switch {
	case len(pattern) == 0:
		ok = len(text) == 0
	case pattern[0] == '*':
		ok = slowWildcard(pattern[1:], text, lost) || len(text) > 0 && slowWildcard(pattern, text[1:], lost)
	case len(text) > 0 && (pattern[0] == '?' || pattern[0] == text[0]):
		ok = slowWildcard(pattern[1:], text[1:], lost)
	}
	lost[at] = !ok
	return ok
}
