// SPDX-License-Identifier: Apache-2.0

package configs

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"
)

// leaves lists the keys of an annotated file with the comment that stands over each.
func leaves(prefix string, n *yaml.Node, comments map[string]string) (keys []string) {
	if n.Kind == yaml.DocumentNode {
		n = n.Content[0]
	}
	above := ""
	for i := 0; i < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		key := prefix + k.Value
		if v.Kind == yaml.MappingNode {
			keys = append(keys, leaves(key+".", v, comments)...)
			continue
		}
		// A comment over two keys that follow each other directly counts for both (min_port, max_port).
		if k.HeadComment != "" {
			above = k.HeadComment
		}
		keys = append(keys, key)
		comments[key] = above
	}
	return keys
}

func TestAnnotatedFileAndStructHaveTheSameKeysInTheSameOrder(t *testing.T) {
	var doc yaml.Node
	if err := yaml.Load([]byte(Annotated), &doc); err != nil {
		t.Fatal(err)
	}
	comments := map[string]string{}
	inFile := leaves("", &doc, comments)
	var c Config
	var inStruct []string
	for _, f := range c.fields() {
		inStruct = append(inStruct, f.key)
	}
	if d := cmp.Diff(inStruct, inFile); d != "" {
		t.Errorf("struct (-) and trunkboard.yaml (+) differ:\n%s", d)
	}
	for key, comment := range comments {
		if len(comment) < 10 {
			t.Errorf("%s has no comment in trunkboard.yaml", key)
		}
	}
	if len(inFile) >= 80 {
		t.Errorf("%d keys; below 80, or nobody reads them: delete one that nobody would change", len(inFile))
	}
}

func TestDefaultsServeLocalhost(t *testing.T) {
	c, warnings, err := Load(nil, nil, nil)
	if err != nil || len(warnings) != 0 {
		t.Fatal(err, warnings)
	}
	got := []string{c.ServerName, c.Listen.Client, c.Listen.Metrics, c.TURN.Listen[0], c.TURN.TLSListen[0], c.Public(), c.TURNHost(), c.TURN.Realm, c.DatabaseURL()}
	want := []string{"localhost", "127.0.0.1:8008", "127.0.0.1:9464", ":3478", ":5349", "http://localhost:8008", "localhost", "turn", "sqlite:data/trunkboard.db"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if !c.OpenRegistration() {
		t.Error("localhost must let anybody register")
	}
	c.ServerName = "example.org"
	if c.OpenRegistration() {
		t.Error("a public server must not")
	}
	if c.Public() != "https://example.org" || c.TURNHost() != "example.org" {
		t.Error(c.Public(), c.TURNHost())
	}
	for url, want := range map[string]string{
		"sqlite:other.db": "sqlite:data/other.db", "/var/x.db": "sqlite:/var/x.db", "sqlite:/var/x.db": "sqlite:/var/x.db", "postgres://h/db": "postgres://h/db",
	} {
		if c.Database.URL = url; c.DatabaseURL() != want {
			t.Errorf("database.url %s: %s, want %s", url, c.DatabaseURL(), want)
		}
	}
}

func TestLaterLayersWin(t *testing.T) {
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first.yaml"), filepath.Join(dir, "second.yaml")
	write(t, first, "server_name: one.example\nlog:\n  level: warn\nturn:\n  relay:\n    allow: [10.1.2.3/8, 192.168.1.1]\nshutdown:\n  drain: 1m\n")
	write(t, second, "server_name: two.example\nturn:\n")
	c, _, err := Load([]string{first, second}, []string{
		"TRUNKBOARD_LISTEN_CLIENT=127.0.0.1:9999", "TRUNKBOARD_LISTEN_TRUSTED_PROXIES=10.0.0.1, 10.2.0.0/16", "TRUNKBOARD_TURN_LISTEN=:1", "TRUNKBOARD_TEST_POSTGRES=x", "PATH=/bin",
	}, []string{"turn.listen=:2", "limits.messages=7/min burst 9", "media.max_upload=3MiB", "limits.enabled=false"})
	if err != nil {
		t.Fatal(err)
	}
	if c.ServerName != "two.example" || c.Log.Level != "warn" || c.Shutdown.Drain != time.Minute {
		t.Errorf("files: %+v", c)
	}
	if d := cmp.Diff([]string{"10.0.0.0/8", "192.168.1.1/32"}, texts(c.TURN.Relay.Allow)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"10.0.0.1/32", "10.2.0.0/16"}, texts(c.Listen.TrustedProxies)); d != "" {
		t.Error(d)
	}
	if c.Listen.Client != "127.0.0.1:9999" || !slices.Equal(c.TURN.Listen, []string{":2"}) {
		t.Error("environment over file, flags over environment:", c.Listen.Client, c.TURN.Listen)
	}
	if c.Limits.Messages != (Rate{7, time.Minute, 9}) || c.Media.MaxUpload != 3<<20 || c.Limits.Enabled {
		t.Errorf("flags: %+v", c.Limits)
	}
	if c.TURN.Relay.MinPort != 49152 {
		t.Error("a section without lines in a file lost its defaults")
	}
}

func texts(ps []netip.Prefix) (out []string) {
	for _, p := range ps {
		out = append(out, p.String())
	}
	return out
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestMistakesNameTheLineAndTheNearestKey(t *testing.T) {
	for text, want := range map[string]string{
		"# one\nlisten:\n  clinet: :8008\n":                        `f.yaml:3: unknown key "listen.clinet"; did you mean listen.client?`,
		"listen_client: :8008\n":                                   `f.yaml:1: unknown key "listen_client"; did you mean listen.client?`,
		"turn:\n  min_port: 3\n":                                   `f.yaml:2: unknown key "turn.min_port"; did you mean turn.relay.min_port?`,
		"zebra: 1\n":                                               "f.yaml:1: unknown key \"zebra\"; `trunkboard config` lists every key",
		"log:\n  level: warn\n  level: info\n":                     `log.level is set twice, first on line 2`,
		"listen: :8008\n":                                          `f.yaml:1: listen: want keys with values here`,
		"- a\n- b\n":                                               `f.yaml:1: the file: want keys with values here`,
		"server_name: [a, b]\n":                                    `f.yaml:1: server_name: want a single value`,
		"turn:\n  relay:\n    min_port: many\n":                    `f.yaml:3: turn.relay.min_port: want a whole number, not "many"`,
		"turn:\n  relay:\n    min_port:\n":                         `turn.relay.min_port: has no value`,
		"turn:\n  relay:\n    allow: [{a: b}]\n":                   `want a list of plain values`,
		"turn:\n  relay:\n    allow: [10.0.0.0/40]\n":              `want an address or a range such as 10.0.0.0/8`,
		"shutdown:\n  drain: 20\n":                                 `want a duration such as`,
		"shutdown:\n  drain: -20s\n":                               `want a duration such as`,
		"media:\n  max_upload: 50MB\n":                             `want a size such as`,
		"media:\n  max_upload: 9223372036854775807KiB\n":           `want a size such as`,
		"media:\n  max_upload: 0\n":                                `media.max_upload: is 0`,
		"limits:\n  login: fast\n":                                 `want a rate such as "10/s burst 50"`,
		"limits:\n  login: 10/day\n":                               `want a rate such as`,
		"limits:\n  login: 10/s burst 0\n":                         `want a rate such as`,
		"limits:\n  enabled: maybe\n":                              `want true or false, not "maybe"`,
		"server_name: https://example.org\n":                       `server_name: is "https://example.org"; write the bare host name`,
		"server_name: Example.org\n":                               `in small letters`,
		"contact: [help]\n":                                        `contact: has "help"; write an e-mail address`,
		"contact: [\"https://a.example\", \"http://b.example\"]\n": `contact: has 2 URLs`,
		"public_url: example.org\n":                                `public_url: is "example.org"; write a URL`,
		"listen:\n  client: 8008\n":                                `listen.client: is "8008"; write host:port`,
		"listen:\n  client: :99999\n":                              `ports are 1 to 65535`,
		"listen:\n  client: example.org:80\n":                      `write an address of this machine`,
		"tls:\n  mode: acme\n":                                     `tls.mode: is "acme"; choose one of off, files, self-signed`,
		"tls:\n  mode: files\n":                                    `needs both tls.certificate and tls.key`,
		"tls:\n  certificate: a.pem\n":                             `write tls.mode: files`,
		"database:\n  url: mysql://x\n":                            `has the scheme mysql`,
		"database:\n  url: ''\n":                                   `database.url: is empty`,
		"redis:\n  url: localhost:6379\n":                          `want redis://`,
		"turn:\n  relay:\n    min_port: 500\n":                     `the range 500-65535 does not work`,
		"turn:\n  relay:\n    addresses: [example.org]\n":          `want an address of this machine, or LOCAL=EXTERNAL`,
		"turn:\n  relay:\n    addresses: [10.0.0.1=x]\n":           `want an address of this machine`,
		"turn:\n  listen: [':1', '70000']\n":                       `turn.listen: is "70000"; write host:port`,
		"turn:\n  realm: ''\n":                                     `turn.realm: has 0 bytes`,
		"turn:\n  max_allocations: -1\n":                           `0 means no limit`,
		"turn:\n  credential_lifetime: 1s\n":                       `at least 1m`,
		"log:\n  level: loud\n":                                    `log.level: is "loud"`,
		"registration:\n  mode: 'yes'\n":                           `registration.mode: is "yes"; choose one of auto, open, closed`,
		"log: {level: a: b}\n":                                     `f.yaml: `,
		"log:\n  level: loud\n  format: xml\nserver_name: _\n":     `log.format: is "xml"`,
	} {
		name := filepath.Join(t.TempDir(), "f.yaml")
		write(t, name, text)
		_, _, err := Load([]string{name}, nil, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q\n got: %v\nwant: %s", text, err, want)
		}
	}
	for flag, want := range map[string]string{
		"log.level":       `want key=value`,
		"log.levle=warn":  `did you mean log.level?`,
		"shutdown.drain=": `want a duration`,
	} {
		if _, _, err := Load(nil, nil, []string{flag}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("--set %s: %v, want %s", flag, err, want)
		}
	}
	_, warnings, err := Load(nil, []string{"TRUNKBOARD_LISTEN_CLEINT=:1", "TRUNKBOARD_PORT=tcp://10.0.0.1:80"}, nil)
	if err != nil || len(warnings) != 2 || !strings.Contains(warnings[0], "did you mean TRUNKBOARD_LISTEN_CLIENT?") {
		t.Error(warnings, err)
	}
	if _, _, err := Load([]string{"nowhere.yaml"}, []string{"TRUNKBOARD_SHUTDOWN_DRAIN=x"}, nil); err == nil ||
		!strings.Contains(err.Error(), "nowhere.yaml") || !strings.Contains(err.Error(), "environment TRUNKBOARD_SHUTDOWN_DRAIN") {
		t.Error("not all mistakes reported at once:", err)
	}
}

func TestEmptyFilesChangeNothing(t *testing.T) {
	for _, text := range []string{"", "\n", "# only a comment\n", "---\n"} {
		name := filepath.Join(t.TempDir(), "f.yaml")
		write(t, name, text)
		c, _, err := Load([]string{name}, nil, nil)
		if d := cmp.Diff(Default(), c, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); err != nil || d != "" {
			t.Errorf("%q: %v %s", text, err, d)
		}
	}
}

func TestEffectiveIsReadableAgainAndMasksSecrets(t *testing.T) {
	c, _, err := Load(nil, nil, []string{
		"turn.secret=hunter2-turn", "registration.shared_secret=hunter2-reg", "database.url=postgres://tb:hunter2-db@db/x?password=hunter2-q",
		"redis.url=redis://:hunter2-redis@r:6379/0", "turn.relay.allow=10.0.0.0/8", "turn.relay.addresses=10.0.0.5=203.0.113.7,2001:db8::1", "limits.invites=off", "shutdown.drain=90m",
	})
	if err != nil {
		t.Fatal(err)
	}
	text, err := c.Effective()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(text, "hunter2") {
		t.Errorf("a secret shows:\n%s", text)
	}
	for _, want := range []string{"postgres://tb:********@db/x", "secret: '********'", "drain: 1h30m", "invites: off", "max_upload: 50MiB"} {
		if !strings.Contains(strings.ReplaceAll(text, `"`, `'`), want) {
			t.Errorf("%s is missing in:\n%s", want, text)
		}
	}
	name := filepath.Join(t.TempDir(), "again.yaml")
	write(t, name, text)
	again, _, err := Load([]string{name}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if again.TURN.Relay.Allow[0].String() != "10.0.0.0/8" || again.Shutdown.Drain != c.Shutdown.Drain || again.Limits != c.Limits ||
		!slices.Equal(again.TURN.Relay.Addresses, c.TURN.Relay.Addresses) || len(again.TURN.Relay.Addresses) != 2 {
		t.Errorf("read back differently:\n%s", text)
	}
}

// FuzzFile: whatever a file says, Load answers with a Config or an error and does not panic; what it accepts passes Check.
func FuzzFile(f *testing.F) {
	f.Add(Annotated)
	f.Add("listen: &a\n  client: *a\n")
	f.Add("turn: {relay: {allow: [1, 2, {}]}}")
	f.Add("a: &x [*x]")
	f.Fuzz(func(t *testing.T, text string) {
		c := Default()
		if errs := apply(&c, "f", []byte(text)); len(errs) == 0 && c.Check() == nil {
			if _, err := c.Effective(); err != nil {
				t.Error(err)
			}
		}
	})
}
