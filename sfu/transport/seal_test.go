// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"bytes"
	"crypto/rand"
	"testing"

	"github.com/pion/dtls/v3"
	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"
	"github.com/trunkboard/trunkboard/sfu/packets"
)

func keysFor(tb testing.TB, profile dtls.SRTPProtectionProfile) (key, salt []byte) {
	tb.Helper()
	p := srtp.ProtectionProfile(profile)
	k, err := p.KeyLen()
	if err != nil {
		tb.Fatal(err)
	}
	s, err := p.SaltLen()
	if err != nil {
		tb.Fatal(err)
	}
	key, salt = make([]byte, k), make([]byte, s)
	_, _ = rand.Read(key)
	_, _ = rand.Read(salt)
	return key, salt
}

func TestSealedPacketsAreOpenedByAnotherImplementation(t *testing.T) {
	for _, profile := range profiles {
		key, salt := keysFor(t, profile)
		ours, err := sealerFor(profile, key, salt)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := srtp.CreateContext(key, salt, srtp.ProtectionProfile(profile))
		if err != nil {
			t.Fatal(err)
		}
		var x scratch
		index := uint32(65530)
		for size := range 200 {
			index++
			b := make([]byte, slotSize)
			packets.PutHeader(b, size%2 == 0, false, 96, uint16(index), 5, 0xCAFEBABE)
			payload := make([]byte, size)
			_, _ = rand.Read(payload)
			n := packets.HeaderSize + copy(b[packets.HeaderSize:], payload)
			sealed := b[:ours.seal(b, n, index>>16, &x)]
			clear, err := theirs.DecryptRTP(nil, sealed, nil)
			if err != nil {
				t.Fatalf("profile %v, %d bytes, index %d: %v", profile, size, index, err)
			}
			if !bytes.Equal(clear[packets.HeaderSize:], payload) {
				t.Fatalf("profile %v, %d bytes: the payload changed", profile, size)
			}
		}
	}
}

func TestSealingAllocatesNothing(t *testing.T) {
	for _, profile := range profiles {
		key, salt := keysFor(t, profile)
		s, err := sealerFor(profile, key, salt)
		if err != nil {
			t.Fatal(err)
		}
		x, b := &scratch{}, make([]byte, slotSize)
		if n := testing.AllocsPerRun(100, func() {
			packets.PutHeader(b, false, false, 96, 1, 2, 3)
			s.seal(b, 1100, 0, x)
		}); n != 0 {
			t.Errorf("profile %v: %v allocations", profile, n)
		}
	}
}

func BenchmarkSeal(b *testing.B) {
	for name, profile := range map[string]dtls.SRTPProtectionProfile{"GCM128": dtls.SRTP_AEAD_AES_128_GCM, "CM128": dtls.SRTP_AES128_CM_HMAC_SHA1_80} {
		key, salt := keysFor(b, profile)
		b.Run(name+"/ours", func(b *testing.B) {
			s, err := sealerFor(profile, key, salt)
			if err != nil {
				b.Fatal(err)
			}
			x, p := &scratch{}, make([]byte, slotSize)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				packets.PutHeader(p, false, false, 96, uint16(i), 2, 3)
				s.seal(p, 1112, uint32(i>>16), x)
			}
		})
		b.Run(name+"/pion", func(b *testing.B) {
			c, err := srtp.CreateContext(key, salt, srtp.ProtectionProfile(profile))
			if err != nil {
				b.Fatal(err)
			}
			p, dst, h := make([]byte, 1112), make([]byte, slotSize), &rtp.Header{}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				packets.PutHeader(p, false, false, 96, uint16(i), 2, 3)
				if _, err := c.EncryptRTP(dst[:0], p, h); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func sealerFor(profile dtls.SRTPProtectionProfile, key, salt []byte) (*sealer, error) {
	s := &sealer{}
	return s, s.set(profile, key, salt)
}
