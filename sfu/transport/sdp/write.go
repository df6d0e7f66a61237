// SPDX-License-Identifier: Apache-2.0

package sdp

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Candidates are the addresses under which the describing side is reached.
type Candidates struct{ UDP, TCP []netip.AddrPort }

// Write gives the text of d with the host candidates. version rises with every description of a session (RFC 8829 section 5.2.2).
func (d *Description) Write(session uint64, version int, candidates Candidates) string {
	var b strings.Builder
	b.Grow(1024 + 512*len(d.Media))
	fmt.Fprintf(&b, "v=0\r\no=- %d %d IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n", session, version)
	if d.Lite {
		b.WriteString("a=ice-lite\r\n")
	}
	b.WriteString("a=group:BUNDLE")
	for i := range d.Media {
		if !d.Media[i].Rejected {
			b.WriteString(" " + d.Media[i].MID)
		}
	}
	b.WriteString("\r\n")
	if d.MixedExtmap {
		b.WriteString("a=extmap-allow-mixed\r\n")
	}
	b.WriteString("a=msid-semantic: WMS *\r\n")
	told := false
	for i := range d.Media {
		m := &d.Media[i]
		m.write(&b)
		if m.Rejected {
			continue
		}
		fmt.Fprintf(&b, "a=ice-ufrag:%s\r\na=ice-pwd:%s\r\na=fingerprint:%s\r\na=setup:%s\r\n", d.User, d.Password, d.Fingerprint, d.Setup)
		if !told { // with BUNDLE, the candidates of the first section are those of all
			told = true
			for i, c := range candidates.UDP {
				writeCandidate(&b, i, c, "udp", 126, "")
			}
			for i, c := range candidates.TCP { // RFC 6544 section 4.2: a lower type preference than UDP
				writeCandidate(&b, len(candidates.UDP)+i, c, "tcp", 90, " tcptype passive")
			}
			b.WriteString("a=end-of-candidates\r\n")
		}
	}
	return b.String()
}

// writeCandidate writes a host candidate; earlier ones are preferred (RFC 8445 section 5.1.2.1).
func writeCandidate(b *strings.Builder, i int, c netip.AddrPort, protocol string, preference uint32, suffix string) {
	local := 65535 - min(i, 1000)
	priority := preference<<24 | uint32(local)<<8 | 255
	fmt.Fprintf(b, "a=candidate:%d 1 %s %d %s %d typ host%s\r\n", i+1, protocol, priority, c.Addr().Unmap(), c.Port(), suffix)
}

func (m *Media) write(b *strings.Builder) {
	port := "9"
	if m.Rejected {
		port = "0"
	}
	if m.Kind == "application" {
		fmt.Fprintf(b, "m=application %s UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:%s\r\n", port, m.MID)
		if !m.Rejected {
			fmt.Fprintf(b, "a=sctp-port:%d\r\na=max-message-size:%d\r\n", m.SCTPPort, m.MaxMessage)
		}
		return
	}
	fmt.Fprintf(b, "m=%s %s UDP/TLS/RTP/SAVPF", m.Kind, port)
	for i := range m.Codecs {
		b.WriteString(" " + strconv.Itoa(int(m.Codecs[i].Type)))
	}
	if len(m.Codecs) == 0 {
		b.WriteString(" 0") // the line must name one
	}
	fmt.Fprintf(b, "\r\nc=IN IP4 0.0.0.0\r\na=mid:%s\r\n", m.MID)
	if m.Rejected {
		b.WriteString("a=inactive\r\n")
		return
	}
	b.WriteString("a=rtcp-mux\r\na=rtcp-rsize\r\na=" + m.Direction + "\r\n")
	for i := range m.Codecs {
		m.Codecs[i].write(b)
	}
	for _, e := range m.Extmap {
		fmt.Fprintf(b, "a=extmap:%d %s\r\n", e.ID, e.URI)
	}
	if m.Track != "" {
		fmt.Fprintf(b, "a=msid:%s %s\r\n", m.Stream, m.Track)
	}
	for _, r := range m.RIDsRecv {
		fmt.Fprintf(b, "a=rid:%s recv\r\n", r)
	}
	if len(m.RIDsRecv) > 0 {
		fmt.Fprintf(b, "a=simulcast:recv %s\r\n", strings.Join(m.RIDsRecv, ";"))
	}
	for _, s := range m.SSRCs {
		if rtx := m.repairOf(s); rtx != 0 {
			fmt.Fprintf(b, "a=ssrc-group:FID %d %d\r\n", s, rtx)
		}
	}
	for _, s := range m.SSRCs {
		fmt.Fprintf(b, "a=ssrc:%d cname:%s\r\na=ssrc:%d msid:%s %s\r\n", s, m.CNAME, s, m.Stream, m.Track)
	}
}

func (m *Media) repairOf(ssrc uint32) uint32 {
	for rtx, of := range m.Repair {
		if of == ssrc {
			return rtx
		}
	}
	return 0
}

func (c *Codec) write(b *strings.Builder) {
	fmt.Fprintf(b, "a=rtpmap:%d %s/%d", c.Type, c.Name, c.Clock)
	if c.Channels != "" {
		b.WriteString("/" + c.Channels)
	}
	b.WriteString("\r\n")
	for _, f := range c.Feedback {
		fmt.Fprintf(b, "a=rtcp-fb:%d %s\r\n", c.Type, f)
	}
	if c.Format != "" {
		fmt.Fprintf(b, "a=fmtp:%d %s\r\n", c.Type, c.Format)
	}
}
