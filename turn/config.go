// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/turn/relay"
)

// Config is how a Server is set up. The zero value of every field means the default that its comment names.
type Config struct {
	// ListenUDP and ListenTCP are addresses for STUN and TURN, "host:port"; an empty host means every address of the machine, port 0
	// a free one. nil means ":3478"; an empty slice means none. On a host with several addresses list each of them, so that
	// answers leave from the address that was asked.
	ListenUDP, ListenTCP []string
	// ListenTLS are addresses for TURN over TLS. nil means ":5349" if TLS is set, else none. TLS is also accepted on ListenTCP, told
	// apart by the first byte.
	ListenTLS []string
	// ListenDTLS are addresses for TURN over DTLS (RFC 7350). nil means ":5349" if TLS is set, else none; an empty slice turns DTLS off.
	// With at least one, DTLS is also accepted on ListenUDP, and plain packets here, told apart by the first byte.
	ListenDTLS []string
	// TLS holds the certificate or GetCertificate. Its NextProtos are not used: clients may offer any protocol name.
	TLS *tls.Config
	// Engine moves the packets: "auto" (default), "portable" or "linux".
	Engine string

	// Relays are the addresses that relayed transport addresses are made of; an allocation gets one of its family at random. nil means the first global
	// unicast address of each family that this machine has, or 127.0.0.1 if there is none.
	Relays []RelayAddress
	// MinPort and MaxPort bound the relay ports. Default 49152-65535 (RFC 8656, section 7.2).
	MinPort, MaxPort uint16
	// Allow opens addresses that are denied by default: private, loopback, link-local, special-purpose ranges. An address of this
	// host itself is opened only by a prefix that names it alone (/32, /128) or that lies in loopback, so that a LAN range does
	// not open this host's other services.
	Allow []netip.Prefix
	// LocalPeers are ports of this host that relays may reach besides live relay ports: the SFU's.
	LocalPeers []netip.AddrPort

	// Realm is told to clients. Default "turn". Up to 12 bytes keep the answer to the smallest unauthenticated Allocate within
	// 1.5 times its size on the wire, so longer ones make this server a slightly better reflector.
	Realm string
	// Realms are further realms, which clients are led to by their ORIGIN.
	Realms []Realm
	// OAuth lets clients in with tokens of an authorisation server.
	OAuth OAuth
	// StaleNonce is how long a nonce is good for. Default 1 h, at least 1 min.
	StaleNonce time.Duration
	// DefaultLifetime and MaxLifetime of an allocation. Default 10 min and 1 h (RFC 8656, section 3.2).
	DefaultLifetime, MaxLifetime time.Duration
	// PermissionLifetime and ChannelLifetime. Default 5 min and 10 min (RFC 8656, sections 9 and 12).
	PermissionLifetime, ChannelLifetime time.Duration

	// Mobility lets clients keep their allocation when their address changes (RFC 8016).
	Mobility bool
	// TCPRelays lets clients that are connected over TCP or TLS ask for TCP connections to their peers (RFC 6062). Off, they are
	// answered 442: WebRTC does not need them, and a relay for TCP reaches what speaks TCP.
	TCPRelays bool
	// Alternates are servers that clients are sent to with 300 (Try Alternate), in turn, instead of being served here (RFC 8489,
	// section 10). Each client is sent to one of its own address family.
	Alternates []netip.AddrPort

	// Discovery turns on NAT behaviour discovery (RFC 5780): two addresses of this host with different ports, "address:port". The server
	// listens on UDP on both addresses with both ports, besides ListenUDP.
	Discovery []netip.AddrPort

	// LegacyChannels lets clients bind channel numbers up to 0x7FFF, as RFC 5766 did; RFC 8656 reserves those above 0x4FFF, and they are
	// refused with 400 by default. coturn's test client, up to version 4.6, picks from the whole old range.
	LegacyChannels bool

	// UserQuota is how many allocations one user may have at once, all devices together. Default 64; negative means no limit.
	UserQuota int
	// TotalQuota is how many allocations the server may have at once. Default 8000; negative means no limit but the ports.
	TotalQuota int
	// UserBandwidth and Bandwidth are how many payload bytes a second one user, and everybody together, may relay, both directions
	// together; what is beyond is dropped. Default 0: no limit. SessionBandwidth is the same for each allocation.
	UserBandwidth, Bandwidth, SessionBandwidth int64
	// MaxPeers is how many permissions, and how many channels, one allocation may have. Default 256.
	MaxPeers int
	// MaxConnections is how many TCP and TLS connections may be open, MaxConnectionsPerSource from one IPv4 address or IPv6 /64.
	// Default 10000 and 512.
	MaxConnections, MaxConnectionsPerSource int

	// UnauthorizedRate is how many error answers to requests without valid credentials one source gets each second, with bursts of
	// UnauthorizedBurst. Default 100 and 1000. BindingRate and BindingBurst are the same for STUN Binding answers, default 200 and
	// 2000. What is beyond is dropped; clients ask again. A negative rate means no limit.
	UnauthorizedRate, UnauthorizedBurst int
	BindingRate, BindingBurst           int

	// TrustedProxies are the sources whose TCP connections must start with a header of the PROXY protocol, version 2, which names the
	// client. From everybody else such a header is no STUN and ends the connection.
	TrustedProxies []netip.Prefix

	// Notify, unless nil, is told what becomes of sessions: of each of them in order. It must neither wait nor call the server.
	Notify func(SessionEvent)

	// Clock tells the time. Default signalling.SystemClock.
	Clock signalling.Clock
}

// RelayAddress is an address that relay sockets are bound to, and the form in which peers reach it.
type RelayAddress struct {
	// Local is bound.
	Local netip.Addr
	// External is told to clients; the zero value means Local. It differs behind a NAT that passes the relay ports on unchanged.
	External netip.Addr
}

// String is the address, and how it is told to clients where that is another: 10.0.0.5=203.0.113.7.
func (r RelayAddress) String() string {
	if shown := r.shown(); shown != r.Local.Unmap() {
		return r.Local.String() + "=" + shown.String()
	}
	return r.Local.String()
}

func (r RelayAddress) shown() netip.Addr {
	if r.External.IsValid() {
		return r.External.Unmap()
	}
	return r.Local.Unmap()
}

func or[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// withDefaults fills in what is not set.
func (c Config) withDefaults() Config {
	if c.ListenUDP == nil {
		c.ListenUDP = []string{":3478"}
	}
	if c.ListenTCP == nil {
		c.ListenTCP = []string{":3478"}
	}
	if c.ListenTLS == nil && c.TLS != nil {
		c.ListenTLS = []string{":5349"}
	}
	if c.ListenDTLS == nil && c.TLS != nil {
		c.ListenDTLS = []string{":5349"}
	}
	or(&c.Engine, string(relay.Auto))
	if c.Relays == nil {
		c.Relays = HostRelays()
	}
	or(&c.MinPort, 49152)
	or(&c.MaxPort, 65535)
	or(&c.Realm, "turn")
	or(&c.StaleNonce, time.Hour)
	or(&c.DefaultLifetime, 10*time.Minute)
	or(&c.MaxLifetime, time.Hour)
	or(&c.PermissionLifetime, 5*time.Minute)
	or(&c.ChannelLifetime, 10*time.Minute)
	or(&c.UserQuota, 64)
	or(&c.TotalQuota, 8000)
	or(&c.MaxPeers, 256)
	or(&c.MaxConnections, 10000)
	or(&c.MaxConnectionsPerSource, 512)
	or(&c.UnauthorizedRate, 100)
	or(&c.UnauthorizedBurst, 1000)
	or(&c.BindingRate, 200)
	or(&c.BindingBurst, 2000)
	if c.Clock == nil {
		c.Clock = signalling.SystemClock{}
	}
	return c
}

// validate checks a Config whose defaults are filled in.
func (c Config) validate() error {
	if len(c.ListenUDP)+len(c.ListenTCP)+len(c.ListenTLS) == 0 {
		return errors.New("turn: nothing to listen on")
	}
	for _, list := range [][]string{c.ListenUDP, c.ListenTCP, c.ListenTLS} {
		for _, a := range list {
			if _, err := listenAddr(a); err != nil {
				return err
			}
		}
	}
	if len(c.ListenTLS)+len(c.ListenDTLS) > 0 && c.TLS == nil {
		return errors.New("turn: TLS listeners need a certificate")
	}
	if len(c.Relays) == 0 {
		return errors.New("turn: no relay address")
	}
	seen := make(map[netip.Addr]bool)
	for _, r := range c.Relays {
		if !r.Local.IsValid() || r.Local.IsUnspecified() || r.Local.IsMulticast() || r.Local.Zone() != "" {
			return fmt.Errorf("turn: relay address %v: it must be one address of this host", r.Local)
		}
		if x := r.External; x.IsValid() && (x.IsUnspecified() || x.Unmap().Is4() != r.Local.Unmap().Is4()) {
			return fmt.Errorf("turn: external address %v does not fit relay address %v", x, r.Local)
		}
		if seen[r.Local.Unmap()] {
			return fmt.Errorf("turn: relay address %v is given twice", r.Local)
		}
		seen[r.Local.Unmap()] = true
	}
	if c.MinPort < 1024 || c.MinPort > c.MaxPort {
		return fmt.Errorf("turn: relay ports %d-%d: want 1024 <= min <= max", c.MinPort, c.MaxPort)
	}
	if c.StaleNonce < time.Minute || c.StaleNonce > maxNonceLife {
		return fmt.Errorf("turn: stale nonce %v: want %v to %v", c.StaleNonce, time.Minute, maxNonceLife)
	}
	if err := c.checkRealms(); err != nil {
		return err
	}
	if c.DefaultLifetime < time.Second || c.MaxLifetime < c.DefaultLifetime || c.PermissionLifetime < time.Second || c.ChannelLifetime < time.Second {
		return errors.New("turn: a lifetime is shorter than a second, or the default longer than the maximum")
	}
	if err := c.checkDiscovery(); err != nil {
		return err
	}
	for _, a := range c.Alternates {
		if !a.IsValid() || a.Port() == 0 || a.Addr().IsUnspecified() {
			return fmt.Errorf("turn: alternate server %v: want address:port", a)
		}
	}
	for _, p := range c.Allow {
		if !p.IsValid() {
			return fmt.Errorf("turn: allowed range %v is not valid", p)
		}
	}
	if c.MaxPeers < 1 || c.MaxConnections < 1 || c.MaxConnectionsPerSource < 1 || c.UnauthorizedBurst < 1 || c.BindingBurst < 1 {
		return errors.New("turn: a limit is below 1")
	}
	return nil
}

// listenAddr reads "host:port"; an empty host gives the zero Addr.
func listenAddr(s string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("turn: listen address %q: %w", s, err)
	}
	if host == "" {
		a, err := netip.ParseAddrPort("0.0.0.0:" + port)
		if err != nil {
			return netip.AddrPort{}, fmt.Errorf("turn: listen address %q: %w", s, err)
		}
		return netip.AddrPortFrom(netip.Addr{}, a.Port()), nil
	}
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("turn: listen address %q: %w", s, err)
	}
	return a, nil
}

func familyIndex(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// hostAddrs are the addresses of this machine's interfaces.
func hostAddrs() []netip.Addr {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil // the caller does without
	}
	var out []netip.Addr
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				out = append(out, ip.Unmap())
			}
		}
	}
	return out
}

// HostRelays is what Config.Relays is by default.
func HostRelays() (out []RelayAddress) {
	var seen [2]bool
	for _, a := range hostAddrs() {
		if f := familyIndex(a); a.IsGlobalUnicast() && !seen[f] {
			seen[f] = true
			out = append(out, RelayAddress{Local: a})
		}
	}
	if len(out) == 0 {
		out = append(out, RelayAddress{Local: netip.AddrFrom4([4]byte{127, 0, 0, 1})})
	}
	return out
}
