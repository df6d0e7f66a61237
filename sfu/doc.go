// SPDX-License-Identifier: Apache-2.0

// Package sfu is a selective forwarding unit: rooms in which participants publish audio and video tracks and receive those of the
// others. It knows neither Matrix nor LiveKit; a signalling protocol (sfu/livekit) joins participants, passes their session
// descriptions in, and carries Events back to them.
//
//	Engine --> Room --> Participant --> connection (one or two) --> transport.Session
//	                        |  \                                         |
//	                        |   Subscription --> forward.Leg  <----------+ out
//	                        Track --> forward.Source  <------------------+ in
//
// A room's lock guards who is in it, what they publish and subscribe to, and the sections of their descriptions. Packets do not take
// it: they go from a session to a source to its legs.
package sfu
