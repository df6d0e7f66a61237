// SPDX-License-Identifier: Apache-2.0

package relay

import "sync/atomic"

// Traffic counts what was relayed in one direction. Bytes are payload bytes, without the headers of TURN.
type Traffic struct {
	Packets atomic.Uint64
	Bytes   atomic.Uint64
}

// Add counts packets and bytes.
func (t *Traffic) Add(packets, bytes int) { t.add(packets, bytes) }

func (t *Traffic) add(packets, bytes int) {
	t.Packets.Add(uint64(packets))
	t.Bytes.Add(uint64(bytes))
}

// Drop is why a packet was not relayed.
type Drop int

// Reasons to drop.
const (
	DropUnknown      Drop = iota // neither STUN nor ChannelData, or damaged
	DropNoChannel                // ChannelData on a channel that is not bound, or is bound no more
	DropNoPermission             // the peer is not permitted, or is permitted no more
	DropOwnPort                  // towards our own host, to a port that is no relay
	DropFull                     // a socket's or a connection's buffer was full
	DropBandwidth                // over the bandwidth of the user, the realm or the server
	DropICMP                     // an ICMP error that was not passed on
	drops
)

// Drops names every reason, in the order of the constants.
var Drops = [drops]string{"unknown_packet", "no_channel", "no_permission", "own_port", "buffer_full", "bandwidth", "icmp"}

// Counts is what a plane has done since it was made.
type Counts struct {
	ToPeer   Traffic // client to peer
	ToClient Traffic // peer to client
	Dropped  [drops]atomic.Uint64
}

func (c *Counts) drop(why Drop, n int) {
	if n > 0 {
		c.Dropped[why].Add(uint64(n))
	}
}
