// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/trunkboard/trunkboard/turn"
)

// stunAnswers is a STUN server that says whatever it is told to: no NAT stands before loopback.
func stunAnswers(t *testing.T, mapped netip.AddrPort) string {
	t.Helper()
	pc, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if reply := turn.AnswerBinding(buf[:n], mapped); reply != nil {
				_, _ = pc.WriteToUDPAddrPort(reply, from)
			}
		}
	}()
	return pc.LocalAddr().String()
}

func TestTheExternalAddressIsFoundByItself(t *testing.T) {
	server := stunAnswers(t, netip.MustParseAddrPort("203.0.113.7:4711"))
	local, given := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("198.51.100.1")
	var logged bytes.Buffer
	log := slog.New(slog.NewTextHandler(&logged, nil))
	got, err := findExternal([]turn.RelayAddress{{Local: local}, {Local: local, External: given}, {Local: netip.MustParseAddr("1.1.1.1")}}, server, log)
	if err != nil || got[0].External.String() != "203.0.113.7" || got[1].External != given || got[2].External.IsValid() {
		t.Errorf("%v, %v", got, err)
	}
	closed, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer closed.Close() // open, but it says nothing
	got, err = findExternal([]turn.RelayAddress{{Local: local}}, closed.LocalAddr().String(), log)
	if err != nil || got[0].External.IsValid() || !strings.Contains(logged.String(), "level=WARN") {
		t.Errorf("silence: %v, %v\n%s", got, err, logged.String())
	}
	if _, err := findExternal(nil, "stun.example.org", log); err == nil {
		t.Error("a server without a port")
	}
}
