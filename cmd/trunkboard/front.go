// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"
)

const (
	handshakeTime  = 10 * time.Second // for the TLS handshake and the first byte after it
	handshakeLimit = 1024             // running at once on one listener; more wait in the kernel's queue
)

// front is a TLS listener whose port HTTPS and TURN share. It finishes the handshake, then looks who is there:
//
//	ALPN "h2" or "http/1.1"     HTTP, every browser says so
//	ALPN "stun.turn"            TURN, RFC 7443
//	no ALPN, first byte 0 or 1  TURN: the first message is STUN, whose first two bits are 0 (RFC 8489 section 5)
//	no ALPN, anything else      HTTP/1.1
//
// HTTP connections come out of Accept; TURN's go to the relay.
type front struct {
	net.Listener
	config *tls.Config
	relay  func(net.Conn) // takes the connection over and returns; nil when no relay runs here
	log    *slog.Logger

	accepted chan net.Conn
	slots    chan struct{} // one held by each handshake
	crowd    *crowd        // how many of them are whose
	ctx      context.Context
	cancel   context.CancelFunc
	work     sync.WaitGroup
}

// newFront starts to accept on l. certificate may answer differently over time; crowd may be nil.
func newFront(l net.Listener, certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error), relay func(net.Conn), crowd *crowd, log *slog.Logger) *front {
	f := &front{
		Listener: l, relay: relay, log: log,
		config: &tls.Config{
			MinVersion:     tls.VersionTLS12,
			GetCertificate: certificate,
			NextProtos:     []string{"h2", "http/1.1"},
		},
		accepted: make(chan net.Conn), slots: make(chan struct{}, handshakeLimit), crowd: crowd,
	}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	if relay != nil {
		f.config.NextProtos = append(f.config.NextProtos, "stun.turn")
	}
	f.work.Go(f.accept)
	return f
}

// accept hands every raw connection to a goroutine of its own.
func (f *front) accept() {
	for f.ctx.Err() == nil {
		select {
		case f.slots <- struct{}{}:
		case <-f.ctx.Done():
			return
		}
		conn, err := f.Listener.Accept()
		if err != nil {
			<-f.slots
			if f.ctx.Err() == nil {
				f.log.Warn("cannot accept a connection", "err", err)
			}
			select {
			case <-f.ctx.Done():
			case <-time.After(50 * time.Millisecond): // out of file descriptors, most likely: let some close
			}
			continue
		}
		leave, ok := f.crowd.enter(conn.RemoteAddr())
		if !ok { // one address must not take all slots
			<-f.slots
			conn.Close()
			continue
		}
		f.work.Go(func() {
			defer func() { <-f.slots; leave() }()
			f.pass(tls.Server(conn, f.config))
		})
	}
}

// pass gives conn to whom it is for, or closes it.
func (f *front) pass(conn *tls.Conn) {
	conn.SetDeadline(time.Now().Add(handshakeTime))
	stop := context.AfterFunc(f.ctx, func() { conn.SetDeadline(time.Now()) }) // a handshake must not hold up Close
	passed, isTURN, err := sniff(conn)
	if !stop() || err != nil {
		f.log.Debug("TLS handshake failed", "remote", conn.RemoteAddr(), "err", err)
		conn.Close()
		return
	}
	conn.SetDeadline(time.Time{})
	switch {
	case isTURN && f.relay != nil:
		f.relay(passed)
	case isTURN:
		conn.Close()
	default:
		select {
		case f.accepted <- passed:
		case <-f.ctx.Done():
			conn.Close()
		}
	}
}

// sniff finds out whether conn speaks TURN, and gives the connection to go on with.
func sniff(conn *tls.Conn) (passed net.Conn, isTURN bool, err error) {
	if err := conn.Handshake(); err != nil {
		return nil, false, err
	}
	if p := conn.ConnectionState().NegotiatedProtocol; p != "" {
		return conn, p == "stun.turn", nil
	}
	p := &peeked{Conn: conn, head: bufio.NewReaderSize(conn, 16)}
	first, err := p.head.Peek(1)
	if err != nil {
		return nil, false, err
	}
	return p, first[0] < 2, nil
}

// Accept gives the next HTTP connection; after Close it fails with net.ErrClosed.
func (f *front) Accept() (net.Conn, error) {
	select {
	case c := <-f.accepted:
		return c, nil
	case <-f.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close stops accepting and waits for handshakes to end.
func (f *front) Close() error {
	f.cancel()
	err := f.Listener.Close()
	f.work.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// peeked is a connection of which the first bytes were looked at.
type peeked struct {
	net.Conn
	head *bufio.Reader
}

// Read gives the looked-at bytes again, then the rest.
func (p *peeked) Read(b []byte) (int, error) {
	if p.head != nil {
		if p.head.Buffered() > 0 {
			return p.head.Read(b)
		}
		p.head = nil // the buffer is empty: read past it from now on
	}
	return p.Conn.Read(b)
}

// NetConn is the TLS connection underneath; the relay looks there for what secures its client.
func (p *peeked) NetConn() net.Conn { return p.Conn }
