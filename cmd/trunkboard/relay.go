// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/trunkboard/trunkboard/configs"
	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/turn"
	"github.com/trunkboard/trunkboard/turn/status"
)

// Credentials that other programs make with the shared secret may live a day, as they do elsewhere.
const foreignCredentials = 24 * time.Hour

// relay is the TURN server with what the rest of the App wants of it.
type relay struct {
	server   *turn.Server
	creds    *turn.Credentials
	uris     []string
	lifetime time.Duration
	shared   sync.WaitGroup // connections taken over from HTTPS ports
}

// openRelay binds the relay's ports.
func (a *App) openRelay() error {
	c := a.cfg.TURN
	if !a.has("turn") || len(c.Listen) == 0 && (a.certificate == nil || len(c.TLSListen) == 0) {
		return nil
	}
	secret := c.Secret
	if secret == "" {
		var err error
		if secret, err = keptSecret(a.cfg.DataDir, "turn"); err != nil {
			return fmt.Errorf("turn.secret: %w", err)
		}
	}
	creds, err := turn.NewCredentials(turn.CredentialsConfig{Secrets: append([]string{secret}, c.OldSecrets...), MaxTTL: max(foreignCredentials, c.CredentialLifetime)})
	if err != nil {
		return err
	}
	cfg := a.relayConfig()
	more, err := relayOptions(&cfg, c.Options)
	if err != nil {
		return err
	}
	if more.stunServer != "" {
		if cfg.Relays, err = findExternal(cfg.Relays, more.stunServer, a.log); err != nil {
			return err
		}
	}
	if more.status {
		if a.cfg.Redis.URL == "" {
			return errors.New("turn.options: status: set redis.url, the Redis that shall be told")
		}
		told, err := status.NewRedis(a.cfg.Redis.URL, a.log.With("part", "turn"))
		if err != nil {
			return fmt.Errorf("redis.url: %w", err)
		}
		cfg.Notify = told.Notify
		a.running = append(a.running, component{name: "relay status", run: told.Run, close: told.Close}) // after the relay, whose last sessions it tells
	}
	server, err := turn.New(cfg, creds, a.log.With("part", "turn"), a.meters.registry)
	if err != nil {
		return a.cannotRelay(err)
	}
	r := &relay{server: server, creds: creds, lifetime: c.CredentialLifetime}
	r.uris = a.relayURIs(server.Addrs())
	a.relay = r
	a.running = append(a.running, component{name: "turn", run: server.Run, drain: r.drain, close: func() error {
		server.Close()
		r.shared.Wait()
		return nil
	}})
	return nil
}

// cannotRelay names the setting of a port that the relay could not open.
func (a *App) cannotRelay(err error) error {
	if !errors.As(err, new(syscall.Errno)) {
		return err
	}
	if op := (*net.OpError)(nil); errors.As(err, &op) && op.Addr != nil && a.certificate != nil {
		for _, l := range a.cfg.TURN.TLSListen {
			if _, port, _ := net.SplitHostPort(l); port != "" && strings.HasSuffix(op.Addr.String(), ":"+port) {
				return cannotBind("turn.tls_listen", err)
			}
		}
	}
	return cannotBind("turn.listen", err)
}

func (a *App) relayConfig() turn.Config {
	c := a.cfg.TURN
	cfg := turn.Config{
		// Empty is none here; nil would be the relay's own default.
		ListenUDP: append([]string{}, c.Listen...),
		ListenTCP: append([]string{}, c.Listen...),
		ListenTLS: []string{}, ListenDTLS: []string{},
		Realm:     c.Realm,
		MinPort:   uint16(c.Relay.MinPort),
		MaxPort:   uint16(c.Relay.MaxPort),
		Allow:     c.Relay.Allow,
		Mobility:  true,
		UserQuota: quota(c.MaxAllocationsPerUser), TotalQuota: quota(c.MaxAllocations),
	}
	if a.conference != nil { // clients whose network lets nothing else through meet the SFU by way of the relay
		cfg.LocalPeers = a.conference.transport.Candidates()
	}
	for _, r := range c.Relay.Addresses {
		cfg.Relays = append(cfg.Relays, turn.RelayAddress(r))
	}
	if a.certificate != nil {
		cfg.TLS = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: a.certificate}
		cfg.ListenTLS = append(cfg.ListenTLS, c.TLSListen...)
		cfg.ListenDTLS = append(cfg.ListenDTLS, c.TLSListen...)
	}
	if !a.cfg.Limits.Enabled {
		cfg.UnauthorizedRate, cfg.BindingRate = -1, -1
		cfg.MaxConnections, cfg.MaxConnectionsPerSource = 100_000, 100_000
	}
	return cfg
}

// quota: 0 means no limit in the settings, below 0 in the relay's.
func quota(n int) int {
	if n == 0 {
		return -1
	}
	return n
}

// relayURIs is where clients are told to find the relay, the way that costs least first.
func (a *App) relayURIs(at turn.Addrs) (uris []string) {
	host := a.relayHost()
	add := func(scheme, transport string, ports ...netip.AddrPort) {
		for _, p := range ports {
			uri := fmt.Sprintf("%s:%s?transport=%s", scheme, net.JoinHostPort(host, strconv.Itoa(int(p.Port()))), transport)
			if !slices.Contains(uris, uri) {
				uris = append(uris, uri)
			}
		}
	}
	add("turn", "udp", at.UDP...)
	add("turn", "tcp", at.TCP...)
	add("turns", "tcp", at.TLS...)
	// DTLS is not named: no browser speaks it to a relay, and other clients are set up by hand.
	if https, err := netip.ParseAddrPort(a.Addr("listen.https")); err == nil {
		add("turns", "tcp", https) // the port that every firewall lets through
	}
	return uris
}

// relayHost is the host in those URIs. A server on trial is reached by its address, for names of a LAN are rarely known.
func (a *App) relayHost() string {
	if a.cfg.TURN.PublicHost != "" || a.cfg.PublicURL != "" || a.cfg.ServerName != "localhost" {
		return a.cfg.TURNHost()
	}
	if lan := lanAddresses(); a.cfg.TLS.Mode == configs.TLSSelfSigned && len(lan) > 0 {
		return lan[0].String()
	}
	return "127.0.0.1" // not localhost: that may be ::1 first, and UDP knows no second try
}

// Issue makes credentials for a device of a user, and says where they are good.
func (r *relay) Issue(userID, deviceID string) signalling.ICEServer {
	s := r.creds.Issue(userID, deviceID, r.lifetime)
	s.URIs = r.uris
	return s
}

// take serves a connection that came in on an HTTPS port; it returns at once.
func (r *relay) take(conn net.Conn) { r.shared.Go(func() { r.server.ServeConn(conn) }) }

// takeRelayed is what HTTPS ports do with TURN connections; nil where no relay runs.
func (a *App) takeRelayed() func(net.Conn) {
	if a.relay == nil {
		return nil
	}
	return a.relay.take
}

// drain refuses new allocations and waits until the last one is gone.
func (r *relay) drain(ctx context.Context) error {
	r.server.Drain()
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	for r.server.AllocationCount() > 0 {
		select {
		case <-look.C:
		case <-ctx.Done():
			return fmt.Errorf("%d allocations: %w", r.server.AllocationCount(), ctx.Err())
		}
	}
	return nil
}
