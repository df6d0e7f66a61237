// SPDX-License-Identifier: Apache-2.0

package forward

import "github.com/trunkboard/trunkboard/sfu/packets"

// Scalable video: all spatial layers come in one stream, each frame of each layer with a dependency descriptor, and a subscriber gets
// those that belong to the decode target for the layer it shall have. What is left out must leave no hole in the numbers.

// layered is what is known of a packet of scalable video.
type layered struct {
	packets.Dependency
	known      bool
	descriptor []byte
	structure  *packets.Structure
}

// read parses the packet's descriptor. The caller holds the layer's lock.
func (l *Layer) read(p *Packet, cfg *Config) {
	p.svc = layered{descriptor: p.Header.Extension(p.Raw, cfg.Descriptor)}
	if len(p.svc.descriptor) == 0 {
		return
	}
	fresh := &l.structures[1-l.current]
	var now *packets.Structure
	if l.structured {
		now = &l.structures[l.current]
	}
	d := &p.svc.Dependency
	if p.svc.known = d.Parse(p.svc.descriptor, now, fresh); !p.svc.known {
		return
	}
	if d.Key {
		l.current, l.structured = 1-l.current, true
		now = fresh
	}
	p.svc.structure = now
	if cfg.Codec == SVC {
		p.Key = d.Key && d.Start
	}
}

// passed gives the descriptor for subscribers. Those of simulcast streams stay here: their frame numbers are each stream's own.
func (p *Packet) passed(cfg *Config) []byte {
	if cfg.Codec != SVC || cfg.Descriptor == 0 {
		return nil
	}
	return p.Header.Extension(p.Raw, cfg.Descriptor)
}

// reread parses the descriptor of a packet from the ring, whose structure is the one that holds still: no key frame came since. The
// caller holds the layer's lock.
func (l *Layer) reread(p *Packet, cfg *Config, key bool) {
	p.svc = layered{descriptor: p.Header.Extension(p.Raw, cfg.Descriptor), structure: &l.structures[l.current]}
	var again packets.Structure
	p.svc.known = l.structured && len(p.svc.descriptor) > 0 && p.svc.Dependency.Parse(p.svc.descriptor, p.svc.structure, &again)
	if cfg.Codec == SVC {
		p.Key = key
	}
}

// passes is how many packets a ladder remembers; a power of two.
const passes = 1024

// ladder chooses the packets of a leg and closes the gaps.
type ladder struct {
	shown   int    // level
	layers  int    // spatial ones that there are; 0 while it is not known
	last    uint64 // newest of the source's packets that was looked at
	skipped uint64 // left out so far
	past    [passes]passed
}

type passed struct {
	count   uint64
	skipped uint64 // before this one
	out     bool   // it was left out itself
}

// begin starts at packet p, which begins a key frame.
func (l *ladder) begin(p *Packet, want int) {
	*l = ladder{shown: want, layers: l.layers, last: p.Count - 1}
}

// pass decides about p: whether it goes on, how many were left out before it, and whether it ends a picture.
func (l *ladder) pass(p *Packet, want int) (skipped uint64, marker, ok bool) {
	d := &p.svc
	marker = p.Header.Marker
	if p.Count <= l.last { // late: it takes the place that was kept for it
		e := &l.past[p.Count%passes]
		if e.count != p.Count || e.out {
			return 0, marker, false
		}
		return e.skipped, marker || l.ends(d), true
	}
	if p.Count-l.last > passes {
		l.last = p.Count - 1 // a jump: nothing of it will come late
	}
	for c := l.last + 1; c <= p.Count; c++ {
		l.past[c%passes] = passed{c, l.skipped, false}
	}
	l.last = p.Count
	if !d.known {
		return l.skipped, marker, true
	}
	l.layers = d.structure.Layers()
	if d.Start && want != l.shown {
		if d.enters(target(d.structure, l.shown), target(d.structure, want)) {
			l.shown = want
		}
	}
	if d.For(target(d.structure, l.shown)) == packets.NotPresent {
		l.past[p.Count%passes].out = true
		l.skipped++
		return 0, marker, false
	}
	return l.skipped, marker || l.ends(d), true
}

// enters reports whether one who was sent the decode target now can go on with next at d's frame.
func (d *layered) enters(now, next int) bool {
	// All that comes of a target can be decoded from a frame on at which it may be entered, if that frame can be.
	return now == next || d.Key || d.For(next) == packets.Switch && (d.For(now) != packets.NotPresent || d.structure.Within(next, now))
}

// shows reports whether it shows that spatial layer, or the highest one there is below it.
func (l *ladder) shows(layer int) bool {
	shown := l.shown / MaxTemporal
	if l.layers > 0 {
		shown, layer = min(shown, l.layers-1), min(layer, l.layers-1)
	}
	return l.shown >= 0 && shown == layer
}

// ends reports whether d's packet is the last one of the picture as it is forwarded.
func (l *ladder) ends(d *layered) bool {
	return d.known && d.End && int(d.Spatial) == min(l.shown/MaxTemporal, d.structure.Layers()-1)
}

// target is the decode target of a level.
func target(s *packets.Structure, level int) int {
	return s.Target(level/MaxTemporal, level%MaxTemporal)
}
