// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/event"
)

// request signs a request of p for a server, and gives the header.
func (p *peer) request(t *testing.T, to, method, uri string, body json.RawMessage) string {
	t.Helper()
	h, err := signRequest(p.signer, Ask{Server: to, Method: method, Path: uri, Body: body})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestASignedRequestNamesItsServerAndItsKeyIsAskedForOnce(t *testing.T) {
	w := newWorld(t)
	s, p := w.ours("here.test"), w.peer("there.test")
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			h := p.request(t, "here.test", "PUT", "/_matrix/federation/v1/send/1?a=b", json.RawMessage(`{"b":1.5,"a":[]}`))
			origin, err := s.Authenticate(context.Background(), []string{h}, "PUT", "/_matrix/federation/v1/send/1?a=b", []byte(`{ "a":[], "b":1.5 }`))
			if err != nil || origin != "there.test" {
				t.Errorf("%q, %v", origin, err)
			}
		})
	}
	wg.Wait()
	if n := p.count("/_matrix/key/v2/server"); n != 1 {
		t.Errorf("its keys were asked for %d times", n)
	}
	s.Keys.known.Purge()
	h := p.request(t, "here.test", "GET", "/x", nil)
	if _, err := s.Authenticate(context.Background(), []string{h}, "GET", "/x", nil); err != nil {
		t.Error(err)
	}
	if n := p.count("/_matrix/key/v2/server"); n != 1 {
		t.Errorf("keys in the store were asked for again")
	}
	w.clock.Advance(25 * time.Hour) // the promise has ended
	if _, err := s.Authenticate(context.Background(), []string{h}, "GET", "/x", nil); err != nil {
		t.Error(err)
	}
	if n := p.count("/_matrix/key/v2/server"); n != 2 {
		t.Errorf("keys past their time were used; asked for %d times", n)
	}
}

func TestRequestsThatAreNotForUsOrNotSignedSoAreRefused(t *testing.T) {
	w := newWorld(t)
	s, p, other := w.ours("here.test"), w.peer("there.test"), w.peer("other.test")
	good := p.request(t, "here.test", "GET", "/x", nil)
	part := func(name string) string {
		_, rest, _ := strings.Cut(good, name+`="`)
		v, _, _ := strings.Cut(rest, `"`)
		return v
	}
	sig := part("sig")
	for what, h := range map[string][]string{
		"no header":            nil,
		"another scheme":       {"Bearer abc"},
		"no origin":            {`X-Matrix destination="here.test",key="ed25519:1",sig="` + sig + `"`},
		"no key":               {`X-Matrix origin="there.test",destination="here.test",sig="` + sig + `"`},
		"a name twice":         {good + `,origin="there.test"`},
		"a name twice, first":  {strings.Replace(good, "X-Matrix ", `X-Matrix Origin="other.test",`, 1)},
		"for another server":   {p.request(t, "else.test", "GET", "/x", nil)},
		"destination changed":  {strings.Replace(p.request(t, "else.test", "GET", "/x", nil), "else.test", "here.test", 1)},
		"origin changed":       {strings.Replace(good, "there.test", "other.test", 1)},
		"origin is us":         {strings.Replace(good, "there.test", "here.test", 1)},
		"another method":       {p.request(t, "here.test", "PUT", "/x", nil)},
		"another path":         {p.request(t, "here.test", "GET", "/y", nil)},
		"another query":        {p.request(t, "here.test", "GET", "/x?a=1", nil)},
		"another body":         {p.request(t, "here.test", "GET", "/x", json.RawMessage(`{"a":1}`))},
		"a key that is not":    {strings.Replace(good, "ed25519:1", "ed25519:2", 1)},
		"a key of no kind":     {strings.Replace(good, "ed25519:1", "rsa:1", 1)},
		"origin no name":       {strings.Replace(good, "there.test", "there.test/../x", 1)},
		"unterminated":         {strings.TrimSuffix(good, `"`)},
		"two servers":          {good, other.request(t, "here.test", "GET", "/x", nil)},
		"too many":             {good, good, good, good, good, good},
		"huge":                 {good + `,x="` + strings.Repeat("a", maxAuthHeader) + `"`},
		"signature not base64": {strings.Replace(good, sig, "!!", 1)},
	} {
		if origin, err := s.Authenticate(context.Background(), h, "GET", "/x", nil); err == nil {
			t.Errorf("%s: taken for %s", what, origin)
		}
	}
	for what, h := range map[string][]string{
		"as it is":       {good},
		"other case":     {strings.Replace(strings.Replace(good, "X-Matrix", "x-matrix", 1), "origin=", "ORIGIN=", 1)},
		"spaces":         {strings.ReplaceAll(good, ",", " , ")},
		"bare values":    {strings.ReplaceAll(good, `"`, "")},
		"no destination": {strings.Replace(good, `destination="here.test",`, "", 1)},
		"unknown names":  {good + `,algorithm=none`},
		"escapes":        {strings.Replace(good, `"there.test"`, `"t\here.test"`, 1)},
		"two, one good":  {strings.Replace(good, "ed25519:1", "ed25519:2", 1), good},
	} {
		if _, err := s.Authenticate(context.Background(), h, "GET", "/x", nil); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestKeysThatAServerDidNotSignOrThatAreNotItsOwnAreRefused(t *testing.T) {
	w := newWorld(t)
	victim := w.peer("victim.test")
	day := w.clock.Now().Add(24 * time.Hour).UnixMilli()
	for what, doc := range map[string]func(p *peer) any{
		"another name": func(p *peer) any {
			return map[string]any{"server_name": "victim.test", "verify_keys": map[string]any{"ed25519:1": map[string]string{"key": p.public()}}, "valid_until_ts": day}
		},
		"expired": func(p *peer) any {
			return map[string]any{"server_name": p.name, "verify_keys": map[string]any{"ed25519:1": map[string]string{"key": p.public()}}, "valid_until_ts": w.clock.Now().Add(-time.Second).UnixMilli()}
		},
		"signed with none of them": func(p *peer) any {
			return map[string]any{"server_name": p.name, "verify_keys": map[string]any{"ed25519:2": map[string]string{"key": p.public()}}, "valid_until_ts": day}
		},
		"the key of another": func(p *peer) any {
			return map[string]any{"server_name": p.name, "verify_keys": map[string]any{"ed25519:1": map[string]string{"key": victim.public()}}, "valid_until_ts": day}
		},
		"only old ones": func(p *peer) any {
			return map[string]any{"server_name": p.name, "verify_keys": map[string]any{}, "old_verify_keys": map[string]any{"ed25519:1": map[string]any{"key": p.public(), "expired_ts": day}}, "valid_until_ts": day}
		},
		"no JSON object": func(*peer) any { return map[string]any{"verify_keys": 5} },
		"too many": func(p *peer) any {
			keys := map[string]any{"ed25519:1": map[string]string{"key": p.public()}}
			for i := range maxKeys {
				keys["ed25519:x"+strings.Repeat("a", i%50)+string(rune('a'+i%26))+strings.Repeat("b", i/26)] = map[string]string{"key": p.public()}
			}
			return map[string]any{"server_name": p.name, "verify_keys": keys, "valid_until_ts": day}
		},
	} {
		t.Run(what, func(t *testing.T) {
			s, p := w.ours("here.test"), w.peer("there.test")
			p.keyDoc = func() any { return doc(p) }
			h := p.request(t, "here.test", "GET", "/x", nil)
			for range 3 {
				if _, err := s.Authenticate(context.Background(), []string{h}, "GET", "/x", nil); err == nil {
					t.Fatal("its request was taken")
				}
			}
			if n := p.count("/_matrix/key/v2/server"); n != 1 {
				t.Errorf("it was asked %d times in a moment", n)
			}
			if keys, err := s.Store.RemoteKeys(context.Background(), "victim.test"); err != nil || len(keys) > 0 {
				t.Errorf("stored for the victim: %v, %v", keys, err)
			}
			p.keyDoc = nil
			w.clock.Advance(askAgainMost + time.Second)
			if _, err := s.Authenticate(context.Background(), []string{h}, "GET", "/x", nil); err != nil {
				t.Errorf("it does not recover: %v", err)
			}
		})
	}
}

func TestNobodyIsBelievedAboutHisKeysForLongerThanAWeek(t *testing.T) {
	w := newWorld(t)
	s, p := w.ours("here.test"), w.peer("there.test")
	p.keyDoc = func() any {
		return map[string]any{"server_name": p.name, "verify_keys": map[string]any{"ed25519:1": map[string]string{"key": p.public()}}, "valid_until_ts": int64(253402300799000)}
	}
	h := p.request(t, "here.test", "GET", "/x", nil)
	for i := range 2 {
		if _, err := s.Authenticate(context.Background(), []string{h}, "GET", "/x", nil); err != nil {
			t.Fatal(err)
		}
		if n := p.count("/_matrix/key/v2/server"); n != i+1 {
			t.Errorf("asked %d times in week %d", n, i+1)
		}
		w.clock.Advance(keyLifeMax + time.Second)
	}
}

func TestOldKeysAreGoodForWhatWasMadeWhileTheyWereUsed(t *testing.T) {
	w := newWorld(t)
	s, p := w.ours("here.test"), w.peer("there.test")
	old := newSigner("there.test")
	old.KeyID = "ed25519:old"
	ended := w.clock.Now().Add(-time.Hour)
	oldPublic := (&peer{signer: old}).public()
	p.keyDoc = func() any {
		return map[string]any{
			"server_name": p.name, "verify_keys": map[string]any{"ed25519:1": map[string]string{"key": p.public()}},
			"old_verify_keys": map[string]any{"ed25519:old": map[string]any{"key": oldPublic, "expired_ts": ended.UnixMilli()}}, "valid_until_ts": w.clock.Now().Add(time.Hour).UnixMilli(),
		}
	}
	made := func(v event.Version, at time.Time) *event.Event {
		e, err := event.Build(v, event.Proto{RoomID: "!r:there.test", Sender: "@a:there.test", Type: "m.room.message", Content: json.RawMessage(`{}`)}, []string{"$x"}, 2, event.EventsState{}, old, at)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	if err := s.VerifyEvent(context.Background(), made("10", ended.Add(-time.Minute))); err != nil {
		t.Error(err)
	}
	if err := s.VerifyEvent(context.Background(), made("10", ended.Add(time.Minute))); err == nil {
		t.Error("an event from after the key's end was taken")
	}
	if err := s.VerifyEvent(context.Background(), made("4", ended.Add(time.Minute))); err != nil {
		t.Errorf("version 4 does not ask when a key ended: %v", err)
	}
	h, err := signRequest(old, Ask{Server: "here.test", Method: "GET", Path: "/x"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Authenticate(context.Background(), []string{h}, "GET", "/x", nil); err == nil {
		t.Error("a request signed with an old key was taken")
	}
}

func TestANotaryIsBelievedOnlyAboutWhatTheServerItselfHasSigned(t *testing.T) {
	w := newWorld(t)
	gone, notary := w.peer("gone.test"), w.peer("notary.test")
	doc := gone.keys()
	gone.srv.Close()
	s := w.ours("here.test", func(c *Config) { c.Notaries = []string{"notary.test"} })
	var mu sync.Mutex
	var said json.RawMessage
	notary.mux.HandleFunc("POST /_matrix/key/v2/query", func(rw http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		_ = json.NewEncoder(rw).Encode(map[string]any{"server_keys": []json.RawMessage{said}})
	})
	h := gone.request(t, "here.test", "GET", "/x", nil)
	forged := &peer{w: w, name: "gone.test", signer: newSigner("gone.test")}
	both, err := event.SignJSON(notary.signer, doc)
	if err != nil {
		t.Fatal(err)
	}
	lie, err := event.SignJSON(notary.signer, []byte(`{"server_name":"gone.test","verify_keys":{"ed25519:1":{"key":"`+forged.public()+`"}},"valid_until_ts":9999999999999}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		what string
		said json.RawMessage
		good bool
	}{{"not signed by the notary", doc, false}, {"not signed by the server", lie, false}, {"signed by both", both, true}} {
		mu.Lock()
		said = x.said
		mu.Unlock()
		if _, err := s.Authenticate(context.Background(), []string{h}, "GET", "/x", nil); (err == nil) != x.good {
			t.Errorf("%s: %v", x.what, err)
		}
		w.clock.Advance(askAgainMost + time.Second)
	}
}

func TestWeAreANotaryToo(t *testing.T) {
	w := newWorld(t)
	s, p := w.ours("here.test"), w.peer("there.test")
	doc, err := s.Keys.Query(context.Background(), "there.test", 0)
	if err != nil {
		t.Fatal(err)
	}
	if sig := event.Signatures(doc); len(sig["there.test"]) != 1 || len(sig["here.test"]) != 1 {
		t.Errorf("signed by %v", sig)
	}
	if _, err := s.Keys.Query(context.Background(), "there.test", w.clock.Now().Add(time.Hour).UnixMilli()); err != nil || p.count("/_matrix/key/v2/server") != 1 {
		t.Errorf("asked %d times, %v", p.count("/_matrix/key/v2/server"), err)
	}
	if _, err := s.Keys.Query(context.Background(), "there.test", w.clock.Now().Add(48*time.Hour).UnixMilli()); err != nil || p.count("/_matrix/key/v2/server") != 2 {
		t.Errorf("a minimum that is not met: asked %d times, %v", p.count("/_matrix/key/v2/server"), err)
	}
	if doc, err := s.Keys.Query(context.Background(), "nobody.test", 0); err != nil || doc != nil {
		t.Errorf("%s, %v", doc, err)
	}
	own, err := s.Keys.Query(context.Background(), "here.test", 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Keys.read("here.test", own); err != nil {
		t.Errorf("our own: %v", err)
	}
}

func TestLeakedKeysAreRefused(t *testing.T) {
	w := newWorld(t)
	p := w.peer("there.test")
	s := w.ours("here.test", func(c *Config) { c.DenyKeys = []string{p.public()} })
	h := p.request(t, "here.test", "GET", "/x", nil)
	if _, err := s.Authenticate(context.Background(), []string{h}, "GET", "/x", nil); err == nil {
		t.Error("taken")
	}
}

func FuzzXMatrix(f *testing.F) {
	f.Add(`X-Matrix origin="a",destination="b",key="ed25519:1",sig="abc"`)
	f.Add(`x-matrix origin=a.b:8448, key=ed25519:1 ,sig="a\"b"`)
	f.Fuzz(func(t *testing.T, h string) {
		x, err := parseXMatrix(h)
		if err == nil && (x.origin == "" || x.key == "" || x.sig == "" || len(h) > maxAuthHeader) {
			t.Errorf("%q gives %+v", h, x)
		}
	})
}
