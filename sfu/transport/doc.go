// SPDX-License-Identifier: Apache-2.0

// Package transport carries media between the SFU and its clients. It is the only part of the SFU that names pion's modules, and it
// uses of them what is not on the path of a packet: DTLS, SCTP, and SRTP for what comes in.
//
//	                    +-- STUN --> ICE (lite): whose packet is this?          }
//	UDP port --> first  +-- DTLS --> pion/dtls --> SRTP keys, pion/sctp --> data }  Session, one per peer connection
//	             byte   +-- SRTP --> unsealed  --> Handler.RTP                  }
//	                                                  |
//	UDP port <-- sendmmsg, UDP_SEGMENT <-- Batch <----+   sealed in place, no copy and no allocation
//
// The SFU is always reachable and always the passive side, so ICE is the lite kind (RFC 8445 section 2.5): it answers checks and
// follows the client's nomination. It is always the DTLS server, so it chooses the SRTP profile: AES-GCM where the client can.
package transport
