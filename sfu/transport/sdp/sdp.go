// SPDX-License-Identifier: Apache-2.0

// Package sdp reads and writes session descriptions as WebRTC uses them (RFC 8866 and RFC 8829): as far as an SFU has to understand
// them, and no further. What it does not know it skips.
//
//	v=0, o=, s=, t=                      session
//	a=group:BUNDLE, a=ice-…, a=setup     for all media
//	m=audio … m=video … m=application    one Media each, in an order that never changes
package sdp

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Limits of a description that a client may send.
const (
	MaxSize     = 256 << 10
	maxMedia    = 256
	maxPerMedia = 512 // lines kept of one kind for one medium
)

// Description is one side's view of a connection.
type Description struct {
	User, Password string // ICE
	Fingerprint    string // "sha-256 AB:CD…"
	Setup          string // "actpass", "active" or "passive" (RFC 4145)
	Lite           bool
	MixedExtmap    bool
	Media          []Media
}

// Media is one m-section.
type Media struct {
	Kind      string // "audio", "video" or "application"
	MID       string
	Rejected  bool // port 0 and not bundle-only
	Direction string
	Codecs    []Codec
	Extmap    []Extension
	Stream    string // msid: the media stream …
	Track     string // … and the track
	SSRCs     []uint32
	Repair    map[uint32]uint32 // FID groups: RTX stream -> the stream it repairs
	CNAME     string
	RIDs      []string // of simulcast streams that are sent
	RIDsRecv  []string // of those that are received, written only

	SCTPPort   int
	MaxMessage int
}

// Directions of a section.
const (
	SendRecv = "sendrecv"
	SendOnly = "sendonly"
	RecvOnly = "recvonly"
	Inactive = "inactive"
)

// Sends and Receives tell what the describing side does.
func (m *Media) Sends() bool {
	return !m.Rejected && (m.Direction == SendRecv || m.Direction == SendOnly)
}
func (m *Media) Receives() bool {
	return !m.Rejected && (m.Direction == SendRecv || m.Direction == RecvOnly)
}

// Codec is one payload type.
type Codec struct {
	Type     uint8
	Name     string // as written: "opus", "VP8", "rtx"
	Clock    uint32
	Channels string // "" or "2"
	Format   string // a=fmtp
	Feedback []string
}

// Is reports whether the codec has that name; case does not matter.
func (c *Codec) Is(name string) bool { return strings.EqualFold(c.Name, name) }

// Apt is the payload type that an RTX codec repairs (RFC 4588 section 8).
func (c *Codec) Apt() (uint8, bool) {
	for p := range strings.SplitSeq(c.Format, ";") {
		if v, ok := strings.CutPrefix(strings.TrimSpace(p), "apt="); ok {
			n, err := strconv.ParseUint(v, 10, 7)
			return uint8(n), err == nil
		}
	}
	return 0, false
}

// Extension is one a=extmap line.
type Extension struct {
	ID  uint8
	URI string
}

// Find gives the number of the extension uri, 0 if it is not there.
func (m *Media) Find(uri string) uint8 {
	for _, e := range m.Extmap {
		if e.URI == uri {
			return e.ID
		}
	}
	return 0
}

// ErrFormat is wrapped by every error of Parse.
var ErrFormat = errors.New("sdp: broken description")

// Parse reads a description.
func Parse(text string) (*Description, error) {
	if len(text) > MaxSize {
		return nil, fmt.Errorf("%w: over %d bytes", ErrFormat, MaxSize)
	}
	d := &Description{}
	var m *Media
	session := Media{Direction: SendRecv}
	started := false
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimRight(line, "\r")
		if line == "" {
			continue
		}
		if len(line) < 2 || line[1] != '=' {
			return nil, fmt.Errorf("%w: line %.40q", ErrFormat, line)
		}
		if !started {
			if line != "v=0" {
				return nil, fmt.Errorf("%w: it does not begin with v=0", ErrFormat)
			}
			started = true
			continue
		}
		switch line[0] {
		case 'm':
			if len(d.Media) == maxMedia {
				return nil, fmt.Errorf("%w: over %d media", ErrFormat, maxMedia)
			}
			next, err := parseMedia(line[2:], session.Direction)
			if err != nil {
				return nil, err
			}
			d.Media = append(d.Media, next)
			m = &d.Media[len(d.Media)-1]
		case 'a':
			key, value, _ := strings.Cut(line[2:], ":")
			if d.attribute(key, value) {
				continue
			}
			into := m
			if m == nil {
				into = &session
			}
			if err := into.attribute(key, value); err != nil {
				return nil, err
			}
		}
	}
	if !started {
		return nil, fmt.Errorf("%w: empty", ErrFormat)
	}
	mids := map[string]bool{}
	for i := range d.Media {
		m := &d.Media[i]
		if m.MID == "" {
			m.MID = strconv.Itoa(i)
		}
		if mids[m.MID] {
			return nil, fmt.Errorf("%w: two media with the mid %.20q", ErrFormat, m.MID)
		}
		mids[m.MID] = true
	}
	return d, nil
}

// attribute takes what holds for the whole connection: with BUNDLE, the first value counts wherever it stands.
func (d *Description) attribute(key, value string) bool {
	var to *string
	switch key {
	case "ice-ufrag":
		to = &d.User
	case "ice-pwd":
		to = &d.Password
	case "fingerprint":
		to = &d.Fingerprint
	case "setup":
		to = &d.Setup
	case "ice-lite":
		d.Lite = true
		return true
	case "extmap-allow-mixed":
		d.MixedExtmap = true
		return true
	default:
		return false
	}
	if *to == "" && len(value) <= 512 {
		*to = value
	}
	return true
}

func parseMedia(line, direction string) (Media, error) {
	f := strings.Fields(line)
	if len(f) < 4 {
		return Media{}, fmt.Errorf("%w: m=%.40q", ErrFormat, line)
	}
	m := Media{Kind: f[0], Rejected: f[1] == "0", Direction: direction}
	if m.Kind == "audio" || m.Kind == "video" {
		for _, p := range f[3:] {
			n, err := strconv.ParseUint(p, 10, 7)
			if err != nil || len(m.Codecs) == 128 {
				return Media{}, fmt.Errorf("%w: payload types of m=%.40q", ErrFormat, line)
			}
			m.Codecs = append(m.Codecs, Codec{Type: uint8(n)})
		}
	}
	return m, nil
}

// attribute reads a line of a section.
func (m *Media) attribute(key, value string) error {
	switch key {
	case "mid":
		if value == "" || len(value) > 64 {
			return fmt.Errorf("%w: mid %.40q", ErrFormat, value)
		}
		m.MID = value
	case "bundle-only":
		m.Rejected = false // port 0 is only how it is written (RFC 9143 section 6)
	case SendRecv, SendOnly, RecvOnly, Inactive:
		m.Direction = key
	case "rtpmap":
		pt, rest, _ := strings.Cut(value, " ")
		if c := m.codec(pt); c != nil {
			f := strings.Split(rest, "/")
			c.Name = f[0]
			if len(f) > 1 {
				n, err := strconv.ParseUint(f[1], 10, 32)
				if err != nil || n == 0 {
					return fmt.Errorf("%w: rtpmap %.40q", ErrFormat, value)
				}
				c.Clock = uint32(n)
			}
			if len(f) > 2 {
				c.Channels = f[2]
			}
		}
	case "fmtp":
		pt, rest, _ := strings.Cut(value, " ")
		if c := m.codec(pt); c != nil {
			c.Format = rest
		}
	case "rtcp-fb":
		pt, rest, _ := strings.Cut(value, " ")
		for i := range m.Codecs {
			if c := &m.Codecs[i]; (pt == "*" || pt == strconv.Itoa(int(c.Type))) && len(c.Feedback) < 16 {
				c.Feedback = append(c.Feedback, rest)
			}
		}
	case "extmap":
		id, uri, _ := strings.Cut(value, " ")
		id, _, _ = strings.Cut(id, "/")
		uri, _, _ = strings.Cut(uri, " ")
		n, err := strconv.ParseUint(id, 10, 8)
		if err != nil || n == 0 {
			return fmt.Errorf("%w: extmap %.40q", ErrFormat, value)
		}
		if len(m.Extmap) < 64 {
			m.Extmap = append(m.Extmap, Extension{uint8(n), uri})
		}
	case "msid":
		m.Stream, m.Track, _ = strings.Cut(value, " ")
	case "ssrc":
		id, rest, _ := strings.Cut(value, " ")
		n, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			return fmt.Errorf("%w: ssrc %.40q", ErrFormat, value)
		}
		if s := uint32(n); !slices.Contains(m.SSRCs, s) && len(m.SSRCs) < maxPerMedia {
			m.SSRCs = append(m.SSRCs, s)
		}
		if v, ok := strings.CutPrefix(rest, "msid:"); ok && m.Track == "" {
			m.Stream, m.Track, _ = strings.Cut(v, " ")
		}
	case "ssrc-group":
		f := strings.Fields(value)
		if len(f) == 3 && f[0] == "FID" && len(m.Repair) < maxPerMedia {
			a, err1 := strconv.ParseUint(f[1], 10, 32)
			b, err2 := strconv.ParseUint(f[2], 10, 32)
			if err1 == nil && err2 == nil {
				if m.Repair == nil {
					m.Repair = map[uint32]uint32{}
				}
				m.Repair[uint32(b)] = uint32(a)
			}
		}
	case "rid":
		if f := strings.Fields(value); len(f) >= 2 && f[1] == "send" && len(m.RIDs) < 8 && len(f[0]) <= 16 {
			m.RIDs = append(m.RIDs, f[0])
		}
	case "sctp-port":
		m.SCTPPort, _ = strconv.Atoi(value)
	case "max-message-size":
		m.MaxMessage, _ = strconv.Atoi(value)
	}
	return nil
}

func (m *Media) codec(pt string) *Codec {
	for i := range m.Codecs {
		if strconv.Itoa(int(m.Codecs[i].Type)) == pt {
			return &m.Codecs[i]
		}
	}
	return nil
}
