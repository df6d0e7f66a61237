// SPDX-License-Identifier: Apache-2.0

package packets

import "encoding/binary"

// VP8 is the payload descriptor of a VP8 packet (RFC 7741 section 4.2) with the places of the fields that a forwarder rewrites.
// Everything after the descriptor may be end-to-end encrypted; the frame type bit stays readable.
type VP8 struct {
	Size     int  // bytes of the descriptor
	Start    bool // first packet of a frame's first partition
	KeyFrame bool // Start, and the frame is a key frame

	PictureID     uint16
	PictureIDSize int // 0, 1 or 2 bytes
	pictureID     int // where it stands

	TL0    uint8
	HasTL0 bool
	tl0    int

	TID  uint8 // temporal layer, 0 without
	Sync bool  // of an upper temporal layer: the frame needs nothing but the base layer
}

// Parse reads the descriptor at the start of payload; false if it is cut short.
func (v *VP8) Parse(payload []byte) bool {
	*v = VP8{}
	if len(payload) == 0 {
		return false
	}
	first := payload[0]
	v.Start = first&0x10 != 0 && first&0x07 == 0
	v.Size = 1
	if first&0x80 != 0 {
		if len(payload) < 2 {
			return false
		}
		bits := payload[1]
		v.Size = 2
		if bits&0x80 != 0 { // I
			if len(payload) < v.Size+1 {
				return false
			}
			v.pictureID = v.Size
			if payload[v.Size]&0x80 != 0 {
				if len(payload) < v.Size+2 {
					return false
				}
				v.PictureIDSize = 2
				v.PictureID = binary.BigEndian.Uint16(payload[v.Size:]) & 0x7FFF
			} else {
				v.PictureIDSize = 1
				v.PictureID = uint16(payload[v.Size])
			}
			v.Size += v.PictureIDSize
		}
		if bits&0x40 != 0 { // L
			if len(payload) < v.Size+1 {
				return false
			}
			v.HasTL0, v.TL0, v.tl0 = true, payload[v.Size], v.Size
			v.Size++
		}
		if bits&0x30 != 0 { // T or K
			if len(payload) < v.Size+1 {
				return false
			}
			if bits&0x20 != 0 {
				v.TID, v.Sync = payload[v.Size]>>6, payload[v.Size]&0x20 != 0
			}
			v.Size++
		}
	}
	// The P bit of the frame's first byte is 0 on a key frame (RFC 7741 section 4.3).
	v.KeyFrame = v.Start && len(payload) > v.Size && payload[v.Size]&0x01 == 0
	return true
}

// Rewrite puts another picture ID and TL0PICIDX into payload, which v was read from or is a copy of it. Lengths stay as they are, so
// packets of a frame stay equal in size.
func (v *VP8) Rewrite(payload []byte, pictureID uint16, tl0 uint8) {
	switch v.PictureIDSize {
	case 1:
		payload[v.pictureID] = byte(pictureID & 0x7F)
	case 2:
		binary.BigEndian.PutUint16(payload[v.pictureID:], pictureID|0x8000)
	}
	if v.HasTL0 {
		payload[v.tl0] = tl0
	}
}
