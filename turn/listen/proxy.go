// SPDX-License-Identifier: Apache-2.0

package listen

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"time"
)

// proxySignature starts a header of the PROXY protocol, version 2 (haproxy.org, proxy-protocol.txt, section 2.2).
const proxySignature = "\r\n\r\n\x00\r\nQUIT\n"

const (
	proxyHead = len(proxySignature) + 4
	// maxProxyHeader bounds the addresses and what may follow them.
	maxProxyHeader = 2 << 10
)

// ErrProxy is what ReadProxy returns for what is no such header.
var ErrProxy = errors.New("listen: not a PROXY protocol header of version 2")

// ReadProxy reads the header that a trusted proxy sends ahead of the bytes of a client, and tells the client's address. The zero value
// means the proxy's own connection (a health check). It reads not one byte more than the header.
func ReadProxy(conn net.Conn, within time.Duration) (netip.AddrPort, error) {
	if err := conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		return netip.AddrPort{}, err
	}
	var head [proxyHead]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return netip.AddrPort{}, err
	}
	n := int(binary.BigEndian.Uint16(head[proxyHead-2:]))
	if string(head[:len(proxySignature)]) != proxySignature || n > maxProxyHeader {
		return netip.AddrPort{}, ErrProxy
	}
	rest := make([]byte, n)
	if _, err := io.ReadFull(conn, rest); err != nil {
		return netip.AddrPort{}, err
	}
	from, err := proxied(head[12], head[13], rest)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return from, conn.SetReadDeadline(time.Time{})
}

// proxied reads version and command, family and protocol, and the addresses.
func proxied(command, family byte, rest []byte) (netip.AddrPort, error) {
	switch {
	case command == 0x20: // LOCAL
		return netip.AddrPort{}, nil
	case command == 0x21 && family == 0x11 && len(rest) >= 12: // PROXY, TCP over IPv4
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(rest)), binary.BigEndian.Uint16(rest[8:])), nil
	case command == 0x21 && family == 0x21 && len(rest) >= 36: // PROXY, TCP over IPv6
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(rest)).Unmap(), binary.BigEndian.Uint16(rest[32:])), nil
	}
	return netip.AddrPort{}, ErrProxy
}
