// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/golang-jwt/jwt/v5"

	"github.com/trunkboard/trunkboard/configs"
	"github.com/trunkboard/trunkboard/homeserver/federation"
	"github.com/trunkboard/trunkboard/homeserver/httpapi"
	"github.com/trunkboard/trunkboard/homeserver/rtc"
	"github.com/trunkboard/trunkboard/sfu"
	"github.com/trunkboard/trunkboard/sfu/livekit"
	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/focus"
	"github.com/trunkboard/trunkboard/signalling/limit"
	"github.com/trunkboard/trunkboard/signalling/matrixrtc"
)

// gate stands between the SFU, which opens first, and the token service, which needs the homeserver.
type gate struct{ service atomic.Pointer[focus.Service] }

var _ sfu.Watcher = (*gate)(nil)

// Came implements sfu.Watcher.
func (g *gate) Came(room, identity, sid string) {
	if s := g.service.Load(); s != nil {
		s.Came(room, identity, sid)
	}
}

// Went implements sfu.Watcher.
func (g *gate) Went(room, identity, sid string, reason sfu.Reason) {
	if s := g.service.Load(); s != nil {
		s.Went(room, identity, sid, reason == sfu.Duplicate, reason == sfu.Left)
	}
}

// admit lets the token service judge its own tokens. Those of the operator's keys are good as they are.
func (g *gate) admit(ctx context.Context, c *livekit.Claims) (create bool, err error) {
	if c.Issuer != ownKey || c.Holder == "" {
		return false, nil
	}
	s := g.service.Load()
	if s == nil {
		return false, errors.New("this server issues no tokens any more")
	}
	create, err = s.Admit(ctx, c.Video.Room, c.Subject, c.Holder)
	if err != nil {
		return false, errors.New(signalling.AsError(err).Message) // not its cause
	}
	return create, nil
}

// Sign implements focus.Media.
func (c *conference) Sign(t focus.Token) (string, error) {
	yes, publish := true, &t.Publish
	return c.keys.Sign(ownKey, livekit.Claims{
		RegisteredClaims: jwt.RegisteredClaims{Subject: t.Identity}, Holder: t.Holder, Name: t.Name, Metadata: t.Metadata,
		Video: &livekit.Grant{
			RoomJoin: true, Room: t.Room, CanPublish: publish, CanSubscribe: &yes, CanPublishData: publish,
			CanUpdateMetadata: &t.Attributes, KeepMetadata: t.Attributes, Held: t.Held,
		},
	}, t.Life)
}

// Remove implements focus.Media.
func (c *conference) Remove(room, identity string) bool { return c.engine.Remove(room, identity) }

// Open implements focus.Media. A server that has no place for another room says so when somebody joins.
func (c *conference) Open(room string) { _, _ = c.engine.Room(room, true) }

// openFocus makes the token service on top of what knows users and rooms. It is nil where no SFU runs.
func (a *App) openFocus(conf focus.Config, knows focus.Homeserver, later matrixrtc.Events, book matrixrtc.Book, seen focus.Attendance) *focus.Service {
	if a.conference == nil || !a.has("focus") {
		return nil
	}
	clock := a.clock
	log := a.log.With("part", "focus")
	allow := limit.New(clock, rates(a.cfg.Limits), 0)
	conf.ServerName, conf.PublicURL, conf.FollowHost = a.cfg.ServerName, a.publicURL(), a.cfg.ServerName == "localhost" && a.cfg.PublicURL == ""
	s := focus.New(focus.Deps{
		Config: conf, Media: a.conference, Homeserver: knows, Attendance: seen, Leaves: matrixrtc.NewLeaves(later, book, clock, log), Clock: clock, Log: log,
		Limit: func(r *http.Request) error {
			return allow.Check("requests", httpapi.Address(r, a.cfg.Listen.TrustedProxies))
		},
	})
	a.conference.gate.service.Store(s)
	a.focus = a.count("focus", s.Handler())
	a.running = append(a.running, component{name: "focus", run: s.Run})
	return s
}

// openFocusBeside makes the token service for a homeserver that runs elsewhere.
func (a *App) openFocusBeside() error {
	b, err := configs.ParseBeside(a.cfg.SFU.Homeserver)
	if err != nil || b.URL == "" || a.has("homeserver") {
		return err
	}
	other := focus.Beside{ServerName: a.cfg.ServerName, URL: b.URL, Token: b.Token, Related: b.FullAccess, Client: focus.NewClient()}
	var servers *federation.Client
	if f := a.cfg.Federation; f.Enabled {
		conf, err := federationConfig(f)
		if err != nil {
			return err
		}
		servers = federation.NewUnsigned(a.cfg.ServerName, conf, a.dns, a.clock)
		other.Elsewhere = rtc.Servers{Client: servers}
	}
	conf := focus.Config{Restricted: true, FullAccess: func(server string) bool { return b.Everybody || b.FullAccess[server] != "" }}
	if b.Token != "" {
		conf.Watch = other
	}
	a.openFocus(conf, other, other, nil, nil)
	a.running = append(a.running, component{name: "homeserver elsewhere", close: func() error {
		other.Client.CloseIdleConnections()
		if servers != nil {
			servers.Close()
		}
		return nil
	}})
	return nil
}

// withFocus serves the token service's paths before next; where neither homeserver nor web client run, at the root too.
func (a *App) withFocus(next http.Handler) http.Handler {
	if a.focus == nil {
		return next
	}
	under := http.StripPrefix(focus.ServicePath, a.focus)
	root := !a.has("homeserver") && !a.has("web")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, focus.ServicePath+"/"):
			under.ServeHTTP(w, r)
		case root && slices.Contains([]string{"/sfu/get", "/get_token", "/delegate_delayed_leave", "/healthz"}, r.URL.Path):
			a.focus.ServeHTTP(w, r)
		default:
			next.ServeHTTP(w, r)
		}
	})
}
