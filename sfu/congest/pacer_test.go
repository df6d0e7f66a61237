// SPDX-License-Identifier: Apache-2.0

package congest

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/trunkboard/trunkboard/sfu/packets"
)

// take lets time pass and gives the packets that went, by the number in their first bytes, and when.
func take(p *Pacer, from, to time.Duration) (numbers []int, at []time.Duration) {
	var b [packets.MaxSize]byte
	for now := from; now < to; now += 5 * time.Millisecond {
		for {
			n, _, _, _ := p.Next(b[:], now)
			if n == 0 {
				break
			}
			numbers, at = append(numbers, int(binary.BigEndian.Uint16(b[:]))), append(at, now)
		}
	}
	return numbers, at
}

func numbered(n int) []byte {
	b := make([]byte, 1000)
	binary.BigEndian.PutUint16(b, uint16(n))
	binary.BigEndian.PutUint16(b[packets.HeaderSize:], uint16(n)) // of a repair: which packet it repairs
	return b
}

func TestAKeyFrameIsSpreadOverTime(t *testing.T) {
	var p Pacer
	p.Follow(1_000_000, 0, 0)
	now := time.Second
	direct := 0
	for i := range 60 { // 60 kB: 360 ms at 1.35 Mbit/s
		if held, full, first := p.Hold(numbered(i), 0, 20, false, now); full || first != (i == direct && held) {
			t.Fatalf("packet %d: held %v, full %v, first %v", i, held, full, first)
		} else if !held {
			direct++
		}
	}
	if direct < 2 || direct > 4 {
		t.Errorf("%d packets went at once", direct)
	}
	numbers, at := take(&p, now, now+2*time.Second)
	if len(numbers) != 60-direct {
		t.Fatalf("%d packets came out", len(numbers))
	}
	for i, n := range numbers {
		if n != direct+i {
			t.Fatalf("packet %d came as number %d", n, direct+i)
		}
	}
	if last := at[len(at)-1] - now; last < 280*time.Millisecond || last > 440*time.Millisecond {
		t.Errorf("the last one went after %v", last)
	}
	if held, _, _ := p.Hold(numbered(60), 0, 20, false, now+2*time.Second); held {
		t.Error("a small frame waits although nothing does")
	}
}

func TestARepairThatWaitsIsNotPutBesideItselfAgain(t *testing.T) {
	var p Pacer
	p.Follow(100_000, 0, 0)
	now := time.Minute
	for held := false; !held; {
		var full bool
		if held, full, _ = p.Hold(numbered(1), 0, 20, true, now); full {
			t.Fatal("no repair may wait")
		}
	}
	if held, full, first := p.Hold(numbered(1), 0, 20, true, now); !held || full || first || p.Waiting() != 1 {
		t.Errorf("held %v, full %v, first %v, %d wait", held, full, first, p.Waiting())
	}
	if held, _, _ := p.Hold(numbered(2), 0, 20, true, now); held {
		t.Error("another one found room: the test says nothing about the same one")
	}
}

// While it is tested whether a path is narrow at all, repairs always go.
func TestRepairsGoWhileThePathIsInDoubt(t *testing.T) {
	var p Pacer
	p.Follow(100_000, 1, 0)
	for i := range 100 {
		if held, full, _ := p.Hold(numbered(i), 0, 20, true, time.Second); held || full {
			t.Fatalf("repair %d: held %v, full %v", i, held, full)
		}
	}
}

func TestNothingWaitsForLongerThanAMoment(t *testing.T) {
	var p Pacer
	p.Follow(100_000, 0, 0)
	for i := range 200 { // 10 s at that rate
		p.Hold(numbered(i), 0, 20, false, time.Second)
	}
	if numbers, at := take(&p, time.Second, 20*time.Second); len(numbers) < 195 || at[len(at)-1] > time.Second+4*paceWithin {
		t.Errorf("%d packets, the last after %v", len(numbers), at[len(at)-1]-time.Second)
	}
}

func TestRepairsGoFirstIntoWhatPicturesLeave(t *testing.T) {
	for _, c := range []struct {
		name         string
		most         int // packets of media in 100 ms, of 1 kB
		noise        float64
		least, fills float64
	}{
		{"pictures fill it", 12, 0, 0.05, 0.2},
		{"half the estimate is pictures", 5, 0, 0.45, 0.6},
		{"pictures fill it, and three of ten are lost at random", 12, 0.3, 0.25, 0.35},
	} {
		var p Pacer
		p.Follow(800_000, c.noise, 0) // 100 kB/s
		media, repairs, refused, asked, first := 0, 0, 0, 0, -1
		to := make([]byte, packets.MaxSize)
		for now := time.Second; now < 3*time.Second; now += 5 * time.Millisecond {
			if (now/time.Millisecond)%100 == 0 { // 50 kB/s, or 120
				for i := range c.most {
					if held, full, _ := p.Hold(numbered(i), 0, 20, false, now); !held && !full {
						media++
					}
				}
			}
			if now > 1100*time.Millisecond {
				for range 3 { // as many as anybody may ask for
					if held, full, _ := p.Hold(numbered(1000+asked), 0, 20, true, now); full {
						refused++
					} else if !held {
						repairs++
					}
					asked++
				}
			}
			for {
				n, _, _, _ := p.Next(to, now)
				if n == 0 {
					break
				}
				if number := int(binary.BigEndian.Uint16(to)); number >= 1000 {
					if repairs++; first < 0 {
						first = media
					}
				} else {
					media++
				}
			}
		}
		share := float64(repairs) / float64(media+repairs)
		t.Logf("%s: %d of media and %d repairs, %d refused", c.name, media, repairs, refused)
		if share < c.least || share > c.fills || refused < 500 {
			t.Errorf("%s: %.2f were repairs", c.name, share)
		}
	}
}

func TestWhatWaitsOfAStreamIsDropped(t *testing.T) {
	var p Pacer
	p.Follow(200_000, 0, 0)
	of := func(ssrc uint32, i int) []byte {
		b := numbered(i)
		binary.BigEndian.PutUint32(b[8:], ssrc)
		return b
	}
	for i := range 30 {
		p.Hold(of(uint32(1+i%2), i), 0, 20, false, time.Second)
	}
	p.Hold(of(11, 100), 0, 20, true, time.Second)
	p.Drop(1, 11)
	numbers, _ := take(&p, time.Second, 10*time.Second)
	if len(numbers) < 10 {
		t.Fatalf("%d packets are left", len(numbers))
	}
	for i, n := range numbers {
		if n%2 != 1 || i > 0 && n != numbers[i-1]+2 {
			t.Fatalf("left are %v", numbers)
		}
	}
	if !p.Room() {
		t.Error("nothing waits, and there is no room")
	}
}

// A browser asks for what is missing every 20 ms. What cannot go soon must not wait, or the queue fills with the same packets many times
// over, and each comes too late.
func TestRepairsGoSoonOrNotAtAll(t *testing.T) {
	for _, rate := range []int{100_000, 500_000, 5_000_000} {
		var p Pacer
		p.Follow(rate, 0, 0)
		held := map[int]time.Duration{}
		longest, n := time.Duration(0), 0
		to := make([]byte, packets.MaxSize)
		for now := time.Second; now < 4*time.Second; now += 5 * time.Millisecond {
			p.Hold(numbered(0), 0, 20, false, now) // more media than there is room for
			for range max(1, rate/200_000) {
				n++
				if h, _, _ := p.Hold(numbered(n), 0, 20, true, now); h {
					held[n] = now
				}
			}
			for {
				size, _, _, _ := p.Next(to, now)
				if size == 0 {
					break
				}
				if at, ok := held[int(binary.BigEndian.Uint16(to))]; ok {
					longest = max(longest, now-at)
				}
			}
		}
		t.Logf("%d bit/s: the longest that a repair waited %v, of %d that waited", rate, longest, len(held))
		if longest > repairStale {
			t.Errorf("%d bit/s: a repair waited for %v", rate, longest)
		}
	}
}

func TestThePacerIsBounded(t *testing.T) {
	var p Pacer
	p.Follow(200_000, 0, 0)
	kept := 0
	for i := range 1000 {
		held, full, _ := p.Hold(numbered(i), 0, 20, false, time.Second)
		if held {
			kept++
		} else if full && p.Room() {
			t.Fatal("room, and none")
		}
	}
	if kept != maxWaiting {
		t.Errorf("%d packets are kept", kept)
	}
	p.Follow(0, 0, time.Second) // the path is wide: all goes
	if p.Idle() {
		t.Error("idle with packets")
	}
	if numbers, _ := take(&p, time.Second, time.Second+10*time.Millisecond); len(numbers) != maxWaiting || !p.Room() || !p.Idle() {
		t.Errorf("%d packets went", len(numbers))
	}
}

func TestPacingAllocatesNothing(t *testing.T) {
	var p Pacer
	p.Follow(1_000_000, 0, 0)
	now := time.Second
	b, to := numbered(1), make([]byte, packets.MaxSize)
	if n := testing.AllocsPerRun(100, func() {
		for i := range 40 {
			p.Hold(b, 0, 20, i%4 == 0, now)
		}
		for range 200 {
			now += 5 * time.Millisecond
			for {
				if n, _, _, _ := p.Next(to, now); n == 0 {
					break
				}
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
