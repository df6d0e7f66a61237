// SPDX-License-Identifier: Apache-2.0

// Package mailtest is an SMTP server for tests: it speaks the protocol on a real socket (RFC 5321, STARTTLS, AUTH PLAIN) and keeps
// what it is sent.
package mailtest

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"io"
	"math/big"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"strings"
	"sync"
	"testing"
	"time"
)

// Mail is a mail that arrived.
type Mail struct {
	From, To string // of the envelope
	Login    string // user:password, "" where nobody logged in
	TLS      bool
	Header   mail.Header
	Subject  string
	Text     string // decoded
}

// Server is an SMTP server. Set what it does before mails are sent.
type Server struct {
	Addr   string                 // host:port
	Roots  *x509.CertPool         // the authority of its certificate
	Refuse func(to string) string // an answer to RCPT instead of 250, "" for none
	Full   bool                   // TLS from the first byte

	t     testing.TB
	cert  tls.Certificate
	mu    sync.Mutex
	mails []Mail
}

// New starts a server that ends with the test. full makes it speak TLS from the first byte.
func New(t testing.TB, full bool) *Server {
	t.Helper()
	s := &Server{t: t, Full: full}
	s.certify()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Addr = l.Addr().String()
	var all sync.WaitGroup
	var open sync.Map
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			open.Store(c, nil)
			all.Go(func() {
				defer open.Delete(c)
				defer c.Close()
				s.serve(c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		open.Range(func(c, _ any) bool { c.(net.Conn).Close(); return true })
		all.Wait()
	})
	return s
}

func (s *Server) certify() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	now := time.Now()
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mail of the test"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		s.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		s.t.Fatal(err)
	}
	s.Roots = x509.NewCertPool()
	s.Roots.AddCert(leaf)
	s.cert = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// Mails are those that arrived so far.
func (s *Server) Mails() []Mail {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Mail(nil), s.mails...)
}

// Last is the newest mail to an address; the test ends when there is none.
func (s *Server) Last(to string) Mail {
	s.t.Helper()
	all := s.Mails()
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].To == to {
			return all[i]
		}
	}
	s.t.Fatalf("no mail to %s among %d", to, len(all))
	return Mail{}
}

func (s *Server) serve(c net.Conn) {
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	secure := s.Full
	if secure {
		c = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{s.cert}})
	}
	in := bufio.NewReader(c)
	say := func(format string, args ...any) { fmt.Fprintf(c, format+"\r\n", args...) }
	say("220 mail.test ESMTP")
	var m Mail
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		verb, rest, _ := strings.Cut(line, " ")
		switch strings.ToUpper(verb) {
		case "EHLO":
			say("250-mail.test")
			if !secure {
				say("250-STARTTLS")
			}
			say("250-8BITMIME")
			say("250 AUTH PLAIN")
		case "HELO", "RSET", "NOOP":
			say("250 ok")
		case "STARTTLS":
			say("220 go on")
			t := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{s.cert}})
			if t.Handshake() != nil {
				return
			}
			c, secure, in = t, true, bufio.NewReader(t)
		case "AUTH":
			_, secret, _ := strings.Cut(rest, " ")
			b, err := base64.StdEncoding.DecodeString(secret)
			f := strings.Split(string(b), "\x00")
			if err != nil || len(f) != 3 {
				say("501 what")
				continue
			}
			m.Login = f[1] + ":" + f[2]
			say("235 welcome")
		case "MAIL":
			m.From = inAngles(rest)
			say("250 ok")
		case "RCPT":
			to := inAngles(rest)
			if s.Refuse != nil {
				if no := s.Refuse(to); no != "" {
					say("%s", no)
					continue
				}
			}
			m.To = to
			say("250 ok")
		case "DATA":
			say("354 go on")
			text, err := body(in)
			if err != nil {
				return
			}
			m.TLS = secure
			if s.take(m, text) {
				say("250 taken")
			} else {
				say("554 not a mail")
			}
			m = Mail{Login: m.Login}
		case "QUIT":
			say("221 bye")
			return
		default:
			say("502 no")
		}
	}
}

func inAngles(s string) string {
	_, s, _ = strings.Cut(s, "<")
	s, _, _ = strings.Cut(s, ">")
	return s
}

func body(in *bufio.Reader) (string, error) {
	var b strings.Builder
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return "", err
		}
		if line == ".\r\n" {
			return b.String(), nil
		}
		b.WriteString(strings.TrimPrefix(line, "."))
	}
}

func (s *Server) take(m Mail, text string) bool {
	msg, err := mail.ReadMessage(strings.NewReader(text))
	if err != nil {
		return false
	}
	var r io.Reader = msg.Body
	if strings.EqualFold(msg.Header.Get("Content-Transfer-Encoding"), "quoted-printable") {
		r = quotedprintable.NewReader(r)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		return false
	}
	m.Header, m.Text = msg.Header, string(b)
	m.Subject, _ = new(mime.WordDecoder).DecodeHeader(msg.Header.Get("Subject"))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mails = append(s.mails, m)
	return true
}
