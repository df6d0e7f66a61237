// SPDX-License-Identifier: Apache-2.0

// Package mail sends mails of plain text through the operator's SMTP server.
package mail

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	gomail "github.com/wneessen/go-mail"

	"github.com/trunkboard/trunkboard/signalling"
)

// How a connection to the SMTP server is encrypted.
const (
	TLSStart = "starttls" // after EHLO; never without
	TLSFull  = "tls"      // from the first byte
	TLSOff   = "off"
)

// Config is what the operator chose.
type Config struct {
	Server   string // host:port
	TLS      string // TLSStart, TLSFull, TLSOff
	User     string // "" logs in nowhere; needs TLS
	Password string
	From     string         // an address, or Name <address>
	Roots    *x509.CertPool // whom the server's certificate must come from; nil: whom this machine trusts
	Timeout  time.Duration  // for one mail, waiting for others included; default 20 s
}

// atOnce is how many mails are on their way at a time; more wait.
const atOnce = 4

// Sender sends mails. Its methods may be called at once.
type Sender struct {
	cfg   Config
	host  string
	port  int
	slots chan struct{}
}

// New checks the settings; it connects to nothing.
func New(cfg Config) (*Sender, error) {
	host, port, err := net.SplitHostPort(cfg.Server)
	if err != nil {
		return nil, fmt.Errorf("SMTP server %q: write host:port", cfg.Server)
	}
	n, err := strconv.Atoi(port)
	if err != nil || n < 1 || n > 65535 || host == "" {
		return nil, fmt.Errorf("SMTP server %q: write host:port", cfg.Server)
	}
	if cfg.User != "" && cfg.TLS == TLSOff {
		return nil, errors.New("a password is sent over TLS only: choose starttls or tls, or leave the user out")
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 20 * time.Second
	}
	s := &Sender{cfg: cfg, host: host, port: n, slots: make(chan struct{}, atOnce)}
	if _, err := s.client(); err != nil {
		return nil, err
	}
	if err := gomail.NewMsg().From(cfg.From); err != nil {
		return nil, fmt.Errorf("sender %q: %w", cfg.From, err)
	}
	return s, nil
}

func (s *Sender) client() (*gomail.Client, error) {
	o := []gomail.Option{
		gomail.WithPort(s.port), gomail.WithTimeout(s.cfg.Timeout), gomail.WithoutNoop(),
		gomail.WithTLSConfig(&tls.Config{ServerName: s.host, RootCAs: s.cfg.Roots, MinVersion: tls.VersionTLS12}),
	}
	switch s.cfg.TLS {
	case TLSStart:
		o = append(o, gomail.WithTLSPolicy(gomail.TLSMandatory))
	case TLSFull:
		o = append(o, gomail.WithSSL())
	case TLSOff:
		o = append(o, gomail.WithTLSPolicy(gomail.NoTLS))
	default:
		return nil, fmt.Errorf("TLS mode %q: choose starttls, tls or off", s.cfg.TLS)
	}
	if s.cfg.User != "" {
		o = append(o, gomail.WithSMTPAuth(gomail.SMTPAuthAutoDiscover), gomail.WithUsername(s.cfg.User), gomail.WithPassword(s.cfg.Password))
	}
	return gomail.NewClient(s.host, o...)
}

// Send sends a mail and waits until the SMTP server has taken it. Errors: M_INVALID_PARAM when the server refuses the address for
// good; others are the SMTP server's or the network's.
func (s *Sender) Send(ctx context.Context, to, subject, text string) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return fmt.Errorf("mail: %d others are on their way: %w", atOnce, ctx.Err())
	}
	m := gomail.NewMsg()
	if err := errors.Join(m.From(s.cfg.From), m.To(to)); err != nil {
		return signalling.InvalidParam("that is no e-mail address").Because(err)
	}
	m.Subject(subject)
	m.SetDate()
	m.SetMessageID()
	m.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: nobody's vacation notice answers
	m.SetBodyString(gomail.TypeTextPlain, strings.ReplaceAll(text, "\n", "\r\n"))
	c, err := s.client()
	if err != nil {
		return err
	}
	err = c.DialAndSendWithContext(ctx, m)
	var refused *gomail.SendError
	if errors.As(err, &refused) && refused.Reason == gomail.ErrSMTPRcptTo && !refused.IsTemp() {
		return signalling.InvalidParam("no mail can be sent to that address").Because(err)
	}
	if err != nil {
		return fmt.Errorf("mail: %w", err)
	}
	return nil
}
