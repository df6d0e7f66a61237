// SPDX-License-Identifier: Apache-2.0

package configs

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Server names: Matrix spec, appendices, "Server Name": a DNS name, IPv4 or [IPv6] address, with a port if need be. Capitals are
// allowed there and refused here, because two servers whose names differ in case only cannot be told apart by people.
var serverName = regexp.MustCompile(`^([a-z0-9.-]{1,230}|\[[0-9a-f:.]{2,45}\])(:[0-9]{1,5})?$`)

// Where others look may be any server name, with its port.
var publicAddress = regexp.MustCompile(`^([A-Za-z0-9.-]{1,230}|\[[0-9a-fA-F:.]{2,45}\]):[0-9]{1,5}$`)

// Check says what cannot work, each line with the key and what to do.
func (c *Config) Check() error {
	var errs []error
	fail := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...)))
	}
	oneOf := func(key, value string, allowed ...string) {
		if !slices.Contains(allowed, value) {
			fail(key, "is %q; choose one of %s", value, strings.Join(allowed, ", "))
		}
	}
	listen := func(key, value string) {
		if err := checkListen(value); err != nil {
			fail(key, "%v", err)
		}
	}

	if !serverName.MatchString(c.ServerName) {
		fail("server_name", "is %q; write the bare host name, in small letters, such as example.org", c.ServerName)
	}
	if c.PublicURL != "" {
		u, err := url.Parse(c.PublicURL)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
			fail("public_url", "is %q; write a URL with nothing after the host, such as https://matrix.example.org", c.PublicURL)
		}
	}
	pages := 0
	for _, x := range c.Contact {
		page := strings.HasPrefix(x, "https://") || strings.HasPrefix(x, "http://")
		if page {
			pages++
		}
		if i := strings.IndexByte(x, '@'); !page && (i < 0 || i == 0 && !strings.Contains(x, ":") || i == len(x)-1) || strings.ContainsAny(x, " \t\n<>\"") {
			fail("contact", "has %q; write an e-mail address, a Matrix id such as @admin:example.org, or a URL", x)
		}
	}
	if pages > 1 {
		fail("contact", "has %d URLs; clients are told of one", pages)
	}
	if c.DataDir == "" {
		fail("data_dir", "is empty; name a folder that this server may write")
	}

	listen("listen.client", c.Listen.Client)
	listen("listen.https", c.Listen.HTTPS)
	listen("listen.federation", c.Listen.Federation)
	listen("listen.metrics", c.Listen.Metrics)
	for _, address := range c.TURN.Listen {
		listen("turn.listen", address)
	}
	for _, address := range c.TURN.TLSListen {
		listen("turn.tls_listen", address)
	}

	listen("sfu.listen_udp", c.SFU.ListenUDP)
	listen("sfu.listen_tcp", c.SFU.ListenTCP)
	for _, k := range c.SFU.Keys {
		if name, secret, ok := strings.Cut(k, "="); !ok || name == "" || len(secret) < 16 {
			fail("sfu.keys", "write name=secret, with a secret of at least 16 characters")
		}
	}

	if _, err := ParseBeside(c.SFU.Homeserver); err != nil {
		fail("sfu.homeserver", "%v", err)
	}
	if u, err := url.Parse(c.Web.ElementCall); c.Web.ElementCall != "" && (err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.RawQuery != "" || u.Fragment != "") {
		fail("web.element_call", "is %q; write the URL of the folder that holds Element Call's index.html, such as https://call.example.org/", c.Web.ElementCall)
	}

	if _, err := ParseMeetings(c.Meetings.Options); err != nil {
		fail("meetings.options", "%v", err)
	}

	oneOf("tls.mode", c.TLS.Mode, TLSOff, TLSFiles, TLSSelfSigned)
	files := c.TLS.Certificate != "" || c.TLS.Key != ""
	switch {
	case c.TLS.Mode == TLSFiles && (c.TLS.Certificate == "" || c.TLS.Key == ""):
		fail("tls.certificate", "tls.mode files needs both tls.certificate and tls.key")
	case c.TLS.Mode != TLSFiles && files:
		fail("tls.mode", "is %s although tls.certificate or tls.key is set; write tls.mode: files", c.TLS.Mode)
	}

	if u := c.Database.URL; u == "" {
		fail("database.url", "is empty; name an SQLite file such as trunkboard.db, or a postgres:// URL")
	} else if scheme, _, ok := strings.Cut(u, "://"); ok && !isPostgres(u) {
		fail("database.url", "has the scheme %s; only postgres:// URLs and paths of SQLite files are known", scheme)
	}
	if u := c.Redis.URL; u != "" && !slices.ContainsFunc([]string{"redis://", "rediss://", "unix://"}, func(s string) bool { return strings.HasPrefix(u, s) }) {
		fail("redis.url", "want redis://, rediss:// or unix://, or nothing at all")
	}
	oneOf("registration.mode", c.Registration.Mode, "auto", "open", "closed")
	oneOf("accounts.password_cost", c.Accounts.PasswordCost, "standard", "minimum")
	oneOf("email.tls", c.Email.TLS, "starttls", "tls", "off")
	switch {
	case c.Email.SMTP == "" && c.Registration.RequireEmail:
		fail("registration.require_email", "needs mails to be sent: set email.smtp")
	case c.Email.SMTP != "" && c.Email.From == "":
		fail("email.from", "is empty; name the address that mails are from")
	}
	if c.Accounts.MinPassword < 1 {
		fail("accounts.min_password", "is %d; at least 1", c.Accounts.MinPassword)
	}
	if c.Media.MaxUpload < 1 {
		fail("media.max_upload", "is 0; give a size such as 50MiB")
	}

	if a := c.Federation.PublicAddress; a != "" && !publicAddress.MatchString(a) {
		fail("federation.public_address", "is %q; write host:port, such as matrix.example.org:443", a)
	}

	r := c.TURN.Relay
	if n := len(c.TURN.Realm); n == 0 || n > 127 {
		fail("turn.realm", "has %d bytes; at least 1, at most 127", n)
	}
	if r.MinPort < 1024 || r.MaxPort > 65535 || r.MinPort > r.MaxPort {
		fail("turn.relay.min_port", "the range %d-%d does not work; choose ports between 1024 and 65535, the smaller first", r.MinPort, r.MaxPort)
	}
	if c.TURN.MaxAllocations < 0 || c.TURN.MaxAllocationsPerUser < 0 {
		fail("turn.max_allocations", "is negative; 0 means no limit")
	}
	if c.TURN.CredentialLifetime.Minutes() < 1 {
		fail("turn.credential_lifetime", "is %s; at least 1m, or calls lose their relay before they start", c.TURN.CredentialLifetime)
	}
	oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	oneOf("log.format", c.Log.Format, "text", "json")
	return errors.Join(errs...)
}

func checkListen(value string) error {
	if value == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(value)
	if err != nil {
		return fmt.Errorf(`is %q; write host:port, such as 127.0.0.1:8008 or ":8448"`, value)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return fmt.Errorf("has the port %q; ports are 1 to 65535, 0 picks a free one", port)
	}
	if _, err := netip.ParseAddr(host); host != "" && host != "localhost" && err != nil {
		return fmt.Errorf("has the host %q; write an address of this machine, or leave it out for all of them", host)
	}
	return nil
}
