// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pion/stun/v4"
)

// TestMain serves instead of testing where the flood below has started this program a second time, for its memory to be the server's alone.
func TestMain(m *testing.M) {
	if os.Getenv("TURN_TEST_SERVE") == "" {
		os.Exit(m.Run())
	}
	if err := serveAlone(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// serveAlone serves until its standard input ends.
func serveAlone() error {
	creds, err := NewCredentials(CredentialsConfig{Secrets: []string{secret}})
	if err != nil {
		return err
	}
	s, err := New(testConfig(), creds, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		return err
	}
	fmt.Println(s.Addrs().UDP[0])
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	return s.Run(ctx)
}

// resident is the memory of a process, in bytes.
func resident(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Skip("no /proc here")
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmRSS:" {
			n, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Fatalf("no VmRSS in %s", status)
	return 0
}

// raceDetected tells whether this was built with the race detector, whose memory is not the server's.
func raceDetected() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// serverAlone starts a server in a process of its own, and tells where it listens.
func serverAlone(t testing.TB) (pid int, at netip.AddrPort) {
	t.Helper()
	server := exec.Command(os.Args[0], "-test.run=^$")
	server.Env = append(os.Environ(), "TURN_TEST_SERVE=1")
	server.Stderr = os.Stderr
	in, err := server.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := server.Wait(); err != nil {
			t.Errorf("the server: %v", err)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if at, err = netip.ParseAddrPort(strings.TrimSpace(line)); err != nil {
		t.Fatal(err)
	}
	return server.Process.Pid, at
}

// TestAFloodFromTenThousandPortsAddsAtMostFiveMegabytes sends 100,000 requests without credentials from 10,000 ports of 250 addresses, as a forger
// would, to a server in a process of its own.
func TestAFloodFromTenThousandPortsAddsAtMostFiveMegabytes(t *testing.T) {
	pid, at := serverAlone(t)
	packets := [][]byte{
		stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodAllocate, stun.ClassRequest), wantUDP).Raw,
		stun.MustBuild(stun.TransactionID, stun.BindingRequest).Raw,
		stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodAllocate, stun.ClassRequest), wantUDP, stun.NewUsername("1:x"),
			stun.NewRealm("turn"), stun.NewNonce("AAAAAAAA"), stun.MessageIntegrity("k"), stun.Fingerprint).Raw,
		stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodRefresh, stun.ClassRequest), attr(attrMobilityTicket, make([]byte, 26)...)).Raw,
		{0x40, 0, 0, 4, 1, 2, 3, 4},
	}
	flood := func(ports int) {
		for i := range ports {
			from := net.UDPAddr{IP: net.IPv4(127, 0, byte(1+i/250%250), byte(1+i%250))}
			conn, err := net.DialUDP("udp4", &from, net.UDPAddrFromAddrPort(at))
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				for _, p := range packets {
					_, _ = conn.Write(p) // refused by a full buffer: all the same
				}
			}
			conn.Close()
		}
	}
	for range 5 {
		flood(1000) // what serving at all takes; one alone does not always bring the heap to its usual size
	}
	before := resident(t, pid)
	flood(10000)
	// The collector may just be behind, and runs every two minutes at the latest: what counts is what stays.
	const most = 5 << 20
	after := resident(t, pid)
	for end := time.Now().Add(150 * time.Second); after > before+most && time.Now().Before(end); after = resident(t, pid) {
		time.Sleep(100 * time.Millisecond) // of another process: there is nothing to wait for
	}
	t.Logf("%.1f MB before, %.1f MB after", float64(before)/(1<<20), float64(after)/(1<<20))
	if after > before+most && !raceDetected() {
		t.Errorf("memory grew from %d to %d bytes", before, after)
	}
	// Somebody with credentials gets through while it goes on.
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		conn, err := net.Dial("udp4", at.String())
		if err != nil {
			return
		}
		defer conn.Close()
		for {
			select {
			case <-stop:
				return
			default:
				_, _ = conn.Write(packets[0])
			}
		}
	}()
	creds, err := NewCredentials(CredentialsConfig{Secrets: []string{secret}})
	if err != nil {
		t.Fatal(err)
	}
	cred := creds.Issue("@alice:example.org", "d", time.Hour)
	c := &rawClient{t: t, username: cred.Username, password: cred.Credential}
	local := net.UDPAddr{IP: net.IPv4(127, 0, 255, 1)} // not the address of the flood, whose answers are limited
	if c.conn, err = net.DialUDP("udp4", &local, net.UDPAddrFromAddrPort(at)); err != nil {
		t.Fatal(err)
	}
	defer c.conn.Close()
	deadline := time.Now().Add(time.Minute)
	for c.allocate() != 0 {
		if time.Now().After(deadline) {
			t.Error("a client with credentials gets no allocation")
			break
		}
	}
	close(stop)
	<-stopped
	if code := c.ask(stun.MethodRefresh, attr(stun.AttrLifetime, 0, 0, 0, 0)); code != 0 {
		t.Errorf("Refresh: %d", code)
	}
}

// TestNamesThatArePiecesOfLanguagesAreOnlyNames has names that are something to a database, a format or a terminal.
func TestNamesThatArePiecesOfLanguagesAreOnlyNames(t *testing.T) {
	s := start(t, testConfig())
	until := strconv.FormatInt(time.Now().Add(time.Hour).Unix(), 10) + ":"
	for _, name := range []string{"%s%n%x%d", "x'; DROP TABLE users; --", `x" OR ""="`, "$(reboot)", "`id`", "../../etc/passwd", "a\r\nSET x 1\r\n", "\x1b[2J", "\x00", "é\xff\xfe", "{{.}}", "*"} {
		c := s.raw(t, "udp")
		c.username, c.password = until+name, password(secret, until+name)
		if code := c.allocate(); code != 0 {
			t.Errorf("%q with its password: %d", name, code)
		}
		stranger := s.raw(t, "udp")
		stranger.username, stranger.password = until+name, password("guess", until+name)
		if code := stranger.allocate(); code != 401 {
			t.Errorf("%q with another: %d, want 401", name, code)
		}
		realm := s.raw(t, "udp")
		realm.allocate()
		realm.realm = name
		if code := realm.askOnce(stun.MethodRefresh); code != 401 {
			t.Errorf("realm %q: %d, want 401", name, code)
		}
	}
}
