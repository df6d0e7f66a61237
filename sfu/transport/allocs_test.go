// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"net"
	"net/netip"
	"testing"

	"github.com/pion/dtls/v3"
	"github.com/trunkboard/trunkboard/sfu/congest"
	"github.com/trunkboard/trunkboard/sfu/packets"
)

// TestNothingIsAllocatedPerPacketOnItsWayOut holds what README says: header, transport-wide number, sealing and the system call, to
// fifty subscribers.
func TestNothingIsAllocatedPerPacketOnItsWayOut(t *testing.T) {
	sink, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sink.Close() }()
	tr := listen(t)
	to := netip.MustParseAddrPort(sink.LocalAddr().String())
	var peers []*Session
	for range 50 {
		s := &Session{Path: new(congest.Estimator), t: tr}
		key, salt := keysFor(t, dtls.SRTP_AEAD_AES_128_GCM)
		seal, err := sealerFor(dtls.SRTP_AEAD_AES_128_GCM, key, salt)
		if err != nil {
			t.Fatal(err)
		}
		s.sealer.Store(seal)
		s.path.Store(&path{to: to, way: way{socket: tr.sockets[0]}, name: newPeerName(to, tr.sockets[0].six)})
		peers = append(peers, s)
	}
	out, sn := NewBatch(), uint16(0)
	for _, paced := range []int{0, 1_000_000} {
		for _, s := range peers {
			s.Pace(paced)
		}
		send := func() {
			sn++
			for _, s := range peers {
				b := out.Slot()
				packets.PutHeader(b, false, false, 96, sn, 90, 1001)
				at, number := packets.PutElements(b, 3, 0, nil)
				if held, full := s.Hold(b[:at+1000], 0, number, false); !held && !full {
					out.Send(s, at+1000, 0, number)
				}
			}
			out.Flush()
			tr.pacing.release(out, tr.Now())
			out.Flush()
		}
		n := 1.0
		for tries := 0; n != 0 && tries < 40; tries++ { // until the queues are as long as they get, which takes time where sending is slow
			n = testing.AllocsPerRun(50, send)
		}
		if n != 0 {
			t.Errorf("%v allocations for a packet to %d subscribers, paced at %d bit/s", n, len(peers), paced)
		}
	}
}
