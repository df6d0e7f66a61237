// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"

	"github.com/trunkboard/trunkboard/configs"
	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/homeserver/clientapi"
	"github.com/trunkboard/trunkboard/homeserver/fedapi"
	"github.com/trunkboard/trunkboard/homeserver/federation"
	"github.com/trunkboard/trunkboard/homeserver/federation/edus"
	"github.com/trunkboard/trunkboard/homeserver/federation/sender"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// openFederation makes what speaks with other servers; nil when federation is off.
func (a *App) openFederation(store *storage.Store, room *rooms.Service, acc *accounts.Service, clock signalling.Clock) (*federation.Service, error) {
	if !a.cfg.Federation.Enabled {
		return nil, nil
	}
	conf, err := federationConfig(a.cfg.Federation)
	if err != nil {
		return nil, err
	}
	service := federation.New(federation.Deps{
		Config: conf, Store: store, Rooms: room, Clock: clock, Log: a.log.With("part", "federation"), DNS: a.dns,
		Exists: func(ctx context.Context, user string) (bool, error) {
			u, err := acc.User(ctx, user)
			if err != nil && signalling.AsError(err).Code == "M_NOT_FOUND" {
				return false, nil
			}
			return !u.Deactivated, err
		},
	})
	a.running = append(a.running, component{name: "federation", run: service.Run})
	return service, nil
}

// federationConfig reads the settings.
func federationConfig(f configs.Federation) (federation.Config, error) {
	roots, err := authorities(f.TrustedCA)
	if err != nil {
		return federation.Config{}, fmt.Errorf("federation.trusted_ca: %w", err)
	}
	return federation.Config{
		Allow: f.AllowPrivate, Roots: roots, AllowServers: f.AllowServers, DenyServers: f.DenyServers, Notaries: f.KeyServers, DenyKeys: f.DenyKeys,
	}, nil
}

// outgoing tells other servers what happens here; empty where federation is off.
type outgoing struct {
	sender *sender.Sender
	edus   *edus.Service
}

func (o *outgoing) typed(room *rooms.Room, user string, typing bool) {
	if o.edus != nil {
		o.edus.Typed(room, user, typing)
	}
}

func (o *outgoing) observe(pos int64, notes []storage.Note) {
	if o.edus != nil {
		o.sender.Observe(pos, notes)
		o.edus.Observe(pos, notes)
	}
}

// hear takes in what other nodes announce of other servers.
func (o *outgoing) hear(a storage.Announcement) {
	if o.sender != nil {
		o.sender.Hear(a)
	}
}

// openSender makes what carries events and EDUs to other servers.
func (a *App) openSender(o *outgoing, others *federation.Service, d edus.Deps) {
	log := a.log.With("part", "federation")
	o.sender = sender.New(sender.Deps{Store: d.Store, Client: others.Client, Server: a.cfg.ServerName, Clock: d.Clock, Log: log, Metrics: a.meters.registry,
		Returned: func(server string) { o.edus.Returned(server) }})
	others.Alive, others.Queued = o.sender.Alive, o.sender.Wake
	d.Federation, d.Sender, d.Log = others, o.sender, log
	o.edus = edus.New(d)
	a.running = append(a.running, component{name: "federation sender", run: o.sender.Run}, component{name: "federation EDUs", run: o.edus.Run})
}

// serverAPI is what other servers ask; nil when federation is off.
func (a *App) serverAPI(service *federation.Service, d fedapi.Deps) *fedapi.API {
	if service == nil {
		return nil
	}
	d.Version, _, _ = build()
	d.TrustedProxies, d.Log, d.Metrics, d.Federation = a.cfg.Listen.TrustedProxies, a.log.With("part", "federation"), a.meters.registry, service
	return fedapi.New(d)
}

// authorities are the system's and those of a PEM file; nil, which stands for the system's, without a file.
func authorities(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate in PEM form", file)
	}
	return pool, nil
}

// withServers sends the requests of other servers to their API and everything else to that of users.
func withServers(servers *fedapi.API, users http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if servers != nil && fedapi.Serves(r.URL.Path) && !clientapi.Serves(r.URL.Path) {
			servers.ServeHTTP(w, r)
			return
		}
		users.ServeHTTP(w, r)
	})
}
