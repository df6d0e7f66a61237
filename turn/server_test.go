// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/pion/stun/v4"
	pion "github.com/pion/turn/v5"

	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/clocktest"
	"github.com/trunkboard/trunkboard/turn/relay"
)

var engines = []relay.Engine{relay.Portable, relay.Linux}

const secret = "a shared secret of the tests"

var loopback = netip.MustParseAddr("127.0.0.1")

// newClock is a clock that only moves when told.
func newClock() *clocktest.Clock { return clocktest.At(time.Unix(1800000000, 0)) }

// testServer is a running server on loopback whose relays may reach 127.0.0.1.
type testServer struct {
	*Server
	creds *Credentials
	clock signalling.Clock
}

func testConfig() Config {
	return Config{
		ListenUDP: []string{"127.0.0.1:0"}, ListenTCP: []string{"127.0.0.1:0"},
		Relays: []RelayAddress{{Local: loopback}}, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")},
		ListenDTLS: []string{}, UserQuota: -1,
	}
}

func start(t testing.TB, cfg Config) *testServer {
	t.Helper()
	if cfg.Clock == nil {
		cfg.Clock = signalling.SystemClock{}
	}
	creds, err := NewCredentials(CredentialsConfig{Secrets: []string{secret}, Clock: cfg.Clock})
	if err != nil {
		t.Fatal(err)
	}
	level := slog.LevelWarn
	if testing.Verbose() && os.Getenv("TURN_TEST_DEBUG") != "" {
		level = slog.LevelDebug
	}
	s, err := New(cfg, creds, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		for i, p := range append(append(append(append([]*relay.Ports(nil), s.ports[0]...), s.ports[1]...), s.tcpPorts[0]...), s.tcpPorts[1]...) {
			if want := int(s.cfg.MaxPort) - int(s.cfg.MinPort) + 1; p.Free() != want {
				t.Errorf("range %d: %d of %d relay ports are free after the end", i, p.Free(), want)
			}
		}
		if n := s.AllocationCount(); n != 0 {
			t.Errorf("%d allocations are left after the end", n)
		}
	})
	return &testServer{Server: s, creds: creds, clock: cfg.Clock}
}

// certificate is a self-signed one for 127.0.0.1.
func certificate(t testing.TB) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	return &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &cert, nil }}
}

// dial opens the client's side of a transport.
func (s *testServer) dial(t testing.TB, transport string) net.PacketConn {
	t.Helper()
	var conn net.Conn
	var err error
	switch transport {
	case "udp":
		pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { pc.Close() })
		return pc
	case "tcp":
		conn, err = net.Dial("tcp", s.Addrs().TCP[0].String())
	case "tls":
		conn, err = tls.Dial("tcp", s.Addrs().TLS[0].String(), &tls.Config{InsecureSkipVerify: true})
	case "tls on the plain port":
		conn, err = tls.Dial("tcp", s.Addrs().TCP[0].String(), &tls.Config{InsecureSkipVerify: true})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return pion.NewSTUNConn(conn)
}

// client makes a client of another implementation.
func (s *testServer) client(t testing.TB, transport string) *pion.Client {
	t.Helper()
	cred := s.creds.Issue("@alice:example.org", "DEVICE", time.Hour)
	server := s.Addrs().UDP[0].String()
	if transport != "udp" {
		server = s.Addrs().TCP[0].String()
	}
	c, err := pion.NewClient(&pion.ClientConfig{
		STUNServerAddr: server, TURNServerAddr: server, Conn: s.dial(t, transport),
		Username: cred.Username, Password: cred.Credential,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if err := c.Listen(); err != nil {
		t.Fatal(err)
	}
	return c
}

// echo answers every packet with the same until the test ends.
func echo(t testing.TB) netip.AddrPort {
	t.Helper()
	addr, err := echoOn(t, 0)
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// echoPair is two of them on neighbouring ports, for RTP and RTCP; it returns the lower one.
func echoPair(t testing.TB) netip.AddrPort {
	t.Helper()
	for range 100 {
		first := echo(t)
		if _, err := echoOn(t, int(first.Port())+1); err == nil {
			return first
		}
	}
	t.Fatal("no two neighbouring ports are free")
	return netip.AddrPort{}
}

func echoOn(t testing.TB, port int) (netip.AddrPort, error) {
	return echoAt(t, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
}

// echo6 is an echo on ::1.
func echo6(t testing.TB) (netip.AddrPort, error) {
	return echoAt(t, &net.UDPAddr{IP: net.IPv6loopback})
}

func echoAt(t testing.TB, at *net.UDPAddr) (netip.AddrPort, error) {
	pc, err := net.ListenUDP("udp", at)
	if err != nil {
		return netip.AddrPort{}, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 65536)
		for {
			n, from, err := pc.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if _, err := pc.WriteToUDPAddrPort(buf[:n], from); err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { pc.Close(); <-done })
	return pc.LocalAddr().(*net.UDPAddr).AddrPort(), nil
}

func TestPacketsGoToThePeerAndBackOverEveryTransport(t *testing.T) {
	for _, engine := range engines {
		for _, transport := range []string{"udp", "tcp", "tls", "tls on the plain port"} {
			t.Run(string(engine)+" "+transport, func(t *testing.T) {
				cfg := testConfig()
				cfg.Engine, cfg.TLS, cfg.ListenTLS = string(engine), certificate(t), []string{"127.0.0.1:0"}
				s := start(t, cfg)
				c := s.client(t, transport)
				if _, err := c.SendBindingRequest(); err != nil {
					t.Fatal(err)
				}
				conn, err := c.Allocate()
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				if n := s.AllocationCount(); n != 1 {
					t.Fatalf("%d allocations", n)
				}
				peer := net.UDPAddrFromAddrPort(echo(t))
				buf := make([]byte, 65536)
				// The client uses Send indications until its ChannelBind is answered, so both ways are taken; all lengths modulo 4.
				for i := range 50 {
					want := fmt.Sprintf("packet %d%s", i, "...."[:i%4])
					if _, err := conn.WriteTo([]byte(want), peer); err != nil {
						t.Fatal(err)
					}
					_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
					n, from, err := conn.ReadFrom(buf)
					if err != nil {
						t.Fatalf("packet %d: %v", i, err)
					}
					if string(buf[:n]) != want || from.String() != peer.String() {
						t.Fatalf("got %q from %v", buf[:n], from)
					}
				}
				eventually(t, "50 packets counted", func() bool { return s.plane.Counts.ToClient.Packets.Load() == 50 })
			})
		}
	}
}

// eventually waits for what the server does after it has answered.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("not in a minute: %s", what)
		}
	}
}

func TestFiveHundredAllocationsAreSetUpAtOnce(t *testing.T) {
	for _, engine := range engines {
		t.Run(string(engine), func(t *testing.T) {
			cfg := testConfig()
			cfg.Engine = string(engine)
			s := start(t, cfg)
			peer := echo(t)
			const n = 500
			conns := make([]*rawClient, n)
			for i := range conns {
				conns[i] = s.raw(t, "udp")
			}
			began := time.Now()
			errs := make(chan error, n)
			for i := range n {
				go func() {
					c := conns[i]
					if code := c.allocate(); code != 0 {
						errs <- fmt.Errorf("Allocate: %d", code)
						return
					}
					if code := c.bind(0x4000, peer); code != 0 {
						errs <- fmt.Errorf("ChannelBind: %d", code)
						return
					}
					// The one echo peer may drop some when 500 packets come at once, as any peer may.
					for range 20 {
						c.write([]byte{0x40, 0x00, 0, 4, 'p', 'i', 'n', 'g'})
						if p, err := c.read(500 * time.Millisecond); err == nil && len(p) == 8 && string(p[4:8]) == "ping" {
							errs <- nil
							return
						}
					}
					errs <- errors.New("no echo")
				}()
			}
			for range n {
				if err := <-errs; err != nil {
					t.Error(err)
				}
			}
			t.Logf("%d allocations with a channel and an echo in %v", n, time.Since(began))
			if got := s.AllocationCount(); got != n {
				t.Errorf("%d allocations", got)
			}
		})
	}
}

// rawClient speaks STUN message by message, so that a test can say what no sane client would.
type rawClient struct {
	t        testing.TB
	conn     net.Conn
	username string
	password string
	realm    string
	nonce    []byte
	relayed  netip.AddrPort
	last     *stun.Message
}

func (s *testServer) raw(t testing.TB, transport string) *rawClient {
	t.Helper()
	cred := s.creds.Issue("@alice:example.org", "DEVICE", time.Hour)
	c := &rawClient{t: t, username: cred.Username, password: cred.Credential}
	var err error
	if transport == "udp" {
		c.conn, err = net.Dial("udp", s.Addrs().UDP[0].String())
	} else {
		c.conn, err = net.Dial("tcp", s.Addrs().TCP[0].String())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.conn.Close() })
	return c
}

func (c *rawClient) write(p []byte) {
	if _, err := c.conn.Write(p); err != nil {
		c.t.Error(err)
	}
}

func (c *rawClient) read(within time.Duration) ([]byte, error) {
	_ = c.conn.SetReadDeadline(time.Now().Add(within))
	buf := make([]byte, 70000)
	n, err := c.conn.Read(buf)
	return buf[:n], err
}

// ask sends a request once for each answer that only asks for other credentials, and gives the error code of the answer, 0 for
// success, -1 for none.
func (c *rawClient) ask(method stun.Method, attrs ...stun.Setter) int {
	for range 3 {
		code := c.askOnce(method, attrs...)
		if code != 401 && code != 438 || !c.challenged() {
			return code
		}
	}
	return 401
}

// challenged takes the realm and nonce of the last answer and tells whether they are new.
func (c *rawClient) challenged() bool {
	var realm stun.Realm
	var nonce stun.Nonce
	if realm.GetFrom(c.last) != nil || nonce.GetFrom(c.last) != nil || string(nonce) == string(c.nonce) {
		return false
	}
	c.realm, c.nonce = string(realm), nonce
	return true
}

func (c *rawClient) build(method stun.Method, attrs ...stun.Setter) *stun.Message {
	set := append([]stun.Setter{stun.TransactionID, stun.NewType(method, stun.ClassRequest)}, attrs...)
	if c.nonce != nil {
		set = append(set, stun.NewUsername(c.username), stun.NewRealm(c.realm), stun.Nonce(c.nonce),
			stun.NewLongTermIntegrity(c.username, c.realm, c.password))
	}
	return stun.MustBuild(append(set, stun.Fingerprint)...)
}

func (c *rawClient) askOnce(method stun.Method, attrs ...stun.Setter) int {
	return c.exchange(c.build(method, attrs...))
}

func (c *rawClient) exchange(m *stun.Message) int {
	for range 8 {
		c.write(m.Raw)
		for {
			p, err := c.read(500 * time.Millisecond)
			if err != nil {
				break
			}
			r := &stun.Message{Raw: p}
			if r.Decode() != nil || r.TransactionID != m.TransactionID {
				continue
			}
			c.last = r
			if r.Type.Class == stun.ClassSuccessResponse {
				return 0
			}
			var code stun.ErrorCodeAttribute
			if code.GetFrom(r) != nil {
				return -1
			}
			return int(code.Code)
		}
	}
	return -1
}

func attr(t stun.AttrType, v ...byte) stun.Setter {
	return stun.RawAttribute{Type: t, Length: uint16(len(v)), Value: v}
}

var (
	wantUDP = attr(stun.AttrRequestedTransport, 17, 0, 0, 0)
	wantTCP = attr(stun.AttrRequestedTransport, 6, 0, 0, 0)
)

func (c *rawClient) allocate(attrs ...stun.Setter) int {
	code := c.ask(stun.MethodAllocate, append([]stun.Setter{wantUDP}, attrs...)...)
	if code == 0 {
		var a stun.XORMappedAddress
		if a.GetFromAs(c.last, stun.AttrXORRelayedAddress) != nil {
			return -1
		}
		ip, _ := netip.AddrFromSlice(a.IP)
		c.relayed = netip.AddrPortFrom(ip.Unmap(), uint16(a.Port))
	}
	return code
}

// peerAttr is XOR-PEER-ADDRESS in the family of the address as it is, IPv4-mapped included.
type peerAttr netip.AddrPort

func (p peerAttr) AddTo(m *stun.Message) error {
	a := netip.AddrPort(p)
	port := a.Port() ^ 0x2112
	v := []byte{0, 1, byte(port >> 8), byte(port)}
	mask := append([]byte{0x21, 0x12, 0xA4, 0x42}, m.TransactionID[:]...)
	if a.Addr().Is6() {
		v[1] = 2
	}
	for i, b := range a.Addr().AsSlice() {
		v = append(v, b^mask[i])
	}
	m.Add(stun.AttrXORPeerAddress, v)
	return nil
}

func (c *rawClient) permit(peer netip.AddrPort) int {
	return c.ask(stun.MethodCreatePermission, peerAttr(peer))
}

func (c *rawClient) bind(channel uint16, peer netip.AddrPort) int {
	return c.ask(stun.MethodChannelBind, attr(stun.AttrChannelNumber, byte(channel>>8), byte(channel), 0, 0), peerAttr(peer))
}

func (c *rawClient) sendTo(peer netip.AddrPort, data string) {
	m := stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodSend, stun.ClassIndication), peerAttr(peer), attr(stun.AttrData, []byte(data)...))
	c.write(m.Raw)
}
