// SPDX-License-Identifier: Apache-2.0

package packets

// Limits of a dependency descriptor: what its fields can express.
const (
	maxTargets   = 32
	maxTemplates = 64
	maxChains    = 32
	maxSpatial   = 4
	maxTemporal  = 8
)

// Indication says what a frame is to a decode target (AV1 RTP specification, appendix A.8.3.1).
type Indication uint8

// The indications.
const (
	NotPresent  Indication = iota // not part of the target
	Discardable                   // nothing of the target depends on it
	Switch                        // a decoder may begin with the target here
	Required
)

// Structure is what a publisher says once, on key frames, about the layers it sends.
type Structure struct {
	offset    uint8
	targets   int
	templates int
	chains    int
	spatial   [maxTemplates]uint8
	temporal  [maxTemplates]uint8
	dti       [maxTemplates][maxTargets]Indication
	best      [maxSpatial][TargetTemporal]int // by spatial layer and temporal ones, the target: see Target
	layers    int                             // spatial ones
}

// Layers is the number of spatial layers.
func (s *Structure) Layers() int { return s.layers }

// TargetTemporal is how many temporal layers Target tells apart: those above count as the highest.
const TargetTemporal = 3

// Target gives the decode target that shows layer with its temporal layers up to temporal, all of them if that is the highest; the nearest
// one below it if there is none, else the lowest of the layer.
func (s *Structure) Target(layer, temporal int) int {
	return s.best[min(layer, maxSpatial-1)][min(temporal, TargetTemporal-1)]
}

// Within reports whether every frame that the target inner needs is part of the target outer too, so that a decoder of outer can go on
// with inner without a key frame. Where layers depend on those below them only in key frames, it cannot.
func (s *Structure) Within(inner, outer int) bool {
	if inner >= s.targets || outer >= s.targets {
		return false
	}
	for i := range s.templates {
		if s.dti[i][inner] != NotPresent && s.dti[i][outer] == NotPresent {
			return false
		}
	}
	return true
}

// Dependency is a packet's dependency descriptor (AV1 RTP specification, appendix A): which layer its frame belongs to, and who needs
// it. It stands outside the payload, which may be encrypted, and is the same for VP9 and AV1.
type Dependency struct {
	Start, End bool // of a frame
	Number     uint16
	Spatial    uint8
	Temporal   uint8
	Key        bool // brings a structure

	targets int
	dti     [maxTargets]Indication
}

// For tells what the frame is to a decode target.
func (d *Dependency) For(target int) Indication {
	if target >= d.targets {
		return NotPresent
	}
	return d.dti[target]
}

// bits reads b from the most significant bit on. After the end it gives zeros and bad is set.
type bits struct {
	b   []byte
	pos int
	bad bool
}

func (r *bits) get(n int) (v uint32) {
	for range n {
		at := r.pos >> 3
		if at >= len(r.b) {
			r.bad = true
			return 0
		}
		v = v<<1 | uint32(r.b[at]>>(7-r.pos&7)&1)
		r.pos++
	}
	return v
}

// uniform reads a value below n (ns(n) of the AV1 specification).
func (r *bits) uniform(n int) int {
	w := 0
	for x := n; x != 0; x >>= 1 {
		w++
	}
	m := 1<<w - n
	v := int(r.get(w - 1))
	if v < m {
		return v
	}
	return v<<1 - m + int(r.get(1))
}

// Parse reads the descriptor b. s is the structure that holds until now, nil if there is none; if b brings a new one it is written to
// fresh. It reports false if b is broken or has no meaning without a structure.
func (d *Dependency) Parse(b []byte, s, fresh *Structure) bool {
	*d = Dependency{}
	if len(b) < 3 {
		return false
	}
	r := bits{b: b}
	d.Start, d.End = r.get(1) == 1, r.get(1) == 1
	template := uint8(r.get(6))
	d.Number = uint16(r.get(16))
	var active, dtis, fdiffs, chains bool
	if len(b) > 3 {
		d.Key = r.get(1) == 1
		active, dtis, fdiffs, chains = r.get(1) == 1, r.get(1) == 1, r.get(1) == 1, r.get(1) == 1
		if d.Key {
			if !fresh.parse(&r) {
				return false
			}
			s = fresh
		}
	}
	if s == nil {
		return false
	}
	if active {
		r.get(s.targets)
	}
	index := int((template + maxTemplates - s.offset) % maxTemplates)
	if index >= s.templates {
		return false
	}
	d.Spatial, d.Temporal, d.targets = s.spatial[index], s.temporal[index], s.targets
	if dtis {
		for t := range s.targets {
			d.dti[t] = Indication(r.get(2))
		}
	} else {
		d.dti = s.dti[index]
	}
	if fdiffs {
		for size := r.get(2); size != 0 && !r.bad; size = r.get(2) {
			r.get(4 * int(size))
		}
	}
	if chains {
		for range s.chains {
			r.get(8)
		}
	}
	return !r.bad
}

// parse reads template_dependency_structure().
func (s *Structure) parse(r *bits) bool {
	*s = Structure{offset: uint8(r.get(6)), targets: int(r.get(5)) + 1}
	spatial, temporal := 0, 0
	for next := uint32(0); next != 3; {
		if s.templates == maxTemplates || spatial >= maxSpatial || temporal >= maxTemporal || r.bad {
			return false
		}
		s.spatial[s.templates], s.temporal[s.templates] = uint8(spatial), uint8(temporal)
		s.templates++
		switch next = r.get(2); next {
		case 1:
			temporal++
		case 2:
			temporal, spatial = 0, spatial+1
		}
	}
	s.layers = spatial + 1
	for i := range s.templates {
		for t := range s.targets {
			s.dti[i][t] = Indication(r.get(2))
		}
	}
	for range s.templates {
		for r.get(1) == 1 && !r.bad {
			r.get(4)
		}
	}
	s.chains = r.uniform(s.targets + 1)
	if s.chains > maxChains {
		return false
	}
	if s.chains > 0 {
		for range s.targets {
			r.uniform(s.chains)
		}
		for range s.templates * s.chains {
			r.get(4)
		}
	}
	if r.get(1) == 1 {
		for range s.layers {
			r.get(16)
			r.get(16)
		}
	}
	s.index()
	return !r.bad
}

// index finds the targets: a target's layers are the highest ones among the templates that belong to it.
func (s *Structure) index() {
	var exact [maxSpatial][maxTemporal]int // one more than the target, 0 if there is none
	for target := range s.targets {
		sp, te := -1, -1
		for i := range s.templates {
			if s.dti[i][target] != NotPresent {
				sp, te = max(sp, int(s.spatial[i])), max(te, int(s.temporal[i]))
			}
		}
		if sp >= 0 && exact[sp][te] == 0 {
			exact[sp][te] = target + 1
		}
	}
	var below [TargetTemporal]int
	for l := range s.best {
		lowest, found := 0, 0
		for t := maxTemporal - 1; t >= 0; t-- {
			if exact[l][t] > 0 {
				lowest = exact[l][t] - 1
			}
		}
		for t := range maxTemporal {
			if exact[l][t] > 0 {
				found = exact[l][t]
			}
			if t < TargetTemporal {
				s.best[l][t] = found
			} else {
				s.best[l][TargetTemporal-1] = found
			}
		}
		for t := range s.best[l] {
			switch {
			case found == 0: // nothing of this layer: what is below it
				s.best[l][t] = below[t]
			case s.best[l][t] == 0:
				s.best[l][t] = lowest
			default:
				s.best[l][t]--
			}
		}
		below = s.best[l]
	}
}
