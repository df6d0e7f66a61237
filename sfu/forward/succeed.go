// SPDX-License-Identifier: Apache-2.0

package forward

// rtxGap is left free in the numbers of repairs: of the leg before, some may be on their way.
const rtxGap = 1 << 10

// Succeed makes a leg of s that goes on where before was: the same picture in another codec, under the same streams and with the numbers
// that follow, so that the subscriber sees one stream whose payload type changes. before is silent from then on; the new leg is silent
// until Bind, and begins with a key frame.
func Succeed(before *Leg, s *Source) *Leg {
	before.source.Remove(before)
	before.mu.Lock()
	g := &Leg{
		source: s, peer: before.peer, paused: before.paused, wanted: before.wanted, allowed: before.allowed, smooth: before.smooth, fps: before.fps,
		target: -1, layer: -1, lastCount: before.lastCount, fresh: before.lastCount + 1, floor: before.lastCount, lastTime: before.lastTime, lastPicture: before.lastPicture, lastTL0: before.lastTL0,
		lastAt: before.lastAt, lossy: before.lossy, allowance: before.allowance, rtxSequence: before.rtxSequence + rtxGap, stats: before.stats,
	}
	before.bound = false // no number is used twice: RFC 3711 section 9.1
	before.mu.Unlock()
	if s.cfg.Codec == SVC {
		g.ladder = &ladder{shown: -1}
	}
	s.Add(g)
	return g
}
