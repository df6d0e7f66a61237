// SPDX-License-Identifier: Apache-2.0

// Package matrixrtc holds what Matrix says about group calls (MSC4143, MSC4195) and an SFU does not know: how members and slots of a
// room are called in the SFU, what a membership event says, which calls go on in which room, and the delayed events that end a
// membership when its client has gone.
//
// It does no I/O: rooms bring it events, the SFU tells it who comes and goes, and delayed events are worked through an interface.
package matrixrtc

// RoomSlot is the slot of a room's ordinary call (MSC4196).
const RoomSlot = "m.call#ROOM"
