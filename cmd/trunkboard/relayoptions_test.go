// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/turn"
)

func TestRelayOptionsAreReadAsTheSettingsFileSays(t *testing.T) {
	var got turn.Config
	file := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(file, []byte("# shared with auth.example\nnorth MDEyMzQ1Njc4OTAxMjM0NQ==\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	more, err := relayOptions(&got, []string{
		"external stun.example.org:3478", "status", "tcp_relays", "discovery 192.0.2.1:3478 192.0.2.2:3479", "alternate 192.0.2.9:3478", "proxy 10.0.0.0/8 192.168.0.1/32",
		"oauth turn.example " + file, "bandwidth 100MiB", "user_bandwidth 2MiB", "session_bandwidth 1MiB",
		"realm red origin=https://red.example allocations=100 user_allocations=2 bandwidth=10MiB session_bandwidth=1KiB",
	})
	want := turn.Config{
		TCPRelays:      true,
		OAuth:          turn.OAuth{Server: "turn.example", Keys: map[string][]byte{"north": []byte("0123456789012345")}},
		Discovery:      []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:3478"), netip.MustParseAddrPort("192.0.2.2:3479")},
		Alternates:     []netip.AddrPort{netip.MustParseAddrPort("192.0.2.9:3478")},
		TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.168.0.1/32")},
		Bandwidth:      100 << 20, UserBandwidth: 2 << 20, SessionBandwidth: 1 << 20,
		Realms: []turn.Realm{{Name: "red", Origins: []string{"https://red.example"}, TotalQuota: 100, UserQuota: 2, Bandwidth: 10 << 20, SessionBandwidth: 1 << 10}},
	}
	if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" || err != nil || more != (beside{stunServer: "stun.example.org:3478", status: true}) {
		t.Errorf("%v\n%s", err, d)
	}
	for _, bad := range []string{"", "external", "tcp_relay", "tcp_relays yes", "status redis://host", "discovery 192.0.2.1:3478", "alternate host:1", "proxy 10.0.0.0", "bandwidth", "bandwidth fast", "oauth x", "oauth x /nowhere", "realm", "realm red origin", "realm red colour=red", "realm red allocations=x"} {
		if _, err := relayOptions(new(turn.Config), []string{bad}); err == nil || !strings.Contains(err.Error(), "turn.options") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
