// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"context"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"os"
)

// TestCoturnsClientRunsAgainstUs is the black-box check by the other implementation: every packet goes out and comes back.
func TestCoturnsClientRunsAgainstUs(t *testing.T) {
	tool, err := exec.LookPath("turnutils_uclient")
	if err != nil {
		if os.Getenv("TRUNKBOARD_TEST_REQUIRED") != "" {
			t.Fatal("turnutils_uclient is not installed (Debian package coturn); make deps installs it")
		}
		t.Skip("turnutils_uclient is not installed (Debian package coturn)")
	}
	cfg := testConfig()
	cfg.LegacyChannels, cfg.TLS, cfg.ListenTLS = true, certificate(t), []string{"127.0.0.1:0"}
	cfg.Mobility, cfg.TCPRelays, cfg.ListenDTLS = true, true, []string{"127.0.0.1:0"}
	cfg.Relays = append(cfg.Relays, RelayAddress{Local: netip.IPv6Loopback()})
	cfg.Allow = append(cfg.Allow, netip.MustParsePrefix("::1/128"))
	// The keys that the client has built in for -J; coturn takes the first 32 or 16 of their 33 and 17 bytes, which the algorithm tells.
	cfg.OAuth = OAuth{Server: "turn.example", Keys: map[string][]byte{
		"north": []byte("01234567890123456789012345678901"), "union": []byte("1234567890123456"), "oldempire": []byte("12345678901234567890123456789012"),
	}}
	s := start(t, cfg)
	peer := echoPair(t)
	peer6, err := echo6(t)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := s.cfg.TLS.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalECPrivateKey(cert.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, b := range map[string]*pem.Block{"cert": {Type: "CERTIFICATE", Bytes: cert.Certificate[0]}, "key": {Type: "EC PRIVATE KEY", Bytes: key}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	secure := []string{"-S", "-i", filepath.Join(dir, "cert"), "-k", filepath.Join(dir, "key")}
	type port func() uint16
	udp, tcp := s.Addrs().UDP[0].Port, s.Addrs().TCP[0].Port
	overTLS, dtls := s.Addrs().TLS[0].Port, s.Addrs().DTLS[0].Port
	// Not here: DTLS with mobility, for the client takes DTLS 1.0 or 1.2 at random and gives up if it meets 1.0 when it moves; and -R,
	// which sends damaged messages without an end.
	for _, c := range []struct {
		name  string
		flags []string
		port  port
		// used tells whether what the flags ask for was used: the client's closing line does not.
		used func(s *testServer, out string) bool
	}{
		{"UDP, channels", []string{"-X"}, udp, nil},
		{"UDP, no RTCP", []string{"-X", "-c"}, udp, nil},
		{"UDP, Send", []string{"-X", "-s"}, udp, nil},
		{"UDP, Send, do not fragment", []string{"-X", "-s", "-g"}, udp, nil},
		{"UDP, padded", []string{"-X", "-D"}, udp, nil},
		{"UDP, extra requests", []string{"-X", "-G"}, udp, nil},
		{"UDP, client to client", []string{"-X", "-y"}, udp, nil},
		{"UDP, IPv6 relay", []string{"-x", "-c"}, udp, nil}, // the peer is ::1
		{"UDP, dual allocation", []string{"-Z"}, udp, nil},
		{"UDP, mobility", []string{"-X", "-M"}, udp, func(s *testServer, _ string) bool { return s.counts.moved.Load() > 0 }},
		{"UDP, disconnects", []string{"-X", "-B"}, udp, nil},
		{"UDP, tokens", []string{"-X", "-J"}, udp, func(s *testServer, _ string) bool { return s.counts.tokens.Load() > 0 }},
		{"TCP, tokens", []string{"-X", "-t", "-J"}, tcp, func(s *testServer, _ string) bool { return s.counts.tokens.Load() > 0 }},
		{"TCP, channels", []string{"-X", "-t"}, tcp, nil},
		{"TCP, Send", []string{"-X", "-t", "-s"}, tcp, nil},
		{"TCP, mobility", []string{"-X", "-t", "-M"}, tcp, func(s *testServer, _ string) bool { return s.counts.moved.Load() > 0 }},
		{"TCP relays", []string{"-X", "-T"}, tcp, func(s *testServer, _ string) bool { return s.counts.bound.Load() > 0 }},
		{"TLS, channels", append([]string{"-X", "-t"}, secure...), overTLS, nil},
		{"TLS on the plain port, Send", append([]string{"-X", "-t", "-s"}, secure...), tcp, nil},
		{"TLS, TCP relays", append([]string{"-X", "-T"}, secure...), overTLS, func(s *testServer, _ string) bool { return s.counts.bound.Load() > 0 }},
		{"DTLS, channels", append([]string{"-X"}, secure...), dtls, nil},
		{"DTLS on the plain port, Send", append([]string{"-X", "-s"}, secure...), udp, nil},
		// Rows in which the client does not end with all packets back; it says the same of coturn's own server.
		{"UDP, negative", []string{"-X", "-N"}, udp, func(_ *testServer, out string) bool { return strings.Contains(out, "channel bind: error 400") }},
		{"TCP relays, passive", []string{"-X", "-P"}, tcp, func(s *testServer, out string) bool {
			return s.counts.bound.Load() > 0 && strings.Contains(out, "Total lost packets 10 (50.000000%)")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			partial := strings.HasSuffix(c.name, "negative") || strings.HasSuffix(c.name, "passive")
			ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
			defer cancel()
			to := peer
			if c.flags[0] == "-x" || c.flags[0] == "-Z" {
				to = peer6
			}
			args := append(append([]string(nil), c.flags...), "-e", to.Addr().String(), "-r", strconv.Itoa(int(to.Port())),
				"-p", strconv.Itoa(int(c.port())), "-n", "10", "-m", "2", "-l", "171", "-u", "tester", "-W", secret, "127.0.0.1")
			out, err := exec.CommandContext(ctx, tool, args...).CombinedOutput()
			whole := err == nil && strings.Contains(string(out), "Total lost packets 0 (0.000000%)")
			if !whole && !partial || c.used != nil && !c.used(s, string(out)) {
				t.Errorf("turnutils_uclient %s: %v\n%s", strings.Join(args, " "), err, out)
			}
		})
	}
}

func TestHandedOverConnectionIsServed(t *testing.T) {
	s := start(t, testConfig())
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if conn, err := ln.Accept(); err == nil {
			s.ServeConn(conn)
		}
	}()
	c := s.raw(t, "udp")
	if c.conn, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if code := c.allocate(); code != 0 {
		t.Error(code)
	}
	c.conn.Close()
	<-done
	eventually(t, "the allocation ends with its connection", func() bool { return s.AllocationCount() == 0 })
}

// TestCoturnsNATDiscoveryRunsAgainstUs is the black-box check of RFC 5780. On loopback there is no NAT, and that is what must come out.
func TestCoturnsNATDiscoveryRunsAgainstUs(t *testing.T) {
	tool, err := exec.LookPath("turnutils_natdiscovery")
	if err != nil {
		if os.Getenv("TRUNKBOARD_TEST_REQUIRED") != "" {
			t.Fatal("turnutils_natdiscovery is not installed (Debian package coturn); make deps installs it")
		}
		t.Skip("turnutils_natdiscovery is not installed (Debian package coturn)")
	}
	s, first := discoverable(t)
	for _, c := range []struct {
		flags []string
		want  string
	}{
		{[]string{"-m"}, "NAT with Endpoint Independent Mapping!"},
		{[]string{"-m", "-P"}, "NAT with Endpoint Independent Mapping!"},
		{[]string{"-f"}, "NAT with Endpoint Independent Filtering!"},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		args := append(append([]string(nil), c.flags...), "-p", strconv.Itoa(int(first.Port())), "-L", "127.0.0.1", first.Addr().String())
		out, err := exec.CommandContext(ctx, tool, args...).CombinedOutput()
		cancel()
		if err != nil || !strings.Contains(string(out), c.want) {
			t.Errorf("turnutils_natdiscovery %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	if s.counts.bindings.Load() == 0 {
		t.Error("nothing was answered")
	}
}
