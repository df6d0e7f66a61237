// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"

	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/homeserver/calls"
	"github.com/trunkboard/trunkboard/homeserver/clientapi"
	"github.com/trunkboard/trunkboard/homeserver/delayed"
	"github.com/trunkboard/trunkboard/homeserver/e2ee"
	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/fedapi"
	"github.com/trunkboard/trunkboard/homeserver/federation/edus"
	"github.com/trunkboard/trunkboard/homeserver/guests"
	"github.com/trunkboard/trunkboard/homeserver/mail"
	"github.com/trunkboard/trunkboard/homeserver/media"
	"github.com/trunkboard/trunkboard/homeserver/notices"
	"github.com/trunkboard/trunkboard/homeserver/preview"
	"github.com/trunkboard/trunkboard/homeserver/push"
	"github.com/trunkboard/trunkboard/homeserver/push/deliver"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/rtc"
	"github.com/trunkboard/trunkboard/homeserver/search"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/syncapi"
	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/focus"
	"github.com/trunkboard/trunkboard/signalling/limit"
	"github.com/trunkboard/trunkboard/signalling/presence"
)

// openHomeserver opens the database and puts the services and their API on top of it.
func (a *App) openHomeserver(ctx context.Context) (http.Handler, error) {
	clock := a.clock
	store, err := storage.Open(ctx, a.cfg.DatabaseURL(), a.log.With("part", "storage"))
	if err != nil {
		return nil, fmt.Errorf("database.url: %w", err)
	}
	a.running = append(a.running, component{name: "database", close: store.Close})
	if err := a.openRelayUsers(ctx, store); err != nil {
		return nil, err
	}

	people := accountsConfig(a.cfg)
	if e := a.cfg.Email; e.SMTP != "" {
		if people.Mailer, err = mail.New(mail.Config{Server: e.SMTP, TLS: e.TLS, User: e.User, Password: e.Password, From: e.From}); err != nil {
			return nil, fmt.Errorf("email: %w", err)
		}
	}
	acc, err := accounts.New(ctx, store, people, clock, a.log.With("part", "accounts"))
	if err != nil {
		return nil, err
	}
	a.running = append(a.running, component{name: "accounts", run: acc.Run})

	room, err := rooms.New(ctx, store, a.cfg.ServerName, clock, a.log.With("part", "rooms"))
	if err != nil {
		return nil, err
	}
	if err := room.UseVersion(event.Version(a.cfg.Rooms.DefaultVersion)); err != nil {
		return nil, fmt.Errorf("rooms.default_version: %w", err)
	}
	room.UseProfiles(acc.NameAndAvatar)
	room.UseInvitePolicy(acc.MayInvite)
	others, err := a.openFederation(store, room, acc, clock)
	if err != nil {
		return nil, err
	}
	var remote e2ee.Remote // no interface around a nil pointer, here and below
	if others != nil {
		remote = others
	}
	keys := e2ee.New(store, a.cfg.ServerName, a.log.With("part", "e2ee"), e2ee.Deps{Rooms: room, Clock: clock, Remote: remote})
	room.UseGuests(acc.IsGuest)
	room.UseErased(acc.Erased)
	here, err := a.openPresence(clock)
	if err != nil {
		return nil, err
	}
	rules := push.New(store, clock, a.log.With("part", "push"))
	acc.Hook(accounts.Hooks{DeviceDeleted: rules.DeviceDeleted})
	a.running = append(a.running, component{name: "push", run: rules.Run})
	telling := &outgoing{} // filled in below: who tells other servers leans on sync, and sync on it
	sync := syncapi.New(syncapi.Deps{
		Store: store, Rooms: room, Keys: keys, Account: withPushRules{acc.ForSync(), rules}, Ignores: acc, Invites: acc, Unread: rules, Presence: here, Clock: clock, Log: a.log.With("part", "sync"), CatchUp: store.CatchUp,
		Typed: telling.typed,
	})
	groupCalls := calls.NewGroups(store, room, clock, a.log.With("part", "calls"), a.meters.registry)
	a.running = append(a.running, component{name: "group calls", run: groupCalls.Run})
	records := calls.New(calls.Deps{
		Config: calls.Config{RetentionDays: a.cfg.Calls.RetentionDays}, Store: store, Rooms: room, Clock: clock, Log: a.log.With("part", "calls"), Metrics: a.meters.registry,
		Groups: groupCalls,
	})
	later := delayed.New(store, room, clock, a.log.With("part", "delayed"))
	a.running = append(a.running, component{name: "delayed events", run: later.Run})
	home := rtc.Home{Accounts: acc, Rooms: room, Later: later}
	if others != nil {
		home.Remote = rtc.Servers{Client: others.Client}
	}
	seen := &attendance{calls: groupCalls}
	groups := a.openFocus(focus.Config{}, home, later, rtc.Book{Store: store}, seen)
	if groups != nil && others != nil {
		groups.Remote = rtc.Servers{Client: others.Client}
	}
	pushes := a.openPushes(deliver.Deps{Store: store, Rooms: room, Rules: rules, Calls: records, Ignores: acc, Invites: acc, Clock: clock})
	records.OnStopped(pushes.Stopped)
	if others != nil {
		a.openSender(telling, others, edus.Deps{Store: store, Rooms: room, Sync: sync, Keys: keys, Presence: here, Clock: clock})
	}
	gatherings, err := a.openMeetings(groups, store, room, acc, clock)
	if err != nil {
		return nil, err
	}
	seen.meetings = gatherings
	visitors := guests.New(room, acc, a.log.With("part", "guests"))
	a.running = append(a.running, component{name: "guests", run: visitors.Run})
	store.Observe(func(pos int64, notes []storage.Note) {
		rules.Observe(pos, notes) // first, so that an event and the count with it go out together
		sync.Observe(pos, notes)
		records.Observe(pos, notes)
		groupCalls.Observe(pos, notes)
		visitors.Observe(pos, notes)
		if groups != nil {
			rtc.EndMedia(groups, notes)
			gatherings.Observe(pos, notes)
		}
		telling.observe(pos, notes)
		pushes.Observe(pos, notes) // after records, which it asks whether a call rings
	})
	a.running = append(a.running, component{name: "calls", run: records.Run})
	a.running = append(a.running, component{name: "sync", run: sync.Run})

	words := search.New(store, clock, a.log.With("part", "search"))
	a.running = append(a.running, component{name: "search", run: words.Run})

	files, err := media.New(media.Config{
		ServerName: a.cfg.ServerName, Dir: filepath.Join(a.cfg.DataDir, "media"), MaxUpload: int64(a.cfg.Media.MaxUpload),
	}, store, clock, a.log.With("part", "media"))
	if err != nil {
		return nil, err
	}
	a.running = append(a.running, component{name: "media", run: files.Run})

	acc.Hook(accounts.Hooks{Deactivate: keys.Deactivate})
	acc.Hook(accounts.Hooks{
		DeviceDeleted: keys.DeviceDeleted,
		DeviceRenamed: keys.DeviceRenamed,
		Logout: func(userID, deviceID string) {
			keys.ForgetDevice(userID, deviceID)
			records.Logout(userID, deviceID)
			if a.relay != nil {
				a.relay.creds.Revoke(userID, deviceID)
			}
			if groups != nil {
				groups.LoggedOut(userID, deviceID)
			}
		},
		ProfileChange: func(ctx context.Context, userID string) {
			if err := room.ProfileChanged(context.WithoutCancel(ctx), userID); err != nil {
				a.log.Warn("a profile did not reach every room", "user", userID, "err", err)
			}
		},
		Deactivate: func(ctx context.Context, userID string, _ bool) error { return room.LeaveAll(ctx, userID) },
	})
	if err := a.openNodes(nodes{store: store, rooms: room, acc: acc, keys: keys, sync: sync, out: telling}); err != nil {
		return nil, err
	}
	var links *preview.Service
	if a.cfg.Media.Previews {
		links = preview.New(files, "@_preview:"+a.cfg.ServerName, a.cfg.Media.PreviewAllow, clock)
	}
	var ice clientapi.ICEIssuer
	if a.relay != nil {
		ice = a.relay
	}
	limiter := limit.New(clock, rates(a.cfg.Limits), 0)
	var servers clientapi.Servers
	if others != nil {
		servers = others
		files.UseRemote(others)
	}
	users := clientapi.New(clientapi.Deps{
		Config: clientapi.Config{
			ServerName:     a.cfg.ServerName,
			PublicURL:      a.publicURL(),
			Contact:        a.cfg.Contact,
			Federation:     a.cfg.Federation.PublicAddress,
			Meetings:       gatherings != nil,
			TrustedProxies: a.cfg.Listen.TrustedProxies,
		},
		Log:      a.log.With("part", "api"),
		Clock:    clock,
		Limiter:  limiter,
		Metrics:  a.meters.registry,
		Accounts: acc,
		Media:    files,
		Push:     rules,
		E2EE:     keys,
		Rooms:    room,
		Delayed:  later,
		Notices:  notices.New(store, room, acc),
		Search:   words,
		Preview:  links,
		Sync:     sync,
		Calls:    records,
		Presence: here,
		ICE:      ice,
		Focus:    groups,
		Servers:  servers,
	})
	return withServers(a.serverAPI(others, fedapi.Deps{Limiter: limiter, Accounts: acc, Rooms: room, E2EE: keys, Media: files, Focus: groups}), users), nil
}

// openPresence keeps presence in this process, or shares it with the other nodes.
func (a *App) openPresence(clock signalling.Clock) (presence.Store, error) {
	if a.cfg.Redis.URL == "" {
		s := presence.NewMem(presence.Config{}, clock)
		a.running = append(a.running, component{name: "presence", close: s.Close})
		return s, nil
	}
	s, err := presence.NewRedis(presence.Config{}, presence.RedisConfig{URL: a.cfg.Redis.URL}, clock, a.log.With("part", "presence"))
	if err != nil {
		return nil, fmt.Errorf("redis.url: %w", err)
	}
	a.running = append(a.running, component{name: "presence", close: s.Close})
	return s, nil
}
