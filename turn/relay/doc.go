// SPDX-License-Identifier: Apache-2.0

// Package relay is the data plane of the TURN server: it moves packets between clients and peers and knows nothing of
// authentication. The control plane (package turn) opens sessions, permits peers and binds channels; the data plane looks up and
// forwards.
//
//	client ──UDP──▶ Listener ─ Table[client address] ─▶ Session ─ channel ─▶ Flow ─▶ Relay socket ──▶ peer
//	client ◀──UDP── ClientSink ◀─ header written into the headroom ◀─ Flow ◀─ Session ◀─ Relay socket ◀── peer
//
// Readers never lock a session: channels, peers and permissions are an immutable snapshot behind an atomic pointer, replaced by
// the control plane on every bind or permission; refreshing one only moves its expiry. Nothing is allocated per packet.
//
// # Waiting
//
// With the linux engine a few loops, one for each processor, serve all sockets. A loop waits until some of them can be read, reads
// batches without blocking, handles them on the spot, and waits again; while packets come often it lets them gather for a fraction of a
// millisecond first. The control plane runs in the same goroutine as the listener it answers on, and the relay sockets of an
// allocation are served by the loop of the socket that the client sends to, so there is no queue between the two planes that could fill
// up, and nothing to wake. A socket costs its descriptor and a slot in a table, not a goroutine.
//
// # Engines
//
// "portable" reads and writes one packet per system call through package net, each socket in a goroutine of its own. "linux" reads
// with recvmmsg and writes with sendmmsg and UDP segmentation offload. Both sit behind Socket; the tests run on both.
package relay
