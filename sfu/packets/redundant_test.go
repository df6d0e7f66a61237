// SPDX-License-Identifier: Apache-2.0

package packets

import (
	"bytes"
	"slices"
	"testing"
)

// redundant writes a payload: the older sounds, oldest first and 960 apart, then the packet's own.
func redundant(plain uint8, sounds ...string) (b []byte) {
	n := len(sounds) - 1
	b = make([]byte, RedundantHead(n))
	for i, s := range sounds[:n] {
		PutOlder(b, i, plain, uint32(960*(n-i)), len(s))
	}
	PutOwn(b, n, plain)
	for _, s := range sounds {
		b = append(b, s...)
	}
	return b
}

func TestRedundantSoundIsReadAsItIsWritten(t *testing.T) {
	b := redundant(111, "first", "second", "third")
	// The example is written out once, against RFC 2198 section 3: F=1, type 111, 14 bits of age, 10 bits of length.
	if want := []byte{0xEF, 0x1E, 0x00, 0x05, 0xEF, 0x0F, 0x00, 0x06, 0x6F}; !bytes.HasPrefix(b, want) {
		t.Fatalf("headers % x, want % x", b[:9], want)
	}
	var r Redundancy
	if !r.Parse(b, 111) || r.N != 2 || string(b[r.Primary:]) != "third" {
		t.Fatalf("%+v", r)
	}
	for n, want := range map[int]string{1: "second", 2: "first"} {
		o, ok := r.Older(n)
		if !ok || string(b[o.At:o.At+o.Size]) != want || o.Age != uint32(960*n) {
			t.Errorf("%d packets before: %+v %v", n, o, ok)
		}
	}
	if _, ok := r.Older(3); ok {
		t.Error("a sound that is not there")
	}
	again := slices.Clone(b)
	r.Retype(again, 96)
	var s Redundancy
	if s.Parse(again, 111) || !s.Parse(again, 96) || string(again[s.Primary:]) != "third" {
		t.Error("another payload type")
	}
	if !r.Parse([]byte{111}, 111) || r.Primary != 1 || r.N != 0 {
		t.Error("a packet with nothing in it")
	}
}

func TestBrokenRedundancyIsRefused(t *testing.T) {
	good := redundant(111, "first", "second")
	for name, b := range map[string][]byte{
		"nothing":                     {},
		"a header cut short":          good[:3],
		"no header of its own sound":  good[:4],
		"an older sound cut short":    good[:RedundantHead(1)+3],
		"redundancy within":           redundant(63, "first", "second"),
		"another codec's older sound": append([]byte{0x80 | 8}, good[1:]...),
		"another codec's own sound":   append(slices.Clone(good[:4]), append([]byte{8}, good[5:]...)...),
		"nine older sounds":           redundant(111, "1", "2", "3", "4", "5", "6", "7", "8", "9", "own"),
	} {
		var r Redundancy
		if r.Parse(b, 111) {
			t.Errorf("%s was read: %+v", name, r)
		}
	}
	if r := (&Redundancy{}); !r.Parse(redundant(111, "1", "2", "3", "4", "5", "6", "7", "8", "own"), 111) {
		t.Error("eight older sounds are permitted")
	}
}

func FuzzRedundancy(f *testing.F) {
	f.Add(redundant(111, "first", "second", "third"))
	f.Add([]byte{0xEF, 0xFF, 0xFF, 0xFF, 0x6F})
	f.Add([]byte{0x6F})
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Redundancy
		if !r.Parse(b, 111) {
			return
		}
		if r.Primary > len(b) || r.N > MaxRedundant {
			t.Fatalf("%+v of %d bytes", r, len(b))
		}
		at := r.Primary
		for n := range r.N {
			o := r.blocks[r.N-1-n]
			if at -= o.Size; o.At != at {
				t.Fatalf("sounds do not lie one after the other: %+v", r)
			}
		}
		if at != RedundantHead(r.N) {
			t.Fatalf("%+v", r)
		}
		c := slices.Clone(b)
		r.Retype(c, 7)
		if r.Retype(c, 111); !bytes.Equal(b, c) {
			t.Fatal("another type changed more than the type")
		}
	})
}
