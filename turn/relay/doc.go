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
// Every socket has one goroutine that waits in the runtime's network poller and holds no buffer while it waits. When it wakes,
// it takes a batch of buffers, reads what is there without blocking, handles it on the spot, and waits again. The control plane
// runs in the same goroutine as the listener it answers on, so there is no queue between the two planes that could fill up, and no
// thread that keeps the processor to itself.
//
// # Engines
//
// "portable" reads and writes one packet per system call through package net. "linux" reads with recvmmsg and writes with
// sendmmsg and UDP segmentation offload. Both sit behind Socket; the tests run on both.
package relay
