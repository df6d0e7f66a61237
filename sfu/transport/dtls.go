// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/srtp/v3"
)

// handshakeTime bounds everything up to the keys.
const handshakeTime = 30 * time.Second

// profiles are the SRTP profiles in our order of preference: GCM costs a fifth of CM with HMAC-SHA1.
var profiles = []dtls.SRTPProtectionProfile{dtls.SRTP_AEAD_AES_128_GCM, dtls.SRTP_AEAD_AES_256_GCM, dtls.SRTP_AES128_CM_HMAC_SHA1_80}

// newCertificate makes the self-signed certificate that all sessions show, and its fingerprint (RFC 8122 section 5).
func newCertificate(time.Time) (tls.Certificate, string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, "", err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return tls.Certificate{}, "", err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "WebRTC"},
		// WebRTC checks the fingerprint and not the dates, but some clients look at both.
		NotBefore: now.AddDate(0, 0, -1), NotAfter: now.AddDate(1, 0, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, "", err
	}
	sum := sha256.Sum256(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, "sha-256 " + colons(sum[:]), nil
}

func colons(b []byte) string {
	var s strings.Builder
	for i, x := range b {
		if i > 0 {
			s.WriteByte(':')
		}
		s.WriteString(strings.ToUpper(hex.EncodeToString([]byte{x})))
	}
	return s.String()
}

// matches checks a certificate against a fingerprint line of SDP, "sha-256 AB:CD…".
func matches(der []byte, fingerprint string) bool {
	kind, want, _ := strings.Cut(strings.TrimSpace(fingerprint), " ")
	var sum []byte
	switch strings.ToLower(kind) {
	case "sha-256":
		s := sha256.Sum256(der)
		sum = s[:]
	case "sha-384":
		s := sha512.Sum384(der)
		sum = s[:]
	case "sha-512":
		s := sha512.Sum512(der)
		sum = s[:]
	default:
		return false
	}
	got, err := hex.DecodeString(strings.ReplaceAll(want, ":", ""))
	return err == nil && bytes.Equal(got, sum)
}

// Start begins the handshake with a client whose certificate has that fingerprint ("sha-256 AB:…"). With data it takes data
// channels, and opens those of labels itself. A second call does nothing.
func (s *Session) Start(fingerprint string, data bool, labels ...string) {
	if s.started.Swap(true) || s.ctx.Err() != nil {
		return
	}
	s.wait.Go(func() {
		err := s.run(fingerprint, data, labels)
		if s.ctx.Err() == nil {
			go func() { // Closed may call Close, which waits for this goroutine
				s.end()
				s.handler.Closed(err)
			}()
		}
	})
}

// run is a session's life from the handshake to its end.
func (s *Session) run(fingerprint string, data bool, labels []string) error {
	conn, err := dtls.ServerWithOptions(s.handshake, s.handshake.LocalAddr(),
		dtls.WithCertificates(s.t.certificate),
		dtls.WithSRTPProtectionProfiles(profiles...),
		dtls.WithExtendedMasterSecret(dtls.RequireExtendedMasterSecret),
		dtls.WithClientAuth(dtls.RequireAnyClientCert),
		dtls.WithInsecureSkipVerify(true), // the fingerprint says whom to trust
		dtls.WithVerifyPeerCertificate(func(certs [][]byte, _ [][]*x509.Certificate) error {
			if len(certs) == 0 || !matches(certs[0], fingerprint) {
				return errors.New("transport: the client's certificate is not the one of its description")
			}
			return nil
		}),
		// The address has passed an ICE check, so the cookie exchange proves nothing new and costs a round trip.
		dtls.WithInsecureSkipVerifyHello(true),
		dtls.WithFlightInterval(100*time.Millisecond),
		// No doubling of it (RFC 6347 section 4.2.4.1 advises that): the client has proved its address, the time is bounded, and on a path that
		// loses a third of all datagrams the doubled intervals are what makes a call begin after half a minute.
		dtls.WithDisableRetransmitBackoff(true),
		dtls.WithMTU(1200),
		dtls.WithLoggerFactory(pionLog{s.t.log}),
	)
	if err != nil {
		return fmt.Errorf("transport: DTLS: %w", err)
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(s.ctx, handshakeTime)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("transport: DTLS handshake: %w", err)
	}
	if err := s.agree(conn); err != nil {
		return err
	}
	s.handler.Connected()
	if data {
		return s.serveData(conn, labels)
	}
	var b [16]byte
	for { // nothing is expected; the read ends with the connection
		if _, err := conn.Read(b[:]); err != nil {
			return err
		}
	}
}

// agree takes the SRTP keys from the handshake (RFC 5764 section 4.2).
func (s *Session) agree(conn *dtls.Conn) error {
	chosen, ok := conn.SelectedSRTPProtectionProfile()
	if !ok {
		return errors.New("transport: the client offers no SRTP profile")
	}
	profile := srtp.ProtectionProfile(chosen)
	keyLen, err := profile.KeyLen()
	if err != nil {
		return err
	}
	saltLen, err := profile.SaltLen()
	if err != nil {
		return err
	}
	state, ok := conn.ConnectionState()
	if !ok {
		return errors.New("transport: no DTLS state")
	}
	material, err := state.ExportKeyingMaterial("EXTRACTOR-dtls_srtp", nil, 2*(keyLen+saltLen))
	if err != nil {
		return err
	}
	// client key, server key, client salt, server salt; we are the server
	theirKey, ourKey := material[:keyLen], material[keyLen:2*keyLen]
	theirSalt, ourSalt := material[2*keyLen:2*keyLen+saltLen], material[2*keyLen+saltLen:]
	in, err := newUnsealer(chosen, theirKey, theirSalt)
	if err != nil {
		return err
	}
	out, err := newReports(chosen, ourKey, ourSalt)
	if err != nil {
		return err
	}
	if err := s.keys.set(chosen, ourKey, ourSalt); err != nil {
		return err
	}
	s.inMu.Lock()
	s.in = in
	s.inMu.Unlock()
	s.outMu.Lock()
	s.out = out
	s.outMu.Unlock()
	s.sealer.Store(&s.keys)
	return nil
}

// Profile names the SRTP profile in use, "" before there is one.
func (s *Session) Profile() string {
	switch x := s.sealer.Load(); {
	case x == nil:
		return ""
	case x.aead != nil:
		return "AES-GCM"
	}
	return "AES-CM"
}

// inboxSize bounds the DTLS packets that wait to be read; more are dropped, and sent again by their protocols.
const inboxSize = 64

// inbox is the net.PacketConn on which DTLS runs: what the port's readers put in is read, what is written goes to the client.
type inbox struct {
	s      *Session
	in     chan []byte
	closed chan struct{}
	once   sync.Once

	mu       sync.Mutex
	timer    *time.Timer
	deadline chan struct{} // closed when the read deadline has passed
}

func newInbox(s *Session) *inbox {
	return &inbox{s: s, in: make(chan []byte, inboxSize), closed: make(chan struct{}), deadline: make(chan struct{})}
}

// put queues a copy of b, or drops it.
func (i *inbox) put(b []byte) {
	select {
	case i.in <- bytes.Clone(b):
	default:
	}
}

func (i *inbox) close() { i.once.Do(func() { close(i.closed) }) }

// ReadFrom implements net.PacketConn.
func (i *inbox) ReadFrom(b []byte) (int, net.Addr, error) {
	i.mu.Lock()
	deadline := i.deadline
	i.mu.Unlock()
	select {
	case <-deadline:
		return 0, nil, os.ErrDeadlineExceeded
	default:
	}
	select {
	case p := <-i.in:
		return copy(b, p), i.LocalAddr(), nil
	case <-i.closed:
		return 0, nil, net.ErrClosed
	case <-deadline:
		return 0, nil, os.ErrDeadlineExceeded
	}
}

// WriteTo implements net.PacketConn; the address is where the client is now.
func (i *inbox) WriteTo(b []byte, _ net.Addr) (int, error) {
	p := i.s.path.Load()
	if p == nil {
		return len(b), nil // lost, as a datagram may be
	}
	if len(b) > slotSize {
		return 0, errors.New("transport: a DTLS packet over the size of a datagram")
	}
	i.s.t.Do(func(out *Batch) { out.clear(p, copy(out.Slot(), b)) })
	return len(b), nil
}

// Close implements net.PacketConn.
func (i *inbox) Close() error { i.close(); return nil }

// LocalAddr implements net.PacketConn. DTLS compares addresses only with each other.
func (i *inbox) LocalAddr() net.Addr { return &net.UDPAddr{IP: net.IPv4zero} }

// SetReadDeadline implements net.PacketConn.
func (i *inbox) SetReadDeadline(t time.Time) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.timer != nil {
		i.timer.Stop()
		i.timer = nil
	}
	select {
	case <-i.deadline:
		i.deadline = make(chan struct{})
	default:
	}
	if t.IsZero() {
		return nil
	}
	d := i.deadline
	wait := time.Until(t)
	if wait <= 0 {
		close(d)
		return nil
	}
	var timer *time.Timer
	timer = time.AfterFunc(wait, func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		if i.timer == timer && i.deadline == d {
			close(d)
		}
	})
	i.timer = timer
	return nil
}

// SetWriteDeadline implements net.PacketConn; writes do not block.
func (i *inbox) SetWriteDeadline(time.Time) error { return nil }

// SetDeadline implements net.PacketConn.
func (i *inbox) SetDeadline(t time.Time) error { return i.SetReadDeadline(t) }
