// SPDX-License-Identifier: Apache-2.0

// Package probe asks a STUN and TURN server what a calling client would ask, and says what came of it. It is how the doctor finds out
// whether calls can get through.
package probe

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/pion/logging"
	"github.com/pion/stun/v4"
	"github.com/pion/turn/v5"
)

// Server is one way to reach a STUN or TURN server.
type Server struct {
	Host      string
	Port      int
	Transport string      // udp, tcp or tls
	TLS       *tls.Config // for tls; nil verifies Host against the system's authorities
	From      netip.Addr  // for udp: our address to ask from; the zero value means the one that leads there
}

// String gives the server as in a URI (RFC 7064, RFC 7065), without the scheme.
func (s Server) String() string {
	return net.JoinHostPort(s.Host, strconv.Itoa(s.Port)) + " over " + s.Transport
}

// ParseURI reads a turn:, turns:, stun: or stuns: URI as /voip/turnServer gives it.
func ParseURI(uri string) (Server, error) {
	u, err := stun.ParseURI(uri)
	if err != nil {
		return Server{}, fmt.Errorf("%q is no STUN or TURN URI: %w", uri, err)
	}
	s := Server{Host: u.Host, Port: u.Port, Transport: u.Proto.String()}
	if u.Scheme == stun.SchemeTypeTURNS || u.Scheme == stun.SchemeTypeSTUNS {
		if s.Transport != "tcp" {
			return Server{}, fmt.Errorf("%q: DTLS is not probed", uri)
		}
		s.Transport = "tls"
	}
	return s, nil
}

// Binding is what a STUN Binding request showed (RFC 8489, section 2).
type Binding struct {
	Local  netip.AddrPort // where it was sent from
	Mapped netip.AddrPort // where the server saw it come from
	Took   time.Duration  // one round trip, without setting up the connection
}

// Translated reports whether an address translator stands between.
func (b Binding) Translated() bool { return b.Local != b.Mapped }

// Bind sends a Binding request. The context bounds all of it; a UDP request is sent again as RFC 8489, section 6.2.1, says.
func Bind(ctx context.Context, s Server) (Binding, error) {
	conn, to, err := dial(ctx, s)
	if err != nil {
		return Binding{}, err
	}
	c, err := client(s, conn, to, "", "")
	if err != nil {
		return Binding{}, err
	}
	defer c.close()
	request, err := stun.Build(stun.TransactionID, stun.BindingRequest, stun.Fingerprint)
	if err != nil {
		return Binding{}, err
	}
	start := time.Now()
	res, err := c.PerformTransactionWithContext(request, to, false, ctx)
	if err != nil {
		return Binding{}, deadline(ctx, err)
	}
	b := Binding{Took: time.Since(start), Local: addrPort(conn.LocalAddr())}
	var mapped stun.XORMappedAddress
	if err := mapped.GetFrom(res.Msg); err != nil {
		return Binding{}, fmt.Errorf("the answer shows no XOR-MAPPED-ADDRESS: %w", err)
	}
	ip, _ := netip.AddrFromSlice(mapped.IP)
	b.Mapped = netip.AddrPortFrom(ip.Unmap(), uint16(mapped.Port))
	return b, nil
}

// Relaying is what a pair of allocations that sent each other packets showed.
type Relaying struct {
	Relayed  netip.AddrPort // address of the first allocation
	Sent     int
	Received int
	Took     time.Duration // the median way from one client through both relays to the other
}

// packets are sent per probe, each of size bytes, as a short piece of a call's audio.
const (
	packets = 20
	size    = 160
)

// ErrSilent is returned when both allocations were made and nothing that they sent to each other arrived.
var ErrSilent = errors.New("two relays were given out, but no packet got from one to the other")

// Relay makes two allocations with the credentials and sends packets through both: the first client's relay to the second's, as in a
// call where both sides can only relay (RFC 8656, sections 7 and 12).
func Relay(ctx context.Context, s Server, username, password string) (Relaying, error) {
	var sides [2]net.PacketConn
	for i := range sides {
		conn, to, err := dial(ctx, s)
		if err != nil {
			return Relaying{}, err
		}
		c, err := client(s, conn, to, username, password)
		if err != nil {
			return Relaying{}, err
		}
		defer c.close()
		relay, err := c.AllocateWithContext(ctx)
		if err != nil {
			return Relaying{}, deadline(ctx, err)
		}
		defer relay.Close()
		sides[i] = relay
	}
	out := Relaying{Relayed: addrPort(sides[0].LocalAddr())}
	// The receiver speaks first: it opens its permission towards the sender. That packet may be dropped, for the other side has none yet.
	if _, err := sides[1].WriteTo([]byte("open"), sides[0].LocalAddr()); err != nil {
		return out, deadline(ctx, err)
	}
	if d, ok := ctx.Deadline(); ok {
		_ = sides[1].SetReadDeadline(d)
	}
	key := make([]byte, 16)
	rand.Read(key)
	var times []time.Duration
	answer := make([]byte, 1500)
	for i := range packets {
		packet := binary.BigEndian.AppendUint32(bytes.Clone(key), uint32(i))
		packet = append(packet, make([]byte, size-len(packet))...)
		start := time.Now()
		if _, err := sides[0].WriteTo(packet, sides[1].LocalAddr()); err != nil {
			return out, deadline(ctx, err)
		}
		out.Sent++
		for {
			wait := time.Now().Add(time.Second)
			if d, ok := ctx.Deadline(); ok && d.Before(wait) {
				wait = d
			}
			_ = sides[1].SetReadDeadline(wait)
			n, _, err := sides[1].ReadFrom(answer)
			if err != nil {
				break // lost
			}
			if n == size && bytes.Equal(answer[:20], packet[:20]) {
				out.Received++
				times = append(times, time.Since(start))
				break
			}
		}
		if ctx.Err() != nil || (i == 2 && out.Received == 0) {
			break // silence: no need to wait for each of them
		}
	}
	if out.Received == 0 {
		return out, ErrSilent
	}
	out.Took = median(times)
	return out, nil
}

func median(times []time.Duration) time.Duration {
	slices.Sort(times)
	return times[len(times)/2]
}

// dial opens the way to the server; to is the address that requests go to.
func dial(ctx context.Context, s Server) (net.PacketConn, net.Addr, error) {
	at := net.JoinHostPort(s.Host, strconv.Itoa(s.Port))
	var dialer net.Dialer
	switch s.Transport {
	case "udp":
		if s.From.IsValid() {
			dialer.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(s.From, 0))
		}
		// Connected only to learn which of our addresses leads there, then bound to it: replies must come from the address we asked.
		c, err := dialer.DialContext(ctx, "udp", at)
		if err != nil {
			return nil, nil, err
		}
		to, from := c.RemoteAddr(), c.LocalAddr()
		_ = c.Close()
		conn, err := net.ListenUDP("udp", from.(*net.UDPAddr))
		return conn, to, err
	case "tcp":
		c, err := dialer.DialContext(ctx, "tcp", at)
		if err != nil {
			return nil, nil, err
		}
		return turn.NewSTUNConn(c), c.RemoteAddr(), nil
	case "tls":
		d := tls.Dialer{NetDialer: &dialer, Config: s.TLS}
		c, err := d.DialContext(ctx, "tcp", at)
		if err != nil {
			return nil, nil, err
		}
		return turn.NewSTUNConn(c), c.RemoteAddr(), nil
	}
	return nil, nil, fmt.Errorf("%q is no transport of TURN", s.Transport)
}

type probing struct {
	*turn.Client
	conn net.PacketConn
}

func (p *probing) close() {
	p.Client.Close()
	_ = p.conn.Close()
}

func client(s Server, conn net.PacketConn, to net.Addr, username, password string) (*probing, error) {
	quiet := logging.NewDefaultLoggerFactory()
	quiet.DefaultLogLevel = logging.LogLevelDisabled
	at := to.String()
	c, err := turn.NewClient(&turn.ClientConfig{STUNServerAddr: at, TURNServerAddr: at, Conn: conn, Username: username, Password: password, LoggerFactory: quiet})
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	if err := c.Listen(); err != nil {
		c.Close()
		_ = conn.Close()
		return nil, err
	}
	return &probing{Client: c, conn: conn}, nil
}

// deadline prefers to say that time was up.
func deadline(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("no answer in time: %w", ctx.Err())
	}
	return err
}

func addrPort(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.UDPAddr:
		p := a.AddrPort()
		return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
	case *net.TCPAddr:
		p := a.AddrPort()
		return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
	}
	p, _ := netip.ParseAddrPort(a.String())
	return p
}
