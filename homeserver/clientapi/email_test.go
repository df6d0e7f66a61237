// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/homeserver/mail"
	"github.com/trunkboard/trunkboard/homeserver/mail/mailtest"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
)

const publicURL = "https://chat.test.example"

// posted gives a siege a server that sends mails, and the SMTP server that they arrive at.
func posted(t testing.TB) (*mailtest.Server, func(*accounts.Config, *Deps)) {
	t.Helper()
	srv := mailtest.New(t, false)
	m, err := mail.New(mail.Config{Server: srv.Addr, TLS: mail.TLSStart, Roots: srv.Roots, From: "Test <server@test.example>"})
	if err != nil {
		t.Fatal(err)
	}
	return srv, func(c *accounts.Config, d *Deps) { c.Mailer, d.Config.PublicURL = m, publicURL }
}

func eachPosted(t *testing.T, f func(s *siege, srv *mailtest.Server), change ...func(*accounts.Config, *Deps)) {
	t.Helper()
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		srv, post := posted(t)
		s := newSiege(t, st, append(change, post)...)
		f(s, srv)
		s.unaffected()
	})
}

var linkIn = regexp.MustCompile(`https://chat\.test\.example(/\S*)`)

// link finds the link of a mail, without the server.
func link(t testing.TB, m mailtest.Mail) string {
	t.Helper()
	l := linkIn.FindStringSubmatch(m.Text)
	if l == nil {
		t.Fatalf("no link in %q", m.Text)
	}
	return l[1]
}

// browse asks as a browser does, following nothing.
func (s *siege) browse(method, path, form string) (int, http.Header, string) {
	s.t.Helper()
	return raw(s.t, s.url, method, path, "", form)
}

// follow opens the link of a mail and presses the button.
func (s *siege) follow(m mailtest.Mail) http.Header {
	s.t.Helper()
	path := link(s.t, m)
	if status, _, body := s.browse("GET", path, ""); status != 200 || !strings.Contains(body, "<button>") {
		s.t.Fatalf("page: %d %s", status, body)
	}
	_, query, _ := strings.Cut(path, "?")
	status, h, body := s.browse("POST", emailPage, query)
	if status != 303 {
		s.t.Fatalf("button: %d %s", status, body)
	}
	return h
}

func (s *siege) ask(where, token, address, secret string, attempt int) answer {
	s.t.Helper()
	return s.do("POST", "/v3/"+where+"/email/requestToken", token, map[string]any{"client_secret": secret, "email": address, "send_attempt": attempt})
}

// addEmail gives somebody an address.
func (s *siege) addEmail(srv *mailtest.Server, token, user, address string) {
	s.t.Helper()
	sid := s.ask("account/3pid", token, address, "secret."+user, 1).ok().str("sid")
	s.follow(srv.Last(strings.ToLower(address)))
	s.do("POST", "/v3/account/3pid/add", token, map[string]any{"sid": sid, "client_secret": "secret." + user, "auth": passwordAuth(user, "")}).ok()
}

func emailAuth(sid, secret, session string) map[string]any {
	return map[string]any{"type": "m.login.email.identity", "session": session, "threepid_creds": map[string]string{"sid": sid, "client_secret": secret}}
}

func TestAnAddressIsProvenAddedUsedForLogInAndRemoved(t *testing.T) {
	eachPosted(t, func(s *siege, srv *mailtest.Server) {
		t := s.t
		if !gjson.Get(s.do("GET", "/v3/capabilities", s.bob, nil).ok().body, `capabilities.m\.3pid_changes.enabled`).Bool() {
			t.Error("the capability is missing")
		}
		sid := s.ask("account/3pid", s.bob, "Bob@Example.org", "s3cret", 1).ok().str("sid")
		m := srv.Last("bob@example.org")
		if strings.Contains(m.Text, "s3cret") || !m.TLS || m.From != "server@test.example" {
			t.Errorf("%+v", m)
		}
		add := func(token, user, secret string) answer {
			return s.do("POST", "/v3/account/3pid/add", token, map[string]any{"sid": sid, "client_secret": secret, "auth": passwordAuth(user, "")})
		}
		add(s.bob, "bob", "s3cret").refused(400, "M_THREEPID_AUTH_FAILED") // not confirmed
		s.browse("GET", link(t, m), "")                                    // what a mail scanner does
		add(s.bob, "bob", "s3cret").refused(400, "M_THREEPID_AUTH_FAILED")
		if h := s.follow(m); h.Get("Location") != emailPage+"/done" {
			t.Errorf("after the button: %v", h)
		}
		add(s.bob, "bob", "other").refused(400, "M_THREEPID_AUTH_FAILED")
		s.do("POST", "/v3/account/3pid/add", s.bob, map[string]any{"sid": sid, "client_secret": "s3cret"}).challenged("", "m.login.password")
		add(s.bob, "bob", "s3cret").ok()
		add(s.bob, "bob", "s3cret").refused(400, "M_THREEPID_AUTH_FAILED") // used
		list := s.do("GET", "/v3/account/3pid", s.bob, nil).ok()
		if a := gjson.Get(list.body, "threepids.#").Int(); a != 1 || gjson.Get(list.body, "threepids.0.address").Str != "bob@example.org" || gjson.Get(list.body, "threepids.0.added_at").Int() == 0 {
			t.Error(list.body)
		}

		in := func(address, password string) answer {
			return s.do("POST", "/v3/login", "", map[string]any{"type": "m.login.password", "password": password, "identifier": map[string]string{"type": "m.id.thirdparty", "medium": "email", "address": address}})
		}
		if a := in("BOB@example.org", pw).ok(); a.str("user_id") != "@bob:test" {
			t.Error(a.body)
		}
		wrong, nobody := in("bob@example.org", "wrong horse").refused(403, "M_FORBIDDEN"), in("nobody@example.org", pw).refused(403, "M_FORBIDDEN")
		if wrong.body != nobody.body {
			t.Error("a stranger can tell which address is known")
		}
		in("no address", pw).refused(403, "M_FORBIDDEN")
		s.do("DELETE", "/v3/devices/NONE", s.bob, map[string]any{"auth": map[string]any{"type": "m.login.password", "password": pw, "identifier": map[string]string{"type": "m.id.thirdparty", "medium": "email", "address": "bob@example.org"}}}).ok()

		s.do("POST", "/v3/account/3pid/delete", s.mallory, `{"medium":"email","address":"bob@example.org"}`).refused(400, "M_THREEPID_NOT_FOUND")
		s.do("POST", "/v3/account/3pid/delete", s.bob, `{"medium":"msisdn","address":"491"}`).refused(400, "M_THREEPID_NOT_FOUND")
		in("bob@example.org", pw).ok()
		if a := s.do("POST", "/v3/account/3pid/delete", s.bob, `{"medium":"email","address":"Bob@example.org"}`).ok(); a.str("id_server_unbind_result") != "no-support" {
			t.Error(a.body)
		}
		in("bob@example.org", pw).refused(403, "M_FORBIDDEN")
		if a := s.do("POST", "/v3/account/3pid/unbind", s.bob, `{"medium":"email","address":"x@y.example"}`).ok(); a.str("id_server_unbind_result") != "no-support" {
			t.Error(a.body)
		}
		creds := `{"client_secret":"s","id_server":"id.example","id_access_token":"t","sid":"x"}`
		s.do("POST", "/v3/account/3pid/bind", s.bob, creds).refused(400, "M_SERVER_NOT_TRUSTED")
		s.do("POST", "/v3/account/3pid", s.bob, `{"three_pid_creds":`+creds+`}`).refused(400, "M_SERVER_NOT_TRUSTED")
		s.do("POST", "/v3/account/3pid/bind", s.bob, `{"sid":"x"}`).refused(400, "M_MISSING_PARAM")
		s.do("POST", "/v3/account/3pid", s.bob, `{}`).refused(400, "M_MISSING_PARAM")
	})
}

func TestAForgottenPasswordIsReplacedThroughTheMail(t *testing.T) {
	eachPosted(t, func(s *siege, srv *mailtest.Server) {
		t := s.t
		s.addEmail(srv, s.bob, "bob", "bob@example.org")
		reset := func(token string, auth any) answer {
			return s.do("POST", "/v3/account/password", token, map[string]any{"new_password": "a fresh long one", "auth": auth})
		}
		session := reset("", nil).challenged("", "m.login.email.identity")
		sid := s.ask("account/password", "", "bob@example.org", "c", 1).ok().str("sid")
		m := srv.Last("bob@example.org")
		if !strings.Contains(m.Text, "@bob:test") {
			t.Errorf("the mail does not say whose password it is: %s", m.Text)
		}
		reset("", emailAuth(sid, "c", session)).challenged("M_UNAUTHORIZED", "m.login.email.identity")
		s.follow(m)
		reset("", emailAuth(sid, "guess", session)).challenged("M_UNAUTHORIZED", "m.login.email.identity")
		if a := reset(s.mallory, emailAuth(sid, "c", "")); a.status != 403 {
			t.Errorf("somebody else's address changed a password: %d %s", a.status, a.body)
		}
		weak := s.do("POST", "/v3/account/password", "", map[string]any{"new_password": "short", "auth": emailAuth(sid, "c", session)})
		weak.refused(400, "M_WEAK_PASSWORD")
		reset("", emailAuth(sid, "c", session)).ok()
		s.do("GET", "/v3/account/whoami", s.bob, nil).refused(401, "M_UNKNOWN_TOKEN") // every device is out
		s.login("bob", pw, nil).refused(403, "M_FORBIDDEN")
		s.login("bob", "a fresh long one", nil).ok()
		again := reset("", emailAuth(sid, "c", session)) // C40: a proof serves once
		again.challenged("M_UNAUTHORIZED", "m.login.email.identity")

		// Who is not known is told by mail, and nobody else learns it.
		before := len(srv.Mails())
		unknown := s.ask("account/password", "", "nobody@example.org", "c", 1).ok()
		if m := srv.Last("nobody@example.org"); linkIn.MatchString(m.Text) || len(srv.Mails()) != before+1 {
			t.Errorf("mail to an unknown address: %+v", m)
		}
		reset("", emailAuth(unknown.str("sid"), "c", "")).challenged("M_UNAUTHORIZED", "m.login.email.identity")

		// A proof for one thing is none for another.
		sid = s.ask("account/3pid", "", "new@example.org", "c", 1).ok().str("sid")
		s.follow(srv.Last("new@example.org"))
		reset("", emailAuth(sid, "c", "")).challenged("M_UNAUTHORIZED", "m.login.email.identity")
	})
}

func TestRegisteringWithAnAddress(t *testing.T) {
	register := func(s *siege, name string, auth any) answer {
		return s.do("POST", "/v3/register", "", map[string]any{"username": name, "password": pw, "auth": auth})
	}
	t.Run("it may be left out", func(t *testing.T) {
		eachPosted(t, func(s *siege, srv *mailtest.Server) {
			t := s.t
			flows := gjson.Get(register(s, "nora", nil).body, "flows.#.stages").Raw
			if flows != `[["m.login.dummy"],["m.login.email.identity"]]` {
				t.Errorf("flows: %s", flows)
			}
			register(s, "nora", map[string]any{"type": "m.login.dummy"}).ok()
			sid := s.ask("register", "", "olga@example.org", "c", 1).ok().str("sid")
			s.follow(srv.Last("olga@example.org"))
			s.do("POST", "/v3/register", "", map[string]any{"username": "olga", "password": "short", "auth": emailAuth(sid, "c", "")}).refused(400, "M_WEAK_PASSWORD")
			register(s, "nora", emailAuth(sid, "c", "")).refused(400, "M_USER_IN_USE") // neither uses the proof up
			token := register(s, "olga", emailAuth(sid, "c", "")).ok().str("access_token")
			if list := s.do("GET", "/v3/account/3pid", token, nil).ok(); gjson.Get(list.body, "threepids.0.address").Str != "olga@example.org" {
				t.Error(list.body)
			}
			if a := register(s, "olga2", emailAuth(sid, "c", "")); a.status != 401 || a.str("errcode") != "M_UNAUTHORIZED" {
				t.Errorf("one proof made two accounts: %s", a.body)
			}
			// An address that is taken: its reader hears of it, the stranger does not.
			taken := s.ask("register", "", "OLGA@example.org", "d", 1).ok()
			if m := srv.Last("olga@example.org"); linkIn.MatchString(m.Text) {
				t.Errorf("a link for an address that is taken: %s", m.Text)
			}
			if a := register(s, "olga3", emailAuth(taken.str("sid"), "d", "")); a.status != 401 {
				t.Error(a.body)
			}
		})
	})
	t.Run("it is required", func(t *testing.T) {
		eachPosted(t, func(s *siege, srv *mailtest.Server) {
			register(s, "pia", map[string]any{"type": "m.login.dummy"}).challenged("M_FORBIDDEN", "m.login.email.identity")
			sid := s.ask("register", "", "pia@example.org", "c", 1).ok().str("sid")
			register(s, "pia", emailAuth(sid, "c", "")).challenged("M_UNAUTHORIZED", "m.login.email.identity")
			s.follow(srv.Last("pia@example.org"))
			register(s, "pia", emailAuth(sid, "c", "")).ok()
		}, func(c *accounts.Config, _ *Deps) { c.RequireEmail = true })
	})
	t.Run("with a registration token", func(t *testing.T) {
		eachPosted(t, func(s *siege, srv *mailtest.Server) {
			tok, err := s.acc.NewRegistrationToken(s.t.(*testing.T).Context(), "", 1, time.Time{})
			if err != nil {
				s.t.Fatal(err)
			}
			session := register(s, "rosa", nil).challenged("", "m.login.registration_token", "m.login.email.identity")
			register(s, "rosa", map[string]any{"type": "m.login.registration_token", "token": tok, "session": session}).challenged("", "m.login.registration_token", "m.login.email.identity")
			sid := s.ask("register", "", "rosa@example.org", "c", 1).ok().str("sid")
			s.follow(srv.Last("rosa@example.org"))
			register(s, "rosa", emailAuth(sid, "c", session)).ok()
			if ok, err := s.acc.RegistrationTokenValid(s.t.(*testing.T).Context(), tok); ok || err != nil {
				s.t.Errorf("the token of a stage before the last was not spent: %v %v", ok, err)
			}
		}, func(c *accounts.Config, _ *Deps) { c.RequireEmail, c.Open = true, false })
	})
}

func TestAMailIsSentOncePerAttempt(t *testing.T) {
	eachPosted(t, func(s *siege, srv *mailtest.Server) {
		t := s.t
		first := s.ask("account/3pid", s.bob, "bob@example.org", "c", 1).ok().str("sid")
		for _, n := range []int{1, 1} {
			if again := s.ask("account/3pid", s.bob, "bob@example.org", "c", n).ok().str("sid"); again != first {
				t.Errorf("the session changed from %s to %s", first, again)
			}
		}
		if n := len(srv.Mails()); n != 1 {
			t.Errorf("%d mails for one attempt", n)
		}
		old := srv.Last("bob@example.org")
		if again := s.ask("account/3pid", s.bob, "bob@example.org", "c", 2).ok().str("sid"); again != first || len(srv.Mails()) != 2 {
			t.Errorf("the second attempt: session %s, %d mails", again, len(srv.Mails()))
		}
		if link(t, old) != link(t, srv.Last("bob@example.org")) {
			t.Error("the first mail's link ended with the second mail")
		}
		if other := s.ask("account/3pid", s.bob, "bob@example.org", "d", 1).ok().str("sid"); other == first {
			t.Error("another secret got the same session")
		}
		// A mail that could not be sent does not count.
		srv.Refuse = func(string) string { return "452 full" }
		if a := s.home.do("POST", "/v3/account/3pid/email/requestToken", s.bob, `{"client_secret":"e","email":"bob@example.org","send_attempt":1}`); a.status != 503 {
			t.Errorf("%d %s", a.status, a.body)
		}
		srv.Refuse = func(string) string { return "550 nobody" }
		s.ask("account/3pid", s.bob, "bob@example.org", "e", 1).refused(400, "M_INVALID_PARAM")
		srv.Refuse = nil
		n := len(srv.Mails())
		if s.ask("account/3pid", s.bob, "bob@example.org", "e", 1).ok(); len(srv.Mails()) != n+1 {
			t.Error("the attempt whose mail was not sent is not made up for")
		}
		s.log.forget() // the server's operator was told of the full mailbox, as he should be
	})
}

func TestLinksEnd(t *testing.T) {
	eachPosted(t, func(s *siege, srv *mailtest.Server) {
		t := s.t
		sid := s.ask("account/3pid", s.bob, "bob@example.org", "c", 1).ok().str("sid")
		path := link(t, srv.Last("bob@example.org"))
		u, err := url.Parse(path)
		if err != nil {
			t.Fatal(err)
		}
		token := u.Query().Get("token")
		if len(token) < 22 || u.Query().Get("sid") != sid {
			t.Fatalf("link: %s", path)
		}
		for what, q := range map[string]url.Values{
			"no token": {"sid": {sid}}, "another token": {"sid": {sid}, "token": {"A" + token[1:]}}, "another session": {"sid": {"x"}, "token": {token}}, "nothing": {},
			"markup": {"sid": {`"><script>alert(1)</script>`}, "token": {`"><script>`}},
		} {
			if token[0] == 'A' && what == "another token" {
				continue
			}
			for _, method := range []string{"GET", "POST"} {
				target, form := emailPage+"?"+q.Encode(), ""
				if method == "POST" {
					target, form = emailPage, q.Encode()
				}
				if status, _, body := s.browse(method, target, form); status != 400 || strings.Contains(body, "script") || strings.Contains(body, "<button>") {
					t.Errorf("%s %s: %d %s", method, what, status, body)
				}
			}
		}
		s.clock.Advance(61 * time.Minute)
		if status, _, _ := s.browse("POST", emailPage, u.RawQuery); status != 400 {
			t.Errorf("a link of an hour ago: %d", status)
		}
		// Begun anew under the same secret, the old link stays dead.
		s.ask("account/3pid", s.bob, "bob@example.org", "c", 1).ok()
		if status, _, _ := s.browse("POST", emailPage, u.RawQuery); status != 400 {
			t.Errorf("an old link in a new session: %d", status)
		}
		s.follow(srv.Last("bob@example.org"))
		s.clock.Advance(61 * time.Minute)
		s.do("POST", "/v3/account/3pid/add", s.bob, map[string]any{"sid": sid, "client_secret": "c", "auth": passwordAuth("bob", "")}).refused(400, "M_THREEPID_AUTH_FAILED")
	})
}

func TestThePageOfALinkGivesNothingAway(t *testing.T) {
	srv, post := posted(t)
	s := newSiege(t, storagetest.Open(t, storagetest.SQLiteURL(t)), post)
	ask := func(next, secret string) {
		s.do("POST", "/v3/account/3pid/email/requestToken", s.bob, map[string]any{"client_secret": secret, "email": "bob@example.org", "send_attempt": 1, "next_link": next}).ok()
	}
	ask("", "c")
	path := link(t, srv.Last("bob@example.org"))
	_, query, _ := strings.Cut(path, "?")
	for _, q := range []struct{ method, target, form string }{{"GET", path, ""}, {"GET", emailPage, ""}, {"POST", emailPage, query}, {"GET", emailPage + "/done", ""}} {
		_, h, _ := s.browse(q.method, q.target, q.form)
		for k, want := range map[string]string{"Referrer-Policy": "no-referrer", "Cache-Control": "no-store", "X-Frame-Options": "DENY", "X-Content-Type-Options": "nosniff", "Access-Control-Allow-Origin": "", "Content-Type": "text/html; charset=utf-8"} {
			if h.Get(k) != want {
				t.Errorf("%s %s: %s: %q", q.method, q.target, k, h.Get(k))
			}
		}
		if csp := h.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "frame-ancestors 'none'") || strings.Contains(csp, "unsafe") || strings.Contains(csp, "script-src") {
			t.Errorf("policy: %s", csp)
		}
	}
	// C14: nobody's link sends the reader of a mail to another site.
	for i, next := range []string{"https://evil.example/x", "javascript:alert(1)", "//evil.example", "https://chat.test.example@evil.example/", "https://chat.test.example.evil.example/", "http://chat.test.example/", "https://user@chat.test.example/", "\\\\evil.example", "https://chat.test.example:8443/"} {
		secret := "evil" + string(rune('a'+i))
		ask(next, secret)
		if h := s.follow(srv.Last("bob@example.org")); h.Get("Location") != emailPage+"/done" {
			t.Errorf("next_link %q leads to %q", next, h.Get("Location"))
		}
	}
	ask(publicURL+"/#/welcome?a=b", "own")
	if h := s.follow(srv.Last("bob@example.org")); h.Get("Location") != publicURL+"/#/welcome?a=b" {
		t.Errorf("an own next_link leads to %q", h.Get("Location"))
	}
	s.unaffected()
}

func TestRequestsForMailsAreChecked(t *testing.T) {
	srv, post := posted(t)
	s := newSiege(t, storagetest.Open(t, storagetest.SQLiteURL(t)), post)
	for _, where := range []string{"register", "account/password", "account/3pid"} {
		path := "/v3/" + where + "/email/requestToken"
		for _, bad := range []string{"", "a", "a@", "@b", "a b@c.example", "a@b@c.example", "A <a@b.example>", "a@b.example\r\nBcc: x@y.example", "a@b.example,c@d.example", "a@[127.0.0.1]", "ü@b.example", "a@b..example", "a@.b", "a@b.", `"a"@b.example`, strings.Repeat("a", 65) + "@b.example", "a@" + strings.Repeat("b.", 130) + "example"} {
			s.ask(where, "", bad, "c", 1).refused(400, "M_INVALID_PARAM")
		}
		for body, code := range map[string]string{
			`{}`: "M_MISSING_PARAM", `{"client_secret":"c","email":"a@b.example"}`: "M_MISSING_PARAM", `{"client_secret":"c d","email":"a@b.example","send_attempt":1}`: "M_INVALID_PARAM",
			`{"client_secret":"","email":"a@b.example","send_attempt":1}`: "M_INVALID_PARAM", `{"client_secret":"c","email":"a@b.example","send_attempt":0}`: "M_INVALID_PARAM",
			`{"client_secret":"c","email":"a@b.example","send_attempt":-1}`: "M_INVALID_PARAM", `{"client_secret":"c","email":["a@b.example"],"send_attempt":1}`: "M_BAD_JSON",
			`{"client_secret":"c","email":"a@b.example","send_attempt":"1"}`: "M_BAD_JSON", `{"client_secret":"c","email":"a@b.example","send_attempt":1.5}`: "M_BAD_JSON", `[]`: "M_BAD_JSON",
			`{"client_secret":"` + strings.Repeat("c", 256) + `","email":"a@b.example","send_attempt":1}`: "M_INVALID_PARAM",
		} {
			s.do("POST", path, "", body).refused(400, code)
		}
		s.do("POST", "/v3/"+where+"/msisdn/requestToken", "", `{"client_secret":"c","country":"GB","phone_number":"07700900001","send_attempt":1}`).refused(400, "M_THREEPID_MEDIUM_NOT_SUPPORTED")
	}
	if n := len(srv.Mails()); n != 0 {
		t.Errorf("%d mails were sent", n)
	}
	s.do("POST", "/v3/account/3pid/delete", s.bob, `{"medium":"pigeon","address":"x"}`).refused(400, "M_INVALID_PARAM")
	s.do("POST", "/v3/account/3pid/delete", s.bob, `{}`).refused(400, "M_MISSING_PARAM")
	s.do("POST", "/v3/account/3pid/add", s.bob, `{}`).refused(400, "M_MISSING_PARAM")
	s.unaffected()
}

func TestAServerWithoutMailSaysSo(t *testing.T) {
	s := newSiege(t, storagetest.Open(t, storagetest.SQLiteURL(t)))
	for _, where := range []string{"register", "account/password", "account/3pid"} {
		s.ask(where, "", "a@b.example", "c", 1).refused(400, "M_THREEPID_MEDIUM_NOT_SUPPORTED")
	}
	s.do("POST", "/v3/account/3pid/add", s.bob, `{"sid":"x","client_secret":"c"}`).refused(400, "M_THREEPID_MEDIUM_NOT_SUPPORTED")
	s.do("POST", "/v3/account/password", "", `{"new_password":"long enough"}`).refused(401, "M_MISSING_TOKEN")
	if a := s.do("GET", "/v3/account/3pid", s.bob, nil).ok(); a.body != `{"threepids":[]}` {
		t.Error(a.body)
	}
	if gjson.Get(s.do("GET", "/v3/capabilities", s.bob, nil).ok().body, `capabilities.m\.3pid_changes.enabled`).Bool() {
		t.Error("the capability is there")
	}
	s.unaffected()
}

func TestHostileMails(t *testing.T) {
	srv, post := posted(t)
	s := newSiege(t, storagetest.Open(t, storagetest.SQLiteURL(t)), limited, post)
	s.besiege(t, []attack{
		{"C40 a flood of requests sends a handful of mails", func(s *siege) {
			before := len(srv.Mails())
			refused := 0
			for i := range 40 {
				a := s.ask("register", "", "victim@example.org", "c"+string(rune('a'+i%26)), i+1)
				if a.status == 429 {
					a.refused(429, "M_LIMIT_EXCEEDED")
					refused++
				}
			}
			if sent := len(srv.Mails()) - before; sent > 6 || refused < 30 {
				s.t.Errorf("%d mails, %d refusals", sent, refused)
			}
		}},
		{"C13 whether an address is known shows neither in the answer nor in its form", func(s *siege) {
			s.clock.Advance(5 * time.Hour)
			s.addEmail(srv, s.bob, "bob", "bob@example.org")
			for _, where := range []string{"register", "account/password"} {
				s.clock.Advance(5 * time.Hour)
				known, unknown := s.ask(where, "", "bob@example.org", "k", 1).ok(), s.ask(where, "", "none@example.org", "k", 1).ok()
				if len(known.m) != len(unknown.m) || len(known.str("sid")) != len(unknown.str("sid")) {
					s.t.Errorf("%s %s", known.body, unknown.body)
				}
			}
		}},
	})
}
