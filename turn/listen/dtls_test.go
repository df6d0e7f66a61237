// SPDX-License-Identifier: Apache-2.0

package listen

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"math/big"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/pion/dtls/v3"
)

func serverTLS(t testing.TB) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// TestAFloodOfHellosIsBoundedAndAClientStillConnects plays hellos of ten thousand forged sources: state for so many handshakes as may be
// in progress, and when the flood is over a client gets its connection.
func TestAFloodOfHellosIsBoundedAndAClientStillConnects(t *testing.T) {
	pc, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	local := pc.LocalAddr().(*net.UDPAddr).AddrPort()
	d := NewDTLS(serverTLS(t), 10*time.Second, func(conn net.Conn, _ netip.AddrPort) {
		defer conn.Close()
		buf := make([]byte, 100)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			if _, err := conn.Write(buf[:n]); err != nil {
				return
			}
		}
	})
	hellos := make(chan []byte, 1)
	read := make(chan struct{})
	go func() {
		defer close(read)
		buf := make([]byte, 4096)
		for {
			n, from, err := pc.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			select {
			case hellos <- append([]byte(nil), buf[:n]...):
			default:
			}
			d.Packet(buf[:n], local, from, func(p []byte) { _, _ = pc.WriteToUDPAddrPort(p, from) })
		}
	}()
	connect := func() {
		t.Helper()
		raw, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		conn, err := dtls.ClientWithOptions(raw, net.UDPAddrFromAddrPort(local), dtls.WithInsecureSkipVerify(true))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := conn.HandshakeContext(ctx); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		buf := make([]byte, 100)
		if _, err := conn.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if n, err := conn.Read(buf); err != nil || string(buf[:n]) != "hello" {
			t.Fatalf("%q, %v", buf[:n], err)
		}
	}
	connect()
	hello := <-hellos
	if !isClientHello(hello) {
		t.Fatalf("the first packet is %x", hello)
	}
	goroutines := runtime.NumGoroutine()
	for i := range 10000 {
		var ip [4]byte
		binary.BigEndian.PutUint32(ip[:], 0x0b000000+uint32(i))
		d.Packet(hello, local, netip.AddrPortFrom(netip.AddrFrom4(ip), 5000), func([]byte) {})
	}
	one := netip.MustParseAddr("12.0.0.1")
	for i := range 1000 {
		d.Packet(hello, local, netip.AddrPortFrom(one, uint16(1000+i)), func([]byte) {})
	}
	d.mu.Lock()
	progress, ofOne := len(d.oldest), d.sources[one]
	d.mu.Unlock()
	if progress > maxHandshakes || ofOne > maxHandshakesPerSource {
		t.Errorf("%d handshakes in progress, %d of one source", progress, ofOne)
	}
	for deadline := time.Now().Add(20 * time.Second); runtime.NumGoroutine() > goroutines+8*maxHandshakes; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines", runtime.NumGoroutine())
		}
	}
	connect()
	pc.Close()
	<-read
	d.Close()
	if len(d.conns) != 0 || len(d.sources) != 0 || len(d.oldest) != 0 {
		t.Errorf("after the end: %d connections, %d sources, %d handshakes", len(d.conns), len(d.sources), len(d.oldest))
	}
}

func FuzzDTLS(f *testing.F) {
	f.Add([]byte{22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1})
	d := NewDTLS(serverTLS(f), 10*time.Millisecond, func(conn net.Conn, _ netip.AddrPort) { conn.Close() })
	f.Cleanup(d.Close)
	local, remote := netip.MustParseAddrPort("192.0.2.1:5349"), netip.MustParseAddrPort("192.0.2.2:5000")
	f.Fuzz(func(t *testing.T, p []byte) {
		if IsDTLS(p) {
			d.Packet(p, local, remote, func([]byte) {})
		}
	})
}
