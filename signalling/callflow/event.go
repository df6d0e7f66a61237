// SPDX-License-Identifier: Apache-2.0

package callflow

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/trunkboard/trunkboard/signalling"
)

// Event types of a call. The org.matrix forms are what clients sent before the stable ones.
const (
	TypeInvite              = "m.call.invite"
	TypeCandidates          = "m.call.candidates"
	TypeAnswer              = "m.call.answer"
	TypeSelectAnswer        = "m.call.select_answer"
	TypeReject              = "m.call.reject"
	TypeHangup              = "m.call.hangup"
	TypeNegotiate           = "m.call.negotiate"
	TypeMetadataChanged     = "m.call.sdp_stream_metadata_changed"
	TypeMetadataChangedOld  = "org.matrix.call.sdp_stream_metadata_changed"
	TypeReplaces            = "m.call.replaces"          // MSC2747
	TypeAssertedIdentity    = "m.call.asserted_identity" // MSC3086
	TypeAssertedIdentityOld = "org.matrix.call.asserted_identity"
)

const (
	maxID              = 255 // bytes of a call_id or party_id: "Grammar for VoIP IDs"; of a user ID too
	metadataField      = "sdp_stream_metadata"
	metadataFieldOld   = "org.matrix.msc3077.sdp_stream_metadata"
	fallbackLifetime   = time.Minute // of an invite whose lifetime says nothing
	defaultMaxLifetime = 10 * time.Minute
)

// IsCall says whether events of this type are of interest to a Tracker and to Validate.
func IsCall(eventType string) bool {
	switch eventType {
	case TypeInvite, TypeCandidates, TypeAnswer, TypeSelectAnswer, TypeReject, TypeHangup, TypeNegotiate,
		TypeMetadataChanged, TypeMetadataChangedOld, TypeReplaces, TypeAssertedIdentity, TypeAssertedIdentityOld:
		return true
	}
	return false
}

// Event is an m.call.* event that a room has accepted.
type Event struct {
	RoomID   string
	EventID  string
	Sender   string
	DeviceID string // of a local sender; empty when unknown
	Type     string
	Content  json.RawMessage
	Sent     time.Time // origin_server_ts, which is only the sender's word; may be zero
	Received time.Time // when this server took the event
}

// fields is a JSON object read one level deep. Names are compared exactly, unlike in encoding/json's structs.
type fields map[string]json.RawMessage

func object(raw json.RawMessage) (fields, bool) {
	var f fields
	if json.Unmarshal(raw, &f) != nil || f == nil {
		return nil, false
	}
	return f, true
}

// has says whether the field is there; null counts as absent.
func (f fields) has(name string) bool {
	raw, ok := f[name]
	return ok && string(raw) != "null"
}

func (f fields) text(name string) (string, bool) {
	var s string
	if !f.has(name) || json.Unmarshal(f[name], &s) != nil {
		return "", false
	}
	return s, true
}

func (f fields) object(name string) (fields, bool) {
	if !f.has(name) {
		return nil, false
	}
	return object(f[name])
}

func (f fields) number(name string) (float64, bool) {
	raw := string(f[name])
	if raw == "" || (raw[0] != '-' && (raw[0] < '0' || raw[0] > '9')) {
		return 0, false
	}
	n, err := strconv.ParseFloat(raw, 64)
	if err != nil && math.IsInf(n, 0) {
		return n, true // 1e999 is a number, only a large one
	}
	return n, err == nil
}

// old says whether an event is of version 0, the integer. Without any version, a party_id tells.
func (f fields) old() bool {
	if !f.has("version") {
		return !f.has("party_id")
	}
	n, ok := f.number("version")
	return ok && n == 0
}

// reason is why a party goes. It is kept in records, so it is not allowed to be long.
func (f fields) reason(missing string) string {
	reason, ok := f.text("reason")
	switch {
	case !ok || reason == "":
		return missing
	case len(reason) > maxID:
		return "unknown_error"
	}
	return reason
}

// party is who sent the event: in version 0 the user, later the user and the party_id.
func (f fields) party(ev Event) signalling.Party {
	p := signalling.Party{UserID: ev.Sender, DeviceID: ev.DeviceID}
	if !f.old() {
		p.PartyID, _ = f.text("party_id")
	}
	return p
}

// lifetime is how long an invite lasts, clamped to (0, most].
func (f fields) lifetime(most time.Duration) time.Duration {
	ms, ok := f.number("lifetime")
	if !ok || !(ms > 0) {
		return min(fallbackLifetime, most)
	}
	if ms >= float64(most/time.Millisecond) {
		return most
	}
	return max(time.Millisecond, time.Duration(ms*float64(time.Millisecond)))
}

// video says whether the event speaks of moving pictures: an SDP that sends video, or a stream described as showing some.
func (f fields) video() bool {
	for _, name := range []string{"offer", "answer", "description"} {
		if d, ok := f.object(name); ok {
			if sdp, ok := d.text("sdp"); ok && sendsVideo(sdp) {
				return true
			}
		}
	}
	for _, name := range []string{metadataField, metadataFieldOld} {
		streams, _ := f.object(name)
		for id := range streams {
			s, _ := streams.object(id)
			if purpose, _ := s.text("purpose"); purpose == "m.screenshare" {
				return true
			}
			// Only an explicit false counts: clients leave the field out for streams that never had video.
			if string(s["video_muted"]) == "false" {
				return true
			}
		}
	}
	return false
}

// sendsVideo looks for a video section (RFC 8866, 5.14) with a port and a direction that sends.
func sendsVideo(sdp string) bool {
	video, silent := false, false
	for line := range strings.Lines(sdp) {
		line = strings.TrimRight(line, "\r\n")
		if media, ok := strings.CutPrefix(line, "m="); ok {
			if video && !silent {
				return true
			}
			video = strings.HasPrefix(media, "video ") && !strings.HasPrefix(media, "video 0 ")
			silent = false
		}
		if line == "a=recvonly" || line == "a=inactive" {
			silent = true
		}
	}
	return video && !silent
}

// InviteLive says whether an invite of this content still rings at this age: for push, which stays silent about calls that are
// over. Lifetimes are clamped to 10 minutes.
func InviteLive(content json.RawMessage, age time.Duration) bool {
	f, ok := object(content)
	return ok && age < f.lifetime(defaultMaxLifetime)
}

// InviteLifetime is how long an invite of this content rings, clamped as InviteLive does; 0 for what is no object.
func InviteLifetime(content json.RawMessage) time.Duration {
	f, ok := object(content)
	if !ok {
		return 0
	}
	return f.lifetime(defaultMaxLifetime)
}
