// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	pion "github.com/pion/turn/v5"

	"github.com/trunkboard/trunkboard/signalling/redistest"
)

// allocate makes an allocation over conn with credentials of a's own; release gives it back.
func allocate(t *testing.T, a *App, conn net.PacketConn, server string) (release func(), err error) {
	t.Helper()
	offer := a.relay.Issue("@ann:localhost", "PHONE")
	client, err := pion.NewClient(&pion.ClientConfig{
		TURNServerAddr: server, STUNServerAddr: server, Conn: conn, Username: offer.Username, Password: offer.Credential, Realm: a.cfg.TURN.Realm,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Listen(); err != nil {
		t.Fatal(err)
	}
	relayed, err := client.Allocate()
	if err != nil {
		client.Close()
		conn.Close()
		return nil, err
	}
	return func() {
		relayed.Close()
		client.Close()
		conn.Close()
	}, nil
}

func TestTURNAnswersOnTheHTTPSPortToo(t *testing.T) {
	leavesNothing(t)
	a, _ := start(t, testConfig(t, "tls.mode=self-signed", "turn.relay.addresses=127.0.0.1"))
	roots := x509.NewCertPool()
	roots.AddCert(a.authority.cert)
	for _, key := range []string{"listen.https", "turn.tls_listen"} {
		conn, err := tls.Dial("tcp", a.Addr(key), &tls.Config{RootCAs: roots})
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		release, err := allocate(t, a, pion.NewSTUNConn(conn), a.Addr(key))
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		if n := a.relay.server.AllocationCount(); n != 1 {
			t.Errorf("%s: %d allocations", key, n)
		}
		release()
	}
}

func TestDrainingWaitsForCallsAndTakesNoNewOnes(t *testing.T) {
	leavesNothing(t)
	a, stop := start(t, testConfig(t, "turn.relay.addresses=127.0.0.1", "shutdown.drain=1m"))
	dial := func() net.PacketConn {
		conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	release, err := allocate(t, a, dial(), a.Addr("turn.listen"))
	if err != nil {
		t.Fatal(err)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	for a.ready.Load() { // nobody tells when it goes off
		time.Sleep(time.Millisecond)
	}
	for {
		again, err := allocate(t, a, dial(), a.Addr("turn.listen"))
		if err != nil {
			if !strings.Contains(err.Error(), "508") {
				t.Errorf("refused with %v, want 508 Insufficient Capacity (RFC 8656 section 7.2)", err)
			}
			break
		}
		again() // between readiness going off and the drain
	}
	select {
	case err := <-stopped:
		t.Fatalf("stopped during a call: %v", err)
	default:
	}
	release()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestDrainingEndsInTime(t *testing.T) {
	leavesNothing(t)
	a, stop := start(t, testConfig(t, "turn.relay.addresses=127.0.0.1", "shutdown.drain=50ms"))
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	release, err := allocate(t, a, conn, a.Addr("turn.listen"))
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	select {
	case err := <-stopped:
		if err != nil {
			t.Error(err)
		}
	case <-ctx.Done():
		t.Error("a call that does not end holds the server up for ever")
	}
}

func TestClientsAreToldWhereTheRelayIs(t *testing.T) {
	a, _ := start(t, testConfig(t, "server_name=example.org", "tls.mode=self-signed", "turn.relay.addresses=127.0.0.1"))
	port := func(key string) string { return a.Addr(key)[strings.LastIndexByte(a.Addr(key), ':')+1:] }
	want := []string{
		"turn:example.org:" + port("turn.listen") + "?transport=udp",
		"turn:example.org:" + port("turn.listen/tcp") + "?transport=tcp",
		"turns:example.org:" + port("turn.tls_listen") + "?transport=tcp",
		"turns:example.org:" + port("listen.https") + "?transport=tcp",
	}
	if d := cmp.Diff(want, a.relay.Issue("@ann:example.org", "PHONE").URIs); d != "" {
		t.Error(d)
	}
	local, _ := start(t, testConfig(t, "turn.tls_listen="))
	if got := local.relay.Issue("@ann:localhost", "PHONE").URIs; len(got) != 2 || !strings.HasPrefix(got[0], "turn:127.0.0.1:") {
		t.Error(got)
	}
	if without, _ := start(t, testConfig(t), "homeserver"); without.relay != nil || without.Addr("turn.listen") != "" {
		t.Error("the relay runs although --only leaves it out")
	}
}

func TestTheRelayTellsRedisOfItsSessions(t *testing.T) {
	server := redistest.Start(t)
	a, stop := start(t, testConfig(t, "turn.relay.addresses=127.0.0.1", "redis.url="+server.URL(), "turn.options=status"), "turn")
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	release, err := allocate(t, a, conn, a.Addr("turn.listen"))
	if err != nil {
		t.Fatal(err)
	}
	keys := func() string { return server.Do("EVAL", "return #redis.call('keys', 'turn/realm/*/status')", "0") }
	await := func(want string) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); keys() != want; time.Sleep(10 * time.Millisecond) { // another program's memory
			if time.Now().After(deadline) {
				t.Fatalf("%s keys, want %s", keys(), want)
			}
		}
	}
	await(":1")
	release()
	await(":0")
	if err := stop(); err != nil {
		t.Error(err)
	}
	cfg := testConfig(t, "turn.options=status")
	if _, err := New(cfg, testLog(t), "turn"); err == nil || !strings.Contains(err.Error(), "redis.url") {
		t.Errorf("without a Redis: %v", err)
	}
}
