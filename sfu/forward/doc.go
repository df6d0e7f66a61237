// SPDX-License-Identifier: Apache-2.0

// Package forward copies the packets of one published track to its subscribers.
//
//	            Source                           Leg (one per subscriber)
//	rid q --> Layer 0 --+
//	rid h --> Layer 1 --+--> the packets of the layer a leg is on --> new SSRC, sequence number, timestamp, picture ID --> Out
//	rid f --> Layer 2 --+        (changed at a key frame only)
//
// A packet is parsed once, kept once (for retransmission, in the Layer's ring) and copied once per leg, straight into the slot it is
// sealed and sent from. Payload bytes after the codec's descriptor are never looked at: they may be end-to-end encrypted. Nothing
// here allocates per packet.
package forward
