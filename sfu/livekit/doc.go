// SPDX-License-Identifier: Apache-2.0

// Package livekit serves LiveKit's client protocol on an sfu.Engine, so that its clients, and Element Call with them, work
// unchanged.
//
//	GET /rtc       WebSocket, two peer connections: the client offers the one it publishes on, the server the other
//	GET /rtc/v1    WebSocket, one peer connection; the join request, with the first offer inside, is a query parameter
//	GET /rtc/validate, /rtc/v1/validate   the same checks without a WebSocket, for a client that wants to know why it failed
//
// Frames are protobuf messages (binary) or their JSON form (text); the server answers in the form the client used last.
// A client's queue is bounded: one that does not read is cut off.
package livekit
