// SPDX-License-Identifier: Apache-2.0

package listen

import (
	"encoding/binary"
	"net"
	"testing"
	"time"
)

// proxyHeader makes a header.
func proxyHeader(command, family byte, rest ...byte) []byte {
	p := append([]byte(proxySignature), command, family)
	return append(binary.BigEndian.AppendUint16(p, uint16(len(rest))), rest...)
}

func TestProxyHeadersTellTheClientsAddress(t *testing.T) {
	v4 := []byte{192, 0, 2, 7, 10, 0, 0, 1, 0x30, 0x39, 0x0d, 0x96}
	v6 := make([]byte, 36)
	v6[0], v6[1], v6[15], v6[33] = 0x20, 0x01, 9, 80
	for name, c := range map[string]struct {
		bytes []byte
		want  string
	}{
		"IPv4":             {proxyHeader(0x21, 0x11, v4...), "192.0.2.7:12345"},
		"IPv4 with extras": {proxyHeader(0x21, 0x11, append(v4, 4, 0, 1, 0)...), "192.0.2.7:12345"},
		"IPv6":             {proxyHeader(0x21, 0x21, v6...), "[2001::9]:80"},
		"a health check":   {proxyHeader(0x20, 0), "invalid AddrPort"},
		"short":            {proxyHeader(0x21, 0x11, v4[:8]...), ""},
		"UDP":              {proxyHeader(0x21, 0x12, v4...), ""},
		"version 1":        {append([]byte("PROXY TCP4 192.0.2.7 10.0.0.1 12345 3478\r\n"), 0), ""},
		"long":             {proxyHeader(0x21, 0x11, make([]byte, maxProxyHeader+1)...), ""},
		"nothing":          {nil, ""},
	} {
		near, far := net.Pipe()
		go func() {
			_, _ = far.Write(append(c.bytes, "after"...)[:max(len(c.bytes), 0)])
			if c.want != "" {
				_, _ = far.Write([]byte("after"))
			}
		}()
		got, err := ReadProxy(near, 200*time.Millisecond)
		if (err == nil) != (c.want != "") || err == nil && got.String() != c.want {
			t.Errorf("%s: %v, %v; want %q", name, got, err, c.want)
		}
		if err == nil {
			buf := make([]byte, 5)
			if n, err := near.Read(buf); err != nil || string(buf[:n]) != "after" {
				t.Errorf("%s: behind the header comes %q, %v", name, buf[:n], err)
			}
		}
		near.Close()
		far.Close()
	}
}

func FuzzProxyHeader(f *testing.F) {
	f.Add(proxyHeader(0x21, 0x11, make([]byte, 12)...))
	f.Add(proxyHeader(0x21, 0x21, make([]byte, 40)...))
	f.Fuzz(func(t *testing.T, p []byte) {
		conn := &pieces{rest: p, n: 7}
		from, err := ReadProxy(conn, time.Second)
		if err == nil && from.IsValid() && from.Addr().Is4In6() {
			t.Errorf("%v is not unmapped", from)
		}
	})
}
