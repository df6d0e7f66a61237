// SPDX-License-Identifier: Apache-2.0

// Package configs holds the settings of Trunkboard: one annotated file, trunkboard.yaml, which is embedded and is the single
// source of the defaults, and the Config that it fills. A setting is found by its dotted key (turn.relay.min_port), and Load puts
// four layers over one another:
//
//	embedded trunkboard.yaml  <  the user's files  <  TRUNKBOARD_* environment  <  flags
//
// Each layer may name only keys that exist; a misspelt key is an error which names the nearest one. The folder also holds what an
// operator copies: the systemd unit and the reverse-proxy samples.
package configs

import (
	_ "embed"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"time"
)

// Annotated is trunkboard.yaml: every key with its default and its meaning.
//
//go:embed trunkboard.yaml
var Annotated string

// Config is every setting. Meanings, units and defaults stand in trunkboard.yaml, beside the key that each field is named after.
type Config struct {
	ServerName   string       `yaml:"server_name"`
	PublicURL    string       `yaml:"public_url"`
	Contact      []string     `yaml:"contact"`
	DataDir      string       `yaml:"data_dir"`
	Listen       Listen       `yaml:"listen"`
	TLS          TLS          `yaml:"tls"`
	Database     Database     `yaml:"database"`
	Redis        Redis        `yaml:"redis"`
	Registration Registration `yaml:"registration"`
	Accounts     Accounts     `yaml:"accounts"`
	Email        Email        `yaml:"email"`
	Rooms        Rooms        `yaml:"rooms"`
	Federation   Federation   `yaml:"federation"`
	Limits       Limits       `yaml:"limits"`
	Calls        Calls        `yaml:"calls"`
	Media        Media        `yaml:"media"`
	Push         Push         `yaml:"push"`
	TURN         TURN         `yaml:"turn"`
	SFU          SFU          `yaml:"sfu"`
	Meetings     Meetings     `yaml:"meetings"`
	Web          Web          `yaml:"web"`
	Log          Log          `yaml:"log"`
	Shutdown     Shutdown     `yaml:"shutdown"`
}

// Listen is where HTTP is served.
type Listen struct {
	Client         string         `yaml:"client"`
	HTTPS          string         `yaml:"https"`
	Federation     string         `yaml:"federation"`
	Metrics        string         `yaml:"metrics"`
	TrustedProxies []netip.Prefix `yaml:"trusted_proxies"`
}

// TLS modes.
const (
	TLSOff        = "off"
	TLSFiles      = "files"
	TLSSelfSigned = "self-signed"
)

// TLS says where the certificate comes from.
type TLS struct {
	Mode        string   `yaml:"mode"`
	Certificate string   `yaml:"certificate"`
	Key         string   `yaml:"key"`
	Names       []string `yaml:"names"`
}

// Database is where events and accounts are kept.
type Database struct {
	URL string `yaml:"url" secret:"url"`
}

// Redis is what several nodes share.
type Redis struct {
	URL string `yaml:"url" secret:"url"`
}

// Registration says who may make an account.
type Registration struct {
	Mode         string `yaml:"mode"`
	SharedSecret string `yaml:"shared_secret" secret:"text"`
	RequireEmail bool   `yaml:"require_email"`
	Guests       bool   `yaml:"guests"`
}

// Accounts is how passwords are kept.
type Accounts struct {
	PasswordCost string `yaml:"password_cost"`
	MinPassword  int    `yaml:"min_password"`
}

// Email is how mails are sent.
type Email struct {
	SMTP     string `yaml:"smtp"`
	TLS      string `yaml:"tls"`
	User     string `yaml:"user"`
	Password string `yaml:"password" secret:"text"`
	From     string `yaml:"from"`
}

// Rooms is what new rooms are like.
type Rooms struct {
	DefaultVersion string `yaml:"default_version"`
}

// Federation is how this server meets others.
type Federation struct {
	Enabled       bool           `yaml:"enabled"`
	PublicAddress string         `yaml:"public_address"`
	AllowPrivate  []netip.Prefix `yaml:"allow_private"`
	TrustedCA     string         `yaml:"trusted_ca"`
	AllowServers  []string       `yaml:"allow_servers"`
	DenyServers   []string       `yaml:"deny_servers"`
	KeyServers    []string       `yaml:"key_servers"`
	DenyKeys      []string       `yaml:"deny_keys"`
}

// Limits are token buckets; a zero Rate is no limit.
type Limits struct {
	Enabled      bool `yaml:"enabled"`
	Registration Rate `yaml:"registration"`
	Login        Rate `yaml:"login"`
	Emails       Rate `yaml:"emails"`
	Calls        Rate `yaml:"calls"`
	Signalling   Rate `yaml:"signalling"`
	Messages     Rate `yaml:"messages"`
	Joins        Rate `yaml:"joins"`
	Invites      Rate `yaml:"invites"`
	Uploads      Rate `yaml:"uploads"`
	Requests     Rate `yaml:"requests"`
	Federation   Rate `yaml:"federation"`
}

// Calls says what is remembered of calls.
type Calls struct {
	RetentionDays int `yaml:"retention_days"`
}

// Media bounds uploads.
type Media struct {
	MaxUpload    Size           `yaml:"max_upload"`
	Previews     bool           `yaml:"previews"`
	PreviewAllow []netip.Prefix `yaml:"preview_allow"`
}

// Push is how applications that are not running hear of something.
type Push struct {
	GatewayAllow []netip.Prefix `yaml:"gateway_allow"`
}

// TURN is the relay.
type TURN struct {
	Listen                []string      `yaml:"listen"`
	TLSListen             []string      `yaml:"tls_listen"`
	PublicHost            string        `yaml:"public_host"`
	Secret                string        `yaml:"secret" secret:"text"`
	OldSecrets            []string      `yaml:"old_secrets" secret:"text"`
	Users                 bool          `yaml:"users"`
	Realm                 string        `yaml:"realm"`
	CredentialLifetime    time.Duration `yaml:"credential_lifetime"`
	Relay                 Relay         `yaml:"relay"`
	MaxAllocationsPerUser int           `yaml:"max_allocations_per_user"`
	MaxAllocations        int           `yaml:"max_allocations"`
	Options               []string      `yaml:"options"`
}

// SFU is where group calls meet.
type SFU struct {
	ListenUDP       string       `yaml:"listen_udp"`
	ListenTCP       string       `yaml:"listen_tcp"`
	PublicAddresses []netip.Addr `yaml:"public_addresses"`
	Keys            []string     `yaml:"keys" secret:"text"`
	AutoCreate      bool         `yaml:"auto_create"`
	Webhooks        []string     `yaml:"webhooks"`
	Homeserver      []string     `yaml:"homeserver" secret:"text"`
}

// Meetings is who comes together by a link; ParseMeetings reads it.
type Meetings struct {
	Options []string `yaml:"options" secret:"text"`
}

// Web is the web client.
type Web struct {
	ElementCall string `yaml:"element_call"`
}

// Relay is the side of TURN that peers see.
type Relay struct {
	MinPort   int            `yaml:"min_port"`
	MaxPort   int            `yaml:"max_port"`
	Addresses []RelayAddress `yaml:"addresses"`
	Allow     []netip.Prefix `yaml:"allow"`
}

// Log is what goes to standard error.
type Log struct {
	Level  string `yaml:"level"`
	Format string `yaml:"format"`
}

// Shutdown is how long a stop may take.
type Shutdown struct {
	Drain time.Duration `yaml:"drain"`
}

// OpenRegistration reports whether strangers may make accounts.
func (c *Config) OpenRegistration() bool {
	return c.Registration.Mode == "open" || c.Registration.Mode == "auto" && c.ServerName == "localhost"
}

// Public is the URL at which others reach this server, without a slash at the end.
func (c *Config) Public() string {
	if c.PublicURL != "" {
		return strings.TrimSuffix(c.PublicURL, "/")
	}
	if c.ServerName != "localhost" {
		return "https://" + c.ServerName
	}
	_, port, err := net.SplitHostPort(c.Listen.Client)
	if err != nil || port == "" {
		return "http://localhost"
	}
	return "http://localhost:" + port
}

// TURNHost is the host that clients are told to reach TURN at: no port, no brackets.
func (c *Config) TURNHost() string {
	if c.TURN.PublicHost != "" {
		return c.TURN.PublicHost
	}
	if u, err := url.Parse(c.Public()); err == nil && u.Hostname() != "" {
		return u.Hostname()
	}
	return c.ServerName
}

// DatabaseURL is the place of the database as the storage package reads it: sqlite:PATH or a PostgreSQL URL.
func (c *Config) DatabaseURL() string {
	if isPostgres(c.Database.URL) {
		return c.Database.URL
	}
	file := strings.TrimPrefix(c.Database.URL, "sqlite:")
	if !filepath.IsAbs(file) {
		file = filepath.Join(c.DataDir, file)
	}
	return "sqlite:" + file
}

func isPostgres(u string) bool {
	return strings.HasPrefix(u, "postgres://") || strings.HasPrefix(u, "postgresql://")
}
