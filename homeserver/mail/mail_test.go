// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/mail/mailtest"
	"github.com/trunkboard/trunkboard/signalling"
)

func TestMailsArriveByEachWayOfEncryption(t *testing.T) {
	for _, mode := range []string{TLSStart, TLSFull, TLSOff} {
		t.Run(mode, func(t *testing.T) {
			srv := mailtest.New(t, mode == TLSFull)
			cfg := Config{Server: srv.Addr, TLS: mode, From: "Trunkboard <server@test.example>", Roots: srv.Roots}
			login := ""
			if mode != TLSOff {
				cfg.User, cfg.Password, login = "postmaster", "pass word", "postmaster:pass word"
			}
			s, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			text := "Grüße\n\n.a line with a dot\nhttps://chat.example/" + strings.Repeat("long", 60) + "?a=b&c=d\n"
			if err := s.Send(t.Context(), "alice@example.org", "A subject – with more than ASCII", text); err != nil {
				t.Fatal(err)
			}
			m := srv.Last("alice@example.org")
			if got := strings.ReplaceAll(m.Text, "\r\n", "\n"); strings.TrimRight(got, "\n") != strings.TrimRight(text, "\n") {
				t.Errorf("text: %q", got)
			}
			if m.Subject != "A subject – with more than ASCII" || m.From != "server@test.example" || m.Login != login || m.TLS != (mode != TLSOff) {
				t.Errorf("%+v", m)
			}
			if m.Header.Get("Auto-Submitted") != "auto-generated" || m.Header.Get("Message-Id") == "" || m.Header.Get("Date") == "" {
				t.Errorf("header: %v", m.Header)
			}
		})
	}
}

func TestAServerThatCannotBeTrustedGetsNoMailAndNoPassword(t *testing.T) {
	srv := mailtest.New(t, false)
	for _, mode := range []string{TLSStart, TLSFull} {
		s, err := New(Config{Server: srv.Addr, TLS: mode, User: "u", Password: "p", From: "server@test.example", Timeout: 3 * time.Second}) // trusts this machine's authorities only
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Send(t.Context(), "alice@example.org", "s", "t"); err == nil {
			t.Errorf("%s: sent", mode)
		}
	}
	if n := len(srv.Mails()); n != 0 {
		t.Errorf("%d mails arrived", n)
	}
}

func TestAnAddressThatIsRefusedForGoodIsTheAskersFault(t *testing.T) {
	srv := mailtest.New(t, false)
	srv.Refuse = func(to string) string {
		switch to {
		case "gone@example.org":
			return "550 no such mailbox"
		case "full@example.org":
			return "452 try later"
		}
		return ""
	}
	s, err := New(Config{Server: srv.Addr, TLS: TLSOff, From: "server@test.example"})
	if err != nil {
		t.Fatal(err)
	}
	if e := signalling.AsError(s.Send(t.Context(), "gone@example.org", "s", "t")); e.Code != "M_INVALID_PARAM" {
		t.Error(e)
	}
	if e := signalling.AsError(s.Send(t.Context(), "full@example.org", "s", "t")); e.Status != 500 {
		t.Error(e)
	}
	if err := s.Send(t.Context(), "a@b\r\nRCPT TO:<x@y>", "s", "t"); err == nil {
		t.Error("an address with line breaks was taken")
	}
	if err := s.Send(t.Context(), "good@example.org", "subject\r\nBcc: x@y.example", "t"); err == nil {
		if m := srv.Last("good@example.org"); m.Header.Get("Bcc") != "" {
			t.Error("a subject brought a header along")
		}
	}
}

func TestASilentServerIsGivenUp(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s, err := New(Config{Server: l.Addr().String(), TLS: TLSOff, From: "server@test.example", Timeout: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for range 3 * atOnce {
		wg.Go(func() {
			if s.Send(ctx, "alice@example.org", "s", "t") == nil {
				t.Error("sent to nobody")
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		t.Error("it took too long")
	}
}

func TestSettingsThatCannotWorkAreRefused(t *testing.T) {
	good := Config{Server: "mail.example:587", TLS: TLSStart, From: "Chat <chat@example.org>"}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(*Config){
		"no port": func(c *Config) { c.Server = "mail.example" }, "no host": func(c *Config) { c.Server = ":587" }, "a port that is none": func(c *Config) { c.Server = "mail.example:smtp" },
		"a password in the clear": func(c *Config) { c.TLS, c.User = TLSOff, "u" },
		"a mode that is none":     func(c *Config) { c.TLS = "maybe" }, "a sender that is none": func(c *Config) { c.From = "chat" }, "no sender": func(c *Config) { c.From = "" },
	} {
		bad := good
		change(&bad)
		if _, err := New(bad); err == nil {
			t.Errorf("%s: taken", what)
		}
	}
}
