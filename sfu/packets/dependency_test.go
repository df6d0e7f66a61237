// SPDX-License-Identifier: Apache-2.0

package packets

import "testing"

// descriptor writes the bits of a dependency descriptor. Its stream has two spatial layers of one temporal layer each. With nested, delta frames
// of the upper layer depend on those of the lower one; else only those of key frames do.
type descriptor struct {
	b    []byte
	free int // bits free in the last byte
}

func (w *descriptor) put(v uint32, n int) {
	for i := n - 1; i >= 0; i-- {
		if w.free == 0 {
			w.b, w.free = append(w.b, 0), 8
		}
		w.free--
		w.b[len(w.b)-1] |= byte(v>>i&1) << w.free
	}
}

// frame describes a frame: template 0 and 1 are key and delta frames of the lower layer, 2 and 3 those of the upper one.
func frame(start, end bool, template, number int, structure, nested bool) []byte {
	w := &descriptor{}
	bit := func(b bool) {
		if b {
			w.put(1, 1)
		} else {
			w.put(0, 1)
		}
	}
	bit(start)
	bit(end)
	w.put(uint32(template), 6)
	w.put(uint32(number), 16)
	if !structure {
		return w.b
	}
	w.put(0b10000, 5) // a structure, nothing else
	w.put(0, 6)       // template offset
	w.put(1, 5)       // two targets
	for _, next := range []uint32{0, 2, 0, 3} {
		w.put(next, 2)
	}
	lowInHigh := uint32(NotPresent)
	if nested {
		lowInHigh = uint32(Required)
	}
	for _, dti := range [][2]uint32{{2, 2}, {2, lowInHigh}, {0, 2}, {0, 2}} {
		w.put(dti[0], 2)
		w.put(dti[1], 2)
	}
	for _, diffs := range [][]uint32{nil, {2}, {1}, {2}} {
		for _, d := range diffs {
			w.put(1, 1)
			w.put(d-1, 4)
		}
		w.put(0, 1)
	}
	w.put(0, 1) // no chains: ns(3) of 0
	w.put(1, 1) // resolutions
	for _, px := range []uint32{319, 179, 639, 359} {
		w.put(px, 16)
	}
	return w.b
}

func TestDependencyDescriptorsAreRead(t *testing.T) {
	var s, other Structure
	var d Dependency
	if !d.Parse(frame(true, false, 0, 7, true, false), nil, &s) {
		t.Fatal("a key frame was refused")
	}
	if !d.Start || d.End || d.Number != 7 || !d.Key || d.Spatial != 0 || d.For(0) != Switch || d.For(1) != Switch || d.For(2) != NotPresent {
		t.Errorf("%+v", d)
	}
	if s.Layers() != 2 || s.Target(0, 2) != 0 || s.Target(1, 0) != 1 || s.Target(2, 2) != 1 || s.Within(0, 1) {
		t.Errorf("%d layers, targets %d %d %d", s.Layers(), s.Target(0, 2), s.Target(1, 0), s.Target(2, 2))
	}
	if !d.Parse(frame(false, true, 3, 8, false, false), &s, &other) || d.Start || !d.End || d.Spatial != 1 || d.Key || d.For(0) != NotPresent || d.For(1) != Switch {
		t.Errorf("%+v", d)
	}
	if !d.Parse(frame(true, true, 0, 9, true, true), &s, &other) || !other.Within(0, 1) || other.Within(1, 0) {
		t.Error("nested layers were not seen")
	}
}

func TestBrokenDependencyDescriptorsAreRefused(t *testing.T) {
	var s, fresh Structure
	var d Dependency
	whole := frame(true, true, 0, 1, true, false)
	for n := range whole {
		if n != 3 && d.Parse(whole[:n], nil, &fresh) {
			t.Errorf("%d of %d bytes were taken", n, len(whole))
		}
	}
	if d.Parse(whole[:3], nil, &fresh) {
		t.Error("a frame without any structure was taken")
	}
	if !d.Parse(whole, nil, &s) || d.Parse(frame(true, true, 9, 1, false, false), &s, &fresh) {
		t.Error("a template that does not exist was taken")
	}
	endless := append([]byte{0xC0, 0, 1, 0x80, 0x1F}, make([]byte, 40)...) // layers that never end
	if d.Parse(endless, nil, &fresh) {
		t.Error("endless layers were taken")
	}
}

func FuzzDependency(f *testing.F) {
	f.Add(frame(true, false, 0, 7, true, false), frame(false, true, 3, 8, false, false))
	f.Add([]byte{0xC0, 0, 1, 0x80, 0x1F, 0xFF, 0xFF}, []byte{0, 0, 0, 0x7F, 0xFF})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		var s, fresh Structure
		var d Dependency
		if !d.Parse(a, nil, &s) {
			return
		}
		if !d.Key || s.Layers() < 1 || s.Layers() > maxSpatial || int(d.Spatial) >= maxSpatial {
			t.Errorf("%+v", d)
		}
		for layer := range 4 {
			if target := s.Target(layer, layer%3); target < 0 || target >= maxTargets {
				t.Errorf("target %d", target)
			}
		}
		if d.Parse(b, &s, &fresh) && int(d.Spatial) >= maxSpatial {
			t.Errorf("%+v", d)
		}
	})
}
