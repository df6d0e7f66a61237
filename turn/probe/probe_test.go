// SPDX-License-Identifier: Apache-2.0

package probe_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trunkboard/trunkboard/turn"
	"github.com/trunkboard/trunkboard/turn/probe"
)

func TestURIsOfEveryTransportAreRead(t *testing.T) {
	for uri, want := range map[string]probe.Server{
		"turn:example.org:3478?transport=udp":   {Host: "example.org", Port: 3478, Transport: "udp"},
		"turn:example.org?transport=tcp":        {Host: "example.org", Port: 3478, Transport: "tcp"},
		"turns:example.org:443?transport=tcp":   {Host: "example.org", Port: 443, Transport: "tls"},
		"turn:[2001:db8::1]:3478?transport=udp": {Host: "2001:db8::1", Port: 3478, Transport: "udp"},
	} {
		if got, err := probe.ParseURI(uri); err != nil || got != want {
			t.Errorf("%s: %+v %v", uri, got, err)
		}
	}
	for _, uri := range []string{"", "https://example.org", "turns:example.org?transport=udp", "turn:"} {
		if got, err := probe.ParseURI(uri); err == nil {
			t.Errorf("%q was read as %+v", uri, got)
		}
	}
}

// running is a relay on loopback that may relay to itself.
func running(t *testing.T, change func(*turn.Config)) (s *turn.Server, creds *turn.Credentials) {
	t.Helper()
	creds, err := turn.NewCredentials(turn.CredentialsConfig{})
	if err != nil {
		t.Fatal(err)
	}
	loopback := netip.MustParseAddr("127.0.0.1")
	c := turn.Config{ListenUDP: []string{"127.0.0.1:0"}, ListenTCP: []string{"127.0.0.1:0"}, ListenTLS: []string{}, Realm: "probe",
		MinPort: 49152, MaxPort: 65535, Relays: []turn.RelayAddress{{Local: loopback}}}
	if change != nil {
		change(&c)
	}
	s, err = turn.New(c, creds, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done; s.Close() })
	return s, creds
}

func TestAProbeCrossesTwoRelays(t *testing.T) {
	s, creds := running(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for transport, port := range map[string]uint16{"udp": s.Addrs().UDP[0].Port(), "tcp": s.Addrs().TCP[0].Port()} {
		way := probe.Server{Host: "127.0.0.1", Port: int(port), Transport: transport}
		b, err := probe.Bind(ctx, way)
		if err != nil || b.Translated() || b.Took <= 0 {
			t.Errorf("%s: %+v %v", way, b, err)
		}
		offer := creds.Issue("@ann:localhost", "PHONE", 0)
		r, err := probe.Relay(ctx, way, offer.Username, offer.Credential)
		if err != nil || r.Sent == 0 || r.Received < r.Sent-2 || r.Relayed.Addr() != netip.MustParseAddr("127.0.0.1") {
			t.Errorf("%s: %+v %v", way, r, err)
		}
		if _, err := probe.Relay(ctx, way, offer.Username, "wrong"); err == nil {
			t.Errorf("%s: a wrong password gets a relay", way)
		}
	}
	if n := s.AllocationCount(); n != 0 {
		t.Errorf("probes leave %d allocations", n)
	}
}

func TestASilentServerEndsWithTheContext(t *testing.T) {
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	way := probe.Server{Host: "127.0.0.1", Port: silent.LocalAddr().(*net.UDPAddr).Port, Transport: "udp"}
	if _, err := probe.Bind(ctx, way); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}
