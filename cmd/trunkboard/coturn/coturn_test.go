// SPDX-License-Identifier: Apache-2.0

package coturn

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAConfigurationIsReadAsItIsMeant(t *testing.T) {
	got, err := Parse(strings.NewReader(`
# a comment
listening-port=3479
listening-ip=10.0.0.5
listening-ip=2001:db8::5
external-ip=203.0.113.7/10.0.0.5
min-port=50000
max-port=50100
fingerprint
lt-cred-mech
use-auth-secret
static-auth-secret="north=1"
static-auth-secret=south
user=alice:wonder:land
user=bob:0x11111111111111111111111111111111
realm example.org
total-quota=100
no-multicast-peers
denied-peer-ip=10.0.0.0-10.255.255.255
allowed-peer-ip=10.1.2.3
userdb=turndb
cert=certs/full.pem
pkey=/keys/key.pem
max-bps=0
bps-capacity=1000000
max-bps=64000
alternate-server=203.0.113.9
alternate-server=[2001:db8::9]:3479
redis-statsdb="ip=10.0.0.6 dbname=2 password=p:w connect_timeout=30"
mobility
`), "/etc")
	if err != nil {
		t.Fatal(err)
	}
	want := Import{
		Settings: map[string]any{
			"turn.listen": []string{"10.0.0.5:3479", "[2001:db8::5]:3479"}, "turn.tls_listen": []string{"10.0.0.5:5349", "[2001:db8::5]:5349"},
			"turn.relay.addresses": []string{"10.0.0.5=203.0.113.7", "2001:db8::5"}, "turn.relay.min_port": 50000, "turn.relay.max_port": 50100,
			"turn.secret": "north=1", "turn.old_secrets": []string{"south"}, "turn.users": true, "turn.realm": "example.org", "turn.max_allocations": 100,
			"turn.relay.allow": []string{"10.1.2.3/32"}, "tls.mode": "files", "tls.certificate": "/etc/certs/full.pem", "tls.key": "/keys/key.pem",
			"redis.url":    "redis://:p%3Aw@10.0.0.6:6379/2",
			"turn.options": []string{"bandwidth 2000000", "session_bandwidth 128000", "status", "alternate 203.0.113.9:3478 [2001:db8::9]:3479"},
		},
		Users:  []User{{Name: "alice", Password: "wonder:land"}, {Name: "bob", Key: []byte(strings.Repeat("\x11", 16))}},
		UserDB: "/etc/turndb",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestARelayHasAnAddressAlsoWhereCoturnListensOnAll(t *testing.T) {
	for text, want := range map[string]any{
		"listening-ip=0.0.0.0\nexternal-ip=203.0.113.7/10.0.0.5\n": []string{"10.0.0.5=203.0.113.7"},
		"listening-ip=0.0.0.0\nrelay-ip=192.0.2.9\n":               []string{"192.0.2.9"},
		"listening-ip=::\nlistening-ip=0.0.0.0\n":                  nil,
	} {
		got, err := Parse(strings.NewReader(text), "")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got.Settings["turn.relay.addresses"]); diff != "" {
			t.Errorf("%q: %s", text, diff)
		}
	}
}

func TestEachLineThatHasNoCounterpartIsNamed(t *testing.T) {
	got, err := Parse(strings.NewReader("mobility-of-the-future\nno-auth\ncli-password=qwerty\nuser=nobody\ndenied-peer-ip=8.8.8.8\nexternal-ip=203.0.113.7\nmax-port=99999\nmax-bps=fast\nlistening-ip=eth0\ntcp-proxy-port=5555\nalternate-server=host\nredis-statsdb=qwerty=1\n"), "")
	if err != nil {
		t.Fatal(err)
	}
	var lines []int
	for _, l := range got.Left {
		if l.Why == "" {
			t.Errorf("no reason for %q", l.Text)
		}
		if strings.Contains(l.Text, "qwerty") || strings.Contains(l.Text, "nobody") {
			t.Errorf("a secret is repeated: %q", l.Text)
		}
		lines = append(lines, l.Line)
	}
	slices.Sort(lines)
	if diff := cmp.Diff([]int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, lines); diff != "" {
		t.Error(diff)
	}
}

func TestRangesBecomeTheFewestPrefixes(t *testing.T) {
	for text, want := range map[string]string{
		"10.1.2.3":                        "10.1.2.3/32",
		"10.1.2.3/24":                     "10.1.2.0/24",
		"10.0.0.0-10.255.255.255":         "10.0.0.0/8",
		"10.1.2.0-10.1.2.130":             "10.1.2.0/25 10.1.2.128/31 10.1.2.130/32",
		"0.0.0.0-255.255.255.255":         "0.0.0.0/0",
		"2001:db8::-2001:db8::ffff":       "2001:db8::/112",
		"255.255.255.254-255.255.255.255": "255.255.255.254/31",
	} {
		got, err := Prefixes(text)
		var list []string
		for _, p := range got {
			list = append(list, p.String())
		}
		if err != nil || strings.Join(list, " ") != want {
			t.Errorf("%s: %v %v", text, list, err)
		}
	}
	for _, text := range []string{"", "x", "10.0.0.2-10.0.0.1", "10.0.0.1-::1", "1-2", "10.0.0.1-"} {
		if got, err := Prefixes(text); err == nil {
			t.Errorf("%q is read as %v", text, got)
		}
	}
}

func FuzzPrefixes(f *testing.F) {
	f.Add("10.1.2.0-10.1.2.130")
	f.Add("2001:db8::-2001:db8::ffff")
	f.Add("1.2.3.4/5")
	f.Fuzz(func(t *testing.T, text string) {
		list, err := Prefixes(text)
		if err != nil {
			return
		}
		var after netip.Addr
		for _, p := range list {
			if p != p.Masked() || after.IsValid() && p.Addr() != after {
				t.Fatalf("%q: %v", text, list)
			}
			after = end(p).Next()
		}
	})
}
