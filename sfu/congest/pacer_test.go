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
	return b
}

func TestAKeyFrameIsSpreadOverTime(t *testing.T) {
	var p Pacer
	p.Follow(1_000_000, 0)
	now := time.Second
	direct := 0
	for i := range 60 { // 60 kB: 320 ms at 1.5 Mbit/s
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
	if last := at[len(at)-1] - now; last < 250*time.Millisecond || last > 400*time.Millisecond {
		t.Errorf("the last one went after %v", last)
	}
	if held, _, _ := p.Hold(numbered(60), 0, 20, false, now+2*time.Second); held {
		t.Error("a small frame waits although nothing does")
	}
}

func TestNothingWaitsForLongerThanAMoment(t *testing.T) {
	var p Pacer
	p.Follow(100_000, 0)
	for i := range 200 { // 10 s at that rate
		p.Hold(numbered(i), 0, 20, false, time.Second)
	}
	if numbers, at := take(&p, time.Second, 20*time.Second); len(numbers) < 195 || at[len(at)-1] > time.Second+4*paceWithin {
		t.Errorf("%d packets, the last after %v", len(numbers), at[len(at)-1]-time.Second)
	}
}

func TestRepairsGoFirstButCannotStarveMedia(t *testing.T) {
	var p Pacer
	p.Follow(800_000, 0) // 150 kB/s
	for i := range 100 {
		p.Hold(numbered(i), 0, 20, false, time.Second)
	}
	refused := 0
	for i := range 100 {
		if _, full, _ := p.Hold(numbered(1000+i), 0, 20, true, time.Second); full {
			refused++
		}
	}
	if refused != 100-maxRepairs {
		t.Errorf("%d repairs were refused, %d fit", refused, maxRepairs)
	}
	numbers, _ := take(&p, time.Second, time.Second+300*time.Millisecond)
	repairs := 0
	for _, n := range numbers {
		if n >= 1000 {
			repairs++
		}
	}
	if numbers[0] < 1000 || repairs < len(numbers)/4 || repairs > len(numbers)/2 {
		t.Errorf("%d of %d were repairs, the first %d", repairs, len(numbers), numbers[0])
	}
}

func TestThePacerIsBounded(t *testing.T) {
	var p Pacer
	p.Follow(200_000, 0)
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
	p.Follow(0, time.Second) // the path is wide: all goes
	if p.Idle() {
		t.Error("idle with packets")
	}
	if numbers, _ := take(&p, time.Second, time.Second+10*time.Millisecond); len(numbers) != maxWaiting || !p.Room() || !p.Idle() {
		t.Errorf("%d packets went", len(numbers))
	}
}

func TestPacingAllocatesNothing(t *testing.T) {
	var p Pacer
	p.Follow(1_000_000, 0)
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
