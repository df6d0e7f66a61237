// SPDX-License-Identifier: Apache-2.0

package livekit

import (
	"bytes"
	"math"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"
	"github.com/trunkboard/trunkboard/sfu"
	"github.com/trunkboard/trunkboard/sfu/livekit/wire"
	"google.golang.org/protobuf/proto"
)

var loopback = netip.MustParseAddrPort("127.0.0.1:0")

// answered gives what the server would answer to a request if it decoded it, nil if it is no ping.
func answered(t testing.TB, b []byte, now time.Time) []byte {
	var in wire.SignalRequest
	if proto.Unmarshal(b, &in) != nil {
		return nil
	}
	out := &wire.SignalResponse{}
	switch m := in.GetMessage().(type) {
	case *wire.SignalRequest_Ping:
		out.Message = &wire.SignalResponse_Pong{Pong: now.UnixMilli()}
	case *wire.SignalRequest_PingReq:
		out.Message = &wire.SignalResponse_PongResp{PongResp: &wire.Pong{LastPingTimestamp: m.PingReq.GetTimestamp(), Timestamp: now.UnixMilli()}}
	default:
		return nil
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// pings are requests that clients ping with.
func pings(t testing.TB) (out [][]byte) {
	for _, at := range []int64{0, 1, 1_790_000_000_000, math.MaxInt64, -1} {
		for _, m := range []*wire.SignalRequest{
			{Message: &wire.SignalRequest_Ping{Ping: at}},
			{Message: &wire.SignalRequest_PingReq{PingReq: &wire.Ping{Timestamp: at}}},
			{Message: &wire.SignalRequest_PingReq{PingReq: &wire.Ping{Timestamp: at, Rtt: 12}}},
		} {
			b, err := proto.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, b)
		}
	}
	return out
}

func TestAPingIsAnsweredWithoutDecodingItAsIfItWereDecoded(t *testing.T) {
	now := time.UnixMilli(1_790_000_000_123)
	var room [longestPong]byte
	for _, b := range pings(t) {
		got, ok := pong(room[:0], b, now)
		if want := answered(t, b, now); !ok || !bytes.Equal(got, want) {
			t.Errorf("%x: %x %v, want %x", b, got, ok, want)
		}
		if n := testing.AllocsPerRun(100, func() { pong(room[:0], b, now) }); n != 0 {
			t.Errorf("%x: %v allocations", b, n)
		}
	}
	mute, err := proto.Marshal(&wire.SignalRequest{Message: &wire.SignalRequest_Mute{Mute: &wire.MuteTrackRequest{Sid: "TR_1"}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range [][]byte{nil, mute, append(mute, pings(t)[0]...), append(pings(t)[0], mute...), {0x70}, {0x82, 0x01, 0x05, 0x08}} {
		if got, ok := pong(room[:0], b, now); ok || len(got) > 0 {
			t.Errorf("%x is answered with %x", b, got)
		}
	}
}

// FuzzPong compares the short way with decoding: what it answers, it answers the same.
func FuzzPong(f *testing.F) {
	for _, b := range pings(f) {
		f.Add(b)
	}
	f.Add([]byte{0x82, 0x01, 0x04, 0x08, 0x01, 0x08, 0x02}) // a time twice
	f.Fuzz(func(t *testing.T, b []byte) {
		now := time.UnixMilli(1_790_000_000_123)
		got, ok := pong(nil, b, now)
		if !ok {
			if len(got) > 0 {
				t.Errorf("%x: %x is left behind", b, got)
			}
			return
		}
		if want := answered(t, b, now); !bytes.Equal(got, want) {
			t.Errorf("%x: got %x, want %x", b, got, want)
		}
	})
}

// TestAPongComesAfterWhatWasToBeSaidBefore: clients and tests take it for a sign that everything before it has been heard.
func TestAPongComesAfterWhatWasToBeSaidBefore(t *testing.T) {
	h := newHouse(t, nil)
	ws, _, err := dial(t, h, options{identity: "alice", room: "r", single: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ws.Close() }()
	readOne(t, ws)
	const rounds = 50
	for i := range rounds {
		for _, m := range []*wire.SignalRequest{
			{Message: &wire.SignalRequest_UpdateMetadata{UpdateMetadata: &wire.UpdateParticipantMetadata{Name: "x", RequestId: uint32(i + 1)}}},
			{Message: &wire.SignalRequest_PingReq{PingReq: &wire.Ping{Timestamp: int64(i + 1)}}},
		} {
			b, err := proto.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			if err := ws.WriteMessage(websocket.BinaryMessage, b); err != nil {
				t.Fatal(err)
			}
		}
	}
	var heard []int64
	for last := int64(0); last < rounds; {
		m := readOne(t, ws)
		if r := m.GetRequestResponse(); r != nil {
			heard = append(heard, int64(r.GetRequestId()))
		}
		if p := m.GetPongResp(); p != nil {
			last = p.GetLastPingTimestamp()
			heard = append(heard, -last)
		}
	}
	var want []int64
	for i := range int64(rounds) {
		want = append(want, i+1, -(i + 1))
	}
	if d := cmp.Diff(want, heard); d != "" {
		t.Error(d)
	}
}

func TestAClientThatFallsSilentIsCutOff(t *testing.T) {
	h := newHouse(t, func(_ *sfu.Config, c *Config) { c.PingTimeout = 50 * time.Millisecond })
	a, _ := enter(t, h, options{identity: "alice", room: "r", single: true})
	wait(t, a.closed, "the end of the connection")
	h.server.mu.Lock()
	defer h.server.mu.Unlock()
	if h.server.closed {
		t.Error("it was the server that ended it")
	}
}
