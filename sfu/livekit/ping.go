// SPDX-License-Identifier: Apache-2.0

package livekit

import (
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// Fields of SignalRequest, SignalResponse, Ping and Pong: see wire/signal.proto.
const (
	requestPing     = 14
	requestPingReq  = 16
	responsePong    = 18
	responsePongReq = 20
	pingTimestamp   = 1
	pingTrip        = 2
	pongLast        = 1
	pongNow         = 2
)

// longestPong is the longest answer to a ping, in bytes.
const longestPong = 2 + 1 + 2*(1+10)

// pong appends the answer to the SignalRequest b, if b is a ping and nothing else; false if it is not. It is what decoding b, handling it
// and encoding the answer would give.
func pong(to, b []byte, now time.Time) ([]byte, bool) {
	number, kind, n := protowire.ConsumeTag(b)
	if n < 0 {
		return to, false
	}
	b = b[n:]
	switch {
	case number == requestPing && kind == protowire.VarintType:
		if _, n := protowire.ConsumeVarint(b); n != len(b) {
			return to, false
		}
		to = protowire.AppendTag(to, responsePong, protowire.VarintType)
		return protowire.AppendVarint(to, uint64(now.UnixMilli())), true
	case number == requestPingReq && kind == protowire.BytesType:
		ping, n := protowire.ConsumeBytes(b)
		if n != len(b) {
			return to, false
		}
		last, ok := timestamp(ping)
		if !ok {
			return to, false
		}
		to = protowire.AppendTag(to, responsePongReq, protowire.BytesType)
		size := varintField(pongNow, uint64(now.UnixMilli()))
		size += varintField(pongLast, last)
		to = protowire.AppendVarint(to, uint64(size))
		if last != 0 {
			to = protowire.AppendVarint(protowire.AppendTag(to, pongLast, protowire.VarintType), last)
		}
		return protowire.AppendVarint(protowire.AppendTag(to, pongNow, protowire.VarintType), uint64(now.UnixMilli())), true
	}
	return to, false
}

// varintField is the size of a field, which is left out if it is 0.
func varintField(number protowire.Number, v uint64) int {
	if v == 0 {
		return 0
	}
	return protowire.SizeTag(number) + protowire.SizeVarint(v)
}

// timestamp reads a Ping that has known fields only.
func timestamp(ping []byte) (v uint64, ok bool) {
	for len(ping) > 0 {
		number, kind, n := protowire.ConsumeTag(ping)
		if n < 0 || kind != protowire.VarintType || number != pingTimestamp && number != pingTrip {
			return 0, false
		}
		ping = ping[n:]
		x, n := protowire.ConsumeVarint(ping)
		if n < 0 {
			return 0, false
		}
		ping = ping[n:]
		if number == pingTimestamp {
			v = x
		}
	}
	return v, true
}
