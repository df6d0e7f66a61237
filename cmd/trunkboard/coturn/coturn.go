// SPDX-License-Identifier: Apache-2.0

// Package coturn reads the configuration of coturn's turnserver and says the same in Trunkboard's settings. Each line that cannot be
// carried over is named with the reason, so that nobody finds out at night.
package coturn

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Import is a configuration that was read.
type Import struct {
	Settings map[string]any // by dotted key, such as turn.listen; values as YAML has them
	Users    []User         // of user= lines
	UserDB   string         // the SQLite database that holds more of them; empty: none
	Left     []Left         // what was not carried over, in the order of the file
}

// User is a long-term user: Password, or Key if the file holds only that.
type User struct {
	Name, Password string
	Key            []byte
}

// Left is a line that has no counterpart here.
type Left struct {
	Line int    // counted from 1
	Text string // as it stands in the file, secrets cut off
	Why  string
}

// line is NAME or NAME=VALUE.
type line struct {
	number      int
	name, value string
	set         bool // there was a value
}

// Parse reads a turnserver.conf. dir is the folder that its relative paths start from.
func Parse(r io.Reader, dir string) (Import, error) {
	p := parser{dir: dir, port: "3478", tlsPort: "5349"}
	in := bufio.NewScanner(r)
	in.Buffer(nil, 1<<20)
	for n := 1; in.Scan(); n++ {
		text := strings.TrimSpace(in.Text())
		if text == "" || text[0] == '#' {
			continue
		}
		l := line{number: n}
		l.name, l.value, l.set = strings.Cut(text, "=")
		if !l.set { // coturn takes a space too
			l.name, l.value, l.set = strings.Cut(text, " ")
		}
		l.name = strings.TrimLeft(strings.TrimSpace(l.name), "-")
		l.value = strings.Trim(strings.TrimSpace(l.value), `"`)
		if l.name == "" {
			p.leave(l, "cannot be read")
			continue
		}
		p.take(l)
	}
	if err := in.Err(); err != nil {
		return Import{}, fmt.Errorf("after line %d: %w", p.last, err)
	}
	return p.finish(), nil
}

// parser gathers lines that mean something only together.
type parser struct {
	Import
	dir              string
	last             int
	port, tlsPort    string
	listen, relays   []netip.Addr
	external         map[netip.Addr]netip.Addr // private -> public; the zero address stands for "whatever is local"
	secrets          []string
	allow            []string
	noTLS, restAPI   bool
	longTerm         bool
	certificate, key string
	externalLine     line
	realm            string
	verbose          bool
	options          []string // turn.options
	alternates       []string
}

func (p *parser) leave(l line, why string) {
	text := l.name
	if l.set {
		text += "=" + l.value
	}
	if secret[l.name] {
		text = l.name + "=…"
	}
	p.Left = append(p.Left, Left{l.number, text, why})
}

// secret are the lines whose value must not be repeated anywhere.
var secret = map[string]bool{
	"static-auth-secret": true, "user": true, "cli-password": true, "pkey-pwd": true, "mysql-userdb": true, "psql-userdb": true,
	"redis-userdb": true, "redis-statsdb": true, "mongo-userdb": true, "u": true,
}

// needless are lines that say what is so here anyway, or that concern only how coturn itself runs.
var needless = map[string]string{
	"fingerprint": "", "no-multicast-peers": "", "no-cli": "", "no-tlsv1": "", "no-tlsv1_1": "", "simple-log": "", "new-log-timestamp": "", "no-stdout-log": "",
	"daemon": "", "no-software-attribute": "", "stale-nonce": "", "keep-address-family": "", "dh2066": "", "dh1066": "", "dh566": "", "no-rfc5780": "",
	"no-stun-backward-compatibility": "", "response-origin-only-with-rfc5780": "", "f": "", "n": "", "relay-threads": "", "cpus": "", "multiplex-peer": "",
	"udp-gso": "", "udp-recvmmsg": "", "mobility": "", "no-tcp-relay": "", "check-origin-consistency": "", "no-dtls": "", "no-sslv2": "", "no-sslv3": "", "log-min-level": "",
}

// elsewhere are lines for which there is another way.
var elsewhere = map[string]string{
	"log-file":             "logs go to standard error; the systemd unit or the shell sends them on",
	"syslog":               "logs go to standard error, which journald keeps",
	"pidfile":              "the process stays in the foreground; systemd knows it",
	"proc-user":            "systemd's User= says who runs it",
	"proc-group":           "systemd's Group= says who runs it",
	"cli-ip":               "there is no telnet interface; trunkboard turn sessions lists them, trunkboard turn end ends them",
	"cli-port":             "there is no telnet interface; trunkboard turn sessions lists them, trunkboard turn end ends them",
	"cli-password":         "there is no telnet interface; trunkboard turn sessions lists them, trunkboard turn end ends them",
	"web-admin":            "there is no web interface for TURN alone",
	"prometheus":           "metrics are always on, at listen.metrics",
	"cipher-list":          "Go's TLS picks its ciphers itself, and well",
	"dh-file":              "Go's TLS uses elliptic curves only",
	"ec-curve-name":        "Go's TLS picks its curves itself",
	"mysql-userdb":         "users are imported from SQLite only; export them with turnadmin -l, or point psql at them",
	"psql-userdb":          "users are imported from SQLite only; export them with turnadmin -l",
	"mongo-userdb":         "users are imported from SQLite only; export them with turnadmin -l",
	"redis-userdb":         "users are imported from SQLite only; export them with turnadmin -l",
	"tcp-proxy-port":       "name the proxy's address instead: turn.options: [proxy ADDRESS/32], and let it connect to a port of turn.listen",
	"tls-alternate-server": "turn.options: [alternate ADDRESS:PORT] is for all transports; clients over TLS are told the same servers",
	"oauth":                "tokens take turn.options: [oauth SERVER-NAME FILE-OF-KEYS]",
	"no-auth":              "a relay without authentication is everybody's relay; there is no such mode here",
}

func (p *parser) take(l line) {
	p.last = l.number
	if _, ok := needless[l.name]; ok {
		return
	}
	if why, ok := elsewhere[l.name]; ok {
		p.leave(l, why)
		return
	}
	if take, ok := meanings[l.name]; ok {
		take(p, l)
		return
	}
	p.leave(l, "has no counterpart here")
}

// meanings are the lines that become settings.
var meanings = map[string]func(*parser, line){
	"listening-port":     func(p *parser, l line) { p.port = l.value },
	"p":                  func(p *parser, l line) { p.port = l.value },
	"tls-listening-port": func(p *parser, l line) { p.tlsPort = l.value },
	"listening-ip":       func(p *parser, l line) { p.address(l, &p.listen) },
	"L":                  func(p *parser, l line) { p.address(l, &p.listen) },
	"relay-ip":           func(p *parser, l line) { p.address(l, &p.relays) },
	"E":                  func(p *parser, l line) { p.address(l, &p.relays) },
	"external-ip":        (*parser).externalIP,
	"X":                  (*parser).externalIP,
	"min-port":           number("turn.relay.min_port", 1024, 65535),
	"max-port":           number("turn.relay.max_port", 1024, 65535),
	"realm":              func(p *parser, l line) { p.realm = l.value },
	"r":                  func(p *parser, l line) { p.realm = l.value },
	"use-auth-secret":    func(p *parser, l line) { p.restAPI = true },
	"static-auth-secret": func(p *parser, l line) { p.restAPI = true; p.secrets = append(p.secrets, l.value) },
	"lt-cred-mech":       func(p *parser, l line) { p.longTerm = true },
	"a":                  func(p *parser, l line) { p.longTerm = true },
	"user":               (*parser).user,
	"u":                  (*parser).user,
	"userdb":             func(p *parser, l line) { p.UserDB = p.path(l.value) },
	"db":                 func(p *parser, l line) { p.UserDB = p.path(l.value) },
	"b":                  func(p *parser, l line) { p.UserDB = p.path(l.value) },
	"cert":               func(p *parser, l line) { p.certificate = p.path(l.value) },
	"pkey":               func(p *parser, l line) { p.key = p.path(l.value) },
	"no-tls":             func(p *parser, l line) { p.noTLS = true },
	"user-quota":         number("turn.max_allocations_per_user", 0, 1<<30),
	"q":                  number("turn.max_allocations_per_user", 0, 1<<30),
	"total-quota":        number("turn.max_allocations", 0, 1<<30),
	"Q":                  number("turn.max_allocations", 0, 1<<30),
	"allowed-peer-ip":    (*parser).allowed,
	"denied-peer-ip":     (*parser).denied,
	"allow-loopback-peers": func(p *parser, l line) {
		p.allow = append(p.allow, "127.0.0.0/8", "::1/128")
	},
	"max-bps":          bytesASecond("session_bandwidth"),
	"s":                bytesASecond("session_bandwidth"),
	"bps-capacity":     bytesASecond("bandwidth"),
	"B":                bytesASecond("bandwidth"),
	"alternate-server": (*parser).alternate,
	"redis-statsdb":    (*parser).status,
	"O":                (*parser).status,
	"verbose":          func(p *parser, l line) { p.verbose = true },
	"v":                func(p *parser, l line) { p.verbose = true },
	"V":                func(p *parser, l line) { p.verbose = true },
}

func (p *parser) set(key string, value any) {
	if p.Settings == nil {
		p.Settings = map[string]any{}
	}
	p.Settings[key] = value
}

func number(key string, low, high int) func(*parser, line) {
	return func(p *parser, l line) {
		n, err := strconv.Atoi(l.value)
		if err != nil || n < low || n > high {
			p.leave(l, fmt.Sprintf("is no number from %d to %d", low, high))
			return
		}
		p.set(key, n)
	}
}

// bytesASecond reads a bandwidth, which coturn counts for each direction by itself and we for both together. 0 is what is so here.
func bytesASecond(option string) func(*parser, line) {
	return func(p *parser, l line) {
		n, err := strconv.ParseUint(l.value, 10, 40)
		switch {
		case err != nil:
			p.leave(l, "is no number of bytes a second")
		case n > 0:
			p.options = append(p.options, fmt.Sprintf("%s %d", option, 2*n))
		}
	}
}

// alternate reads ADDRESS[:PORT], to which clients are sent.
func (p *parser) alternate(l line) {
	to, err := netip.ParseAddrPort(l.value)
	if err != nil {
		var a netip.Addr
		a, err = netip.ParseAddr(strings.Trim(l.value, "[]"))
		to = netip.AddrPortFrom(a, 3478)
	}
	if err != nil {
		p.leave(l, "want an address, with or without a port")
		return
	}
	p.alternates = append(p.alternates, to.String())
}

// status reads the words of a connection to Redis, such as "ip=127.0.0.1 dbname=2 password=turn connect_timeout=30".
func (p *parser) status(l line) {
	at := url.URL{Scheme: "redis", Host: "127.0.0.1:6379", Path: "/0"}
	host, port := "127.0.0.1", "6379"
	for _, word := range strings.Fields(l.value) {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case "ip", "host", "addr":
			host = value
		case "port":
			port = value
		case "dbname", "db":
			at.Path = "/" + value
		case "password":
			at.User = url.UserPassword("", value)
		case "connect_timeout":
		default:
			p.leave(l, "its word "+name+" is not known; set redis.url, and turn.options: [status]")
			return
		}
	}
	at.Host = net.JoinHostPort(host, port)
	p.set("redis.url", at.String())
	p.options = append(p.options, "status")
}

func (p *parser) address(l line, list *[]netip.Addr) {
	a, err := netip.ParseAddr(strings.Trim(l.value, "[]"))
	if err != nil {
		p.leave(l, "is no address")
		return
	}
	*list = append(*list, a)
}

// externalIP reads PUBLIC or PUBLIC/PRIVATE.
func (p *parser) externalIP(l line) {
	public, private, pair := strings.Cut(l.value, "/")
	pub, err := netip.ParseAddr(public)
	var priv netip.Addr
	if err == nil && pair {
		priv, err = netip.ParseAddr(private)
	}
	if err != nil {
		p.leave(l, "want PUBLIC or PUBLIC/PRIVATE")
		return
	}
	if p.external == nil {
		p.external = map[netip.Addr]netip.Addr{}
	}
	p.external[priv] = pub
	p.externalLine = l
}

func (p *parser) user(l line) {
	name, password, ok := strings.Cut(l.value, ":")
	if !ok || name == "" || password == "" {
		p.leave(l, "want NAME:PASSWORD or NAME:0xKEY")
		return
	}
	u := User{Name: name, Password: password}
	if hexed, ok := strings.CutPrefix(password, "0x"); ok && len(hexed) == 32 {
		if key, err := hex.DecodeString(hexed); err == nil {
			u.Password, u.Key = "", key
		}
	}
	p.Users = append(p.Users, u)
}

func (p *parser) path(file string) string {
	if filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(p.dir, file)
}

// allowed reads an address, a prefix or a range FIRST-LAST that relays may reach.
func (p *parser) allowed(l line) {
	prefixes, err := Prefixes(l.value)
	if err != nil {
		p.leave(l, err.Error())
		return
	}
	for _, prefix := range prefixes {
		p.allow = append(p.allow, prefix.String())
	}
}

// denied: special addresses are closed here anyway.
func (p *parser) denied(l line) {
	prefixes, err := Prefixes(l.value)
	if err != nil {
		p.leave(l, err.Error())
		return
	}
	for _, prefix := range prefixes {
		if !slices.ContainsFunc(special, func(s netip.Prefix) bool { return s.Bits() <= prefix.Bits() && s.Contains(prefix.Addr()) }) {
			p.leave(l, "special addresses are closed by default; others cannot be closed one by one")
			return
		}
	}
}

// special are the ranges that relays refuse by default (IANA's special-purpose registries).
var special = prefixes("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24",
	"192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3", "::/16", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "fc00::/7", "fe80::/10", "ff00::/8")

func prefixes(list ...string) (out []netip.Prefix) {
	for _, text := range list {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

func (p *parser) finish() Import {
	p.noteListeners()
	p.noteRelays()
	switch {
	case len(p.secrets) > 0:
		p.set("turn.secret", p.secrets[0])
		if len(p.secrets) > 1 {
			p.set("turn.old_secrets", p.secrets[1:])
		}
	case p.restAPI && p.UserDB == "":
		p.Left = append(p.Left, Left{0, "use-auth-secret", "no static-auth-secret stands beside it: the secrets are in a database that was not imported; set turn.secret"})
	}
	if p.realm != "" {
		p.set("turn.realm", p.realm)
	}
	if p.longTerm || len(p.Users) > 0 {
		p.set("turn.users", true)
	}
	if len(p.allow) > 0 {
		p.set("turn.relay.allow", p.allow)
	}
	if p.certificate != "" && p.key != "" && !p.noTLS {
		p.set("tls.mode", "files")
		p.set("tls.certificate", p.certificate)
		p.set("tls.key", p.key)
	}
	if p.verbose {
		p.set("log.level", "debug")
	}
	if len(p.alternates) > 0 {
		p.options = append(p.options, "alternate "+strings.Join(p.alternates, " "))
	}
	if len(p.options) > 0 {
		p.set("turn.options", p.options)
	}
	return p.Import
}

func (p *parser) noteListeners() {
	join := func(port string) (out []string) {
		for _, a := range p.listen {
			out = append(out, net.JoinHostPort(a.String(), port))
		}
		if out == nil {
			out = []string{":" + port}
		}
		return out
	}
	p.set("turn.listen", join(p.port))
	if p.noTLS {
		p.set("turn.tls_listen", []string{})
	} else {
		p.set("turn.tls_listen", join(p.tlsPort))
	}
}

func (p *parser) noteRelays() {
	relays := p.relays
	if len(relays) == 0 {
		relays = p.listen // as coturn does
	}
	// 0.0.0.0 is every address of the machine: no address of a relay.
	relays = slices.DeleteFunc(slices.Clone(relays), netip.Addr.IsUnspecified)
	if len(relays) == 0 {
		for private := range p.external {
			if private.IsValid() {
				relays = append(relays, private)
			}
		}
		slices.SortFunc(relays, netip.Addr.Compare)
	}
	var out []string
	for _, a := range relays {
		public, ok := p.external[a]
		if !ok {
			public, ok = p.external[netip.Addr{}]
			ok = ok && public.Is4() == a.Is4()
		}
		if ok && public != a {
			out = append(out, a.String()+"="+public.String())
		} else {
			out = append(out, a.String())
		}
	}
	if len(out) > 0 {
		p.set("turn.relay.addresses", out)
	} else if public, ok := p.external[netip.Addr{}]; ok {
		p.leave(p.externalLine, fmt.Sprintf("which address of this machine is behind it? Set turn.relay.addresses: [LOCAL=%s]", public))
	}
}
