// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"context"
	"net"
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
	s := start(t, cfg)
	peer := echoPair(t)
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
	secure := []string{"-t", "-S", "-i", filepath.Join(dir, "cert"), "-k", filepath.Join(dir, "key")}
	for _, c := range []struct {
		name  string
		flags []string
		port  uint16
	}{
		{"UDP, channels", nil, s.Addrs().UDP[0].Port()},
		{"UDP, no RTCP", []string{"-c"}, s.Addrs().UDP[0].Port()},
		{"UDP, Send", []string{"-s"}, s.Addrs().UDP[0].Port()},
		{"UDP, padded", []string{"-D"}, s.Addrs().UDP[0].Port()},
		{"UDP, extra requests", []string{"-G"}, s.Addrs().UDP[0].Port()},
		{"UDP, client to client", []string{"-y"}, s.Addrs().UDP[0].Port()},
		{"TCP, channels", []string{"-t"}, s.Addrs().TCP[0].Port()},
		{"TCP, Send", []string{"-t", "-s"}, s.Addrs().TCP[0].Port()},
		{"TLS, channels", secure, s.Addrs().TLS[0].Port()},
		{"TLS on the plain port, Send", append([]string{"-s"}, secure...), s.Addrs().TCP[0].Port()},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
			defer cancel()
			args := append(append([]string(nil), c.flags...), "-X", "-e", peer.Addr().String(), "-r", strconv.Itoa(int(peer.Port())),
				"-p", strconv.Itoa(int(c.port)), "-n", "10", "-m", "2", "-l", "171", "-u", "tester", "-W", secret, "127.0.0.1")
			out, err := exec.CommandContext(ctx, tool, args...).CombinedOutput()
			if err != nil || !strings.Contains(string(out), "Total lost packets 0 (0.000000%)") {
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
