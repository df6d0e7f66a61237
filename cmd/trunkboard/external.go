// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/trunkboard/trunkboard/turn"
	"github.com/trunkboard/trunkboard/turn/probe"
)

// externalTime is how long a STUN server may take to tell the external address of a relay.
const externalTime = 3 * time.Second

// findExternal asks a STUN server what the relays' addresses look like from outside, for those that no external address is given for, and
// that the internet does not know. Where it does not answer the relay is told to clients as it is here, with a warning.
func findExternal(relays []turn.RelayAddress, server string, log *slog.Logger) ([]turn.RelayAddress, error) {
	host, text, err := net.SplitHostPort(server)
	if err != nil {
		return nil, fmt.Errorf("turn.options: external %s: want host:port of a STUN server: %w", server, err)
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("turn.options: external %s: %w", server, err)
	}
	if relays == nil {
		relays = turn.HostRelays()
	}
	out := append([]turn.RelayAddress(nil), relays...)
	ctx, cancel := context.WithTimeout(context.Background(), externalTime)
	defer cancel()
	var wg sync.WaitGroup
	for i := range out {
		r := &out[i]
		if r.External.IsValid() || !behindNAT(r.Local) {
			continue
		}
		wg.Go(func() {
			b, err := probe.Bind(ctx, probe.Server{Host: host, Port: int(port), Transport: "udp", From: r.Local})
			switch {
			case err != nil:
				log.Warn("the external address of a relay is not known; clients outside will not reach it. Name it in turn.relay.addresses",
					"part", "turn", "address", r.Local, "server", server, "err", err)
			case b.Mapped.Addr().Is4() == r.Local.Unmap().Is4() && b.Mapped.Addr() != r.Local.Unmap():
				r.External = b.Mapped.Addr()
				log.Info("the external address of a relay was found", "part", "turn", "address", r.Local, "external", r.External, "server", server)
			}
		})
	}
	wg.Wait()
	return out, nil
}

// behindNAT tells whether the address is one that the internet does not know, and that a NAT may stand for.
func behindNAT(a netip.Addr) bool {
	shared := netip.MustParsePrefix("100.64.0.0/10")
	return a.IsPrivate() || a.IsLoopback() || shared.Contains(a.Unmap())
}
