// SPDX-License-Identifier: Apache-2.0

// Package federation speaks with other homeservers: it finds them, knows their keys, signs what it asks them, checks what they send
// and brings their events into the rooms. How requests travel by HTTP on our side is fedapi's business.
//
//	out:  Client.Do -> Resolver (well-known, SRV, port 8448) -> guarded TLS connection -> X-Matrix signature -> bounded answer
//	in:   fedapi -> Authenticate (X-Matrix) -> Transaction -> signature, hash, ACL -> rooms.Insert, missing events fetched before
//
// Nothing of a stranger is believed before its signature, and no request leaves for an address that is not public unless the operator
// opened it (Config.Allow).
package federation

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// Config is what the operator chose.
type Config struct {
	Allow        []netip.Prefix // ranges that other servers may be in although they are not public
	Roots        *x509.CertPool // authorities for other servers' certificates; nil: the system's
	AllowServers []string       // if any, only these servers are spoken with: names, or *.suffix
	DenyServers  []string       // these never are
	Notaries     []string       // servers that are asked for the keys of those who do not answer
	DenyKeys     []string       // public keys, in base64, that are known to have leaked
}

// Deps are the parts that federation leans on.
type Deps struct {
	Config Config
	Store  *storage.Store
	Rooms  *rooms.Service
	Clock  signalling.Clock
	Log    *slog.Logger
	DNS    DNS // nil: the system's resolver

	Exists func(ctx context.Context, user string) (bool, error) // whether a local user may be invited; nil: everybody
	Alive  func(server string)                                  // told of servers that show life; may be nil
	Queued func(server string)                                  // told after something was put into the outbox for a server; may be nil
}

// Service is federation of one server.
type Service struct {
	Deps
	Client *Client
	Keys   *Keys
	server string

	entering singleflight.Group // by room and user
	txns     singleflight.Group // by origin and transaction id
	filling  singleflight.Group // by room and missing events
	lanes    *lanes
	edus     map[string]EDUHandler
	partial  chan struct{} // a room was joined without its whole state
}

// New makes the service; Run has to work for it.
func New(d Deps) *Service {
	if d.DNS == nil {
		d.DNS = net.DefaultResolver
	}
	s := &Service{Deps: d, server: d.Rooms.Server(), edus: map[string]EDUHandler{}, partial: make(chan struct{}, 1)}
	s.lanes = newLanes(func(ctx context.Context, j *job) { j.results, j.failed = s.place(ctx, j.origin, j.room, j.events) })
	s.Client = newClient(s.server, d.Rooms.Signer, d.Config, d.DNS, d.Clock)
	s.Keys = newKeys(d, s.Client)
	d.Rooms.UsePolicyServers(s.askPolicy)
	return s
}

// pruneEvery is how often old transactions are forgotten.
const (
	pruneEvery = time.Hour
	txnLife    = 24 * time.Hour
)

// Run tidies up until ctx ends, then closes the connections.
func (s *Service) Run(ctx context.Context) error {
	defer s.Client.Close()
	defer s.lanes.close()
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() { s.resyncs(ctx) })
	for {
		if err := s.Store.Write(ctx, func(tx *storage.Tx) error {
			return tx.PruneFederationTxns(s.Clock.Now().Add(-txnLife).UnixMilli())
		}); err != nil && !errors.Is(err, context.Canceled) {
			s.Log.Warn("old transactions were not forgotten", "err", err)
		}
		due := make(chan struct{})
		stop := s.Clock.AfterFunc(pruneEvery, func() { close(due) })
		select {
		case <-ctx.Done():
			stop()
			return ctx.Err()
		case <-due:
		}
	}
}

// EDUTypes lists the types of EDUs that are taken.
func (s *Service) EDUTypes() []string { return slices.Sorted(maps.Keys(s.edus)) }

// Server is the name of this server.
func (s *Service) Server() string { return s.server }

// Permits says whether this server speaks with another one at all. Errors: M_FORBIDDEN, M_INVALID_PARAM.
func (s *Service) Permits(server string) error { return s.Config.permits(server) }

func (c Config) permits(server string) error {
	if _, err := parseName(server); err != nil {
		return err
	}
	host := hostOf(server)
	if named(c.DenyServers, host) || len(c.AllowServers) > 0 && !named(c.AllowServers, host) {
		return signalling.Forbidden("this server does not speak with %s", server)
	}
	return nil
}

// named says whether host is in a list of names and *.suffixes.
func named(list []string, host string) bool {
	return slices.ContainsFunc(list, func(p string) bool {
		p = strings.ToLower(p)
		if suffix, ok := strings.CutPrefix(p, "*"); ok {
			return strings.HasSuffix(host, suffix)
		}
		return p == host
	})
}
