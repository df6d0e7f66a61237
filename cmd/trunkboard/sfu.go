// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"github.com/trunkboard/trunkboard/sfu"
	"github.com/trunkboard/trunkboard/sfu/livekit"
	"github.com/trunkboard/trunkboard/sfu/transport"
)

// sfuPath is where LiveKit's clients find the SFU on the ports of the homeserver. Where neither homeserver nor web client run, it is
// at the root too, as LiveKit's own server is.
const sfuPath = "/livekit/sfu"

// ownKey is the API key that the server makes tokens with when none is configured.
const ownKey = "trunkboard"

// conference is the SFU with what the rest of the App wants of it.
type conference struct {
	transport *transport.Transport
	engine    *sfu.Engine
	server    *livekit.Server
	handler   http.Handler
	keys      livekit.Keys
	gate      *gate
}

// openSFU binds the media port.
func (a *App) openSFU() error {
	c := a.cfg.SFU
	if !a.has("sfu") || c.ListenUDP == "" {
		return nil
	}
	keys := livekit.Keys{}
	for _, k := range c.Keys {
		name, secret, _ := strings.Cut(k, "=")
		keys[name] = secret
	}
	if _, taken := keys[ownKey]; !taken {
		secret, err := keptSecret(a.cfg.DataDir, "sfu")
		if err != nil {
			return fmt.Errorf("sfu.keys: %w", err)
		}
		keys[ownKey] = secret
	}
	at, err := mediaAddress(c.ListenUDP)
	if err != nil {
		return fmt.Errorf("sfu.listen_udp: %w", err)
	}
	var streams []netip.AddrPort
	if c.ListenTCP != "" {
		at, err := mediaAddress(c.ListenTCP)
		if err != nil {
			return fmt.Errorf("sfu.listen_tcp: %w", err)
		}
		streams = append(streams, at)
	}
	log := a.log.With("part", "sfu")
	t, err := transport.Listen(transport.Config{Listen: []netip.AddrPort{at}, ListenTCP: streams, Advertise: c.PublicAddresses, Log: log})
	if overTCP(err) {
		return cannotBind("sfu.listen_tcp", err)
	}
	if err != nil {
		return cannotBind("sfu.listen_udp", err)
	}
	g := &gate{}
	var hooks *livekit.Hooks
	var journal func(sfu.Entry)
	if len(c.Webhooks) > 0 {
		key := ownKey
		if len(c.Keys) > 0 {
			key, _, _ = strings.Cut(c.Keys[0], "=")
		}
		hooks = livekit.NewHooks(c.Webhooks, keys, key, log)
		journal = hooks.Note
	}
	engine := sfu.New(sfu.Config{Transport: t, Watcher: g, Journal: journal, Log: log})
	a.meters.registry.MustRegister(calling{engine, t})
	server := livekit.New(livekit.Config{
		Engine: engine, Keys: keys, AutoCreate: c.AutoCreate, Log: log, ICEServers: a.sfuICEServers, Admit: g.admit,
	})
	handler := server.Handler()
	a.conference = &conference{transport: t, engine: engine, server: server, handler: handler, keys: keys, gate: g}
	a.running = append(a.running, component{name: "sfu", run: waitForEnd, drain: engine.Drain, close: func() error {
		engine.Close() // tells the clients, so before their connections are cut
		server.Close()
		t.Close()
		if hooks != nil {
			hooks.Close()
		}
		return nil
	}})
	return nil
}

// waitForEnd is the run of a part whose goroutines started with it.
func waitForEnd(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// sfuICEServers gives a participant credentials for our relay, if it runs here.
func (a *App) sfuICEServers(identity string) []livekit.ICEServer {
	if a.relay == nil {
		return nil
	}
	s := a.relay.Issue(identity, "")
	return []livekit.ICEServer{{URLs: s.URIs, Username: s.Username, Credential: s.Credential}}
}

// mediaAddress reads a setting that checkListen has passed; no host stands for every address.
func mediaAddress(value string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(value)
	if err != nil {
		return netip.AddrPort{}, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return netip.AddrPort{}, err
	}
	ip := netip.IPv6Unspecified()
	switch host {
	case "":
	case "localhost":
		ip = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	default:
		if ip, err = netip.ParseAddr(host); err != nil {
			return netip.AddrPort{}, err
		}
	}
	return netip.AddrPortFrom(ip, uint16(n)), nil
}

// withSFU serves the SFU's paths before next.
func (a *App) withSFU(next http.Handler) http.Handler {
	if a.conference == nil {
		return next
	}
	under := http.StripPrefix(sfuPath, a.count("sfu", a.conference.handler))
	root := !a.has("homeserver") && !a.has("web")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, sfuPath+"/"):
			under.ServeHTTP(w, r)
		case root && (r.URL.Path == "/" || r.URL.Path == "/rtc" || strings.HasPrefix(r.URL.Path, "/rtc/") || strings.HasPrefix(r.URL.Path, "/twirp/")):
			a.count("sfu", a.conference.handler).ServeHTTP(w, r)
		default:
			next.ServeHTTP(w, r)
		}
	})
}
