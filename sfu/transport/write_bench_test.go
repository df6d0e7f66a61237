// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
	"github.com/trunkboard/trunkboard/sfu/congest"
	"github.com/trunkboard/trunkboard/sfu/packets"
)

// BenchmarkWrite measures the way of a packet from our hands to the kernel: header, payload copied, sealed, sent. "audio" is one
// packet of 120 bytes to each of 50 clients, "frame" six of 1100 bytes to each.
func BenchmarkWrite(b *testing.B) {
	sink, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = sink.Close() }()
	for _, c := range []struct {
		name     string
		per, len int
		profile  dtls.SRTPProtectionProfile
	}{
		{"audio/GCM", 1, 120, dtls.SRTP_AEAD_AES_128_GCM},
		{"frame/GCM", 6, 1100, dtls.SRTP_AEAD_AES_128_GCM},
		{"frame/CM", 6, 1100, dtls.SRTP_AES128_CM_HMAC_SHA1_80},
	} {
		b.Run(c.name, func(b *testing.B) {
			tr := listen(b)
			var peers []*Session
			for range 50 {
				s := &Session{Path: new(congest.Estimator), t: tr}
				key, salt := keysFor(b, c.profile)
				seal, err := sealerFor(c.profile, key, salt)
				if err != nil {
					b.Fatal(err)
				}
				to := netip.MustParseAddrPort(sink.LocalAddr().String())
				s.sealer.Store(seal)
				s.path.Store(&path{to: to, way: way{socket: tr.sockets[0]}, name: newPeerName(to, tr.sockets[0].six)})
				peers = append(peers, s)
			}
			out, payload := NewBatch(), make([]byte, c.len)
			b.ReportAllocs()
			sn := uint32(0)
			for b.Loop() {
				for _, s := range peers {
					for i := range c.per {
						p := out.Slot()
						packets.PutHeader(p, false, false, 96, uint16(sn)+uint16(i), 90, 1001)
						copy(p[packets.HeaderSize:], payload)
						out.Send(s, packets.HeaderSize+c.len, sn>>16, 0)
					}
				}
				out.Flush()
				sn += uint32(c.per)
			}
			n := float64(b.N * 50 * c.per)
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/n, "ns/packet")
			b.ReportMetric(float64(out.calls)/float64(out.packets), "calls/packet")
			if out.dropped > 0 {
				b.Logf("%d of %d dropped", out.dropped, out.packets)
			}
		})
	}
}

// BenchmarkPionWrite is the same with pion/webrtc, to one client.
func BenchmarkPionWrite(b *testing.B) {
	for name, size := range map[string]int{"audio": 120, "video": 1100} {
		b.Run(name, func(b *testing.B) {
			tr := listen(b)
			e := newEar()
			s, err := tr.Open(discard{e})
			if err != nil {
				b.Fatal(err)
			}
			pc := client(b, dtls.SRTP_AEAD_AES_128_GCM)
			track, err := webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8, ClockRate: 90000}, "up", "stream")
			if err != nil {
				b.Fatal(err)
			}
			if _, err := pc.AddTransceiverFromTrack(track, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly}); err != nil {
				b.Fatal(err)
			}
			up := make(chan struct{})
			var told atomic.Bool
			pc.OnConnectionStateChange(func(s webrtc.PeerConnectionState) {
				if s == webrtc.PeerConnectionStateConnected && !told.Swap(true) {
					close(up)
				}
			})
			connect(b, pc, tr, s)
			wait(b, up, "the connection")
			p := &rtp.Packet{Header: rtp.Header{Version: 2}, Payload: make([]byte, size)}
			for deadline := time.Now().Add(patience); time.Now().Before(deadline); { // the sender starts a little after the connection
				if err := track.WriteRTP(p); err == nil {
					break
				}
			}
			b.ReportAllocs()
			for b.Loop() {
				p.SequenceNumber++
				_ = track.WriteRTP(p)
			}
		})
	}
}

// discard hears nothing but the connection.
type discard struct{ *ear }

func (discard) RTP([][]byte, *Batch) {}
func (discard) RTCP([]byte, *Batch)  {}
func (discard) Data(string, []byte)  {}
