// SPDX-License-Identifier: Apache-2.0

package congest

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pion/rtcp"
)

// link is a path with a rate, a queue that drops what does not fit, a delay and random loss; its end writes feedback.
type link struct {
	e        Estimator
	r        *rand.Rand
	now      time.Duration
	rate     float64       // bit/s
	queue    time.Duration // longest
	delay    time.Duration
	loss     float64
	free     time.Duration // when the link has sent everything
	arrivals Arrivals
	flying   []flying
	fed      time.Duration
	dropped  int
}

type flying struct {
	sequence uint16
	at       time.Duration
}

func newLink(rate float64) *link {
	return &link{r: rand.New(rand.NewPCG(1, 2)), now: time.Second, rate: rate, queue: 300 * time.Millisecond, delay: 20 * time.Millisecond}
}

func (l *link) send(size int) {
	sn := l.e.Sent(size, Ref{}, l.now)
	if l.r.Float64() < l.loss {
		return
	}
	l.free = max(l.free, l.now)
	if l.free-l.now > l.queue {
		l.dropped++
		return
	}
	l.free += time.Duration(float64(size*8) / l.rate * float64(time.Second))
	l.flying = append(l.flying, flying{sn, l.free + l.delay})
}

// run sends frames of a source whose rate is given by want, 30 a second, for d.
func (l *link) run(d time.Duration, want func() float64) {
	for end := l.now + d; l.now < end; l.now += 33 * time.Millisecond {
		for bytes := int(want() / 8 / 30); bytes > 0; bytes -= 1100 {
			l.send(max(60, min(1100, bytes)))
		}
		l.settle()
	}
}

func (l *link) settle() {
	for len(l.flying) > 0 && l.flying[0].at <= l.now {
		l.arrivals.Note(l.flying[0].sequence, l.flying[0].at)
		l.flying = l.flying[1:]
	}
	if l.now-l.fed > 100*time.Millisecond && l.arrivals.Pending() {
		l.fed = l.now
		l.e.Feedback(l.arrivals.Append(nil, 1, 2)[4:], l.now, nil)
	}
}

// want sends what the estimate allows, up to most.
func (l *link) want(most float64) func() float64 {
	return func() float64 {
		if rate, limited := l.e.Limited(); limited {
			return min(most, float64(rate))
		}
		return most
	}
}

func TestAPathThatCarriesEverythingIsNotLimited(t *testing.T) {
	l := newLink(20e6)
	if !l.e.Listening(l.now) {
		t.Error("does not ask for feedback on a new path")
	}
	l.run(30*time.Second, l.want(3e6))
	if rate, limited := l.e.Limited(); limited {
		t.Errorf("limited to %d", rate)
	}
	if l.e.Listening(l.now) {
		t.Error("still asks for feedback after 30 s without anything to learn")
	}
	l.e.Suspect(l.now)
	if !l.e.Listening(l.now) {
		t.Error("does not ask for feedback although something looks wrong")
	}
}

func TestTheEstimateFindsANarrowPath(t *testing.T) {
	for _, rate := range []float64{400e3, 1e6, 2.5e6} {
		l := newLink(rate)
		l.run(10*time.Second, l.want(4e6))
		l.dropped = 0
		low, high := rate, 0.0
		l.run(20*time.Second, func() float64 {
			now := l.want(4e6)()
			low, high = min(low, now), max(high, now)
			return now
		})
		got, limited := l.e.Limited()
		if !limited || low < 0.5*rate || high > 1.35*rate {
			t.Errorf("%.0f bit/s: estimate from %.0f to %.0f, now %d, limited %v", rate, low, high, got, limited)
		}
		if l.dropped > 100 {
			t.Errorf("%.0f bit/s: %d packets did not fit", rate, l.dropped)
		}
	}
}

func TestAPathThatNarrowsAndWidensIsFollowed(t *testing.T) {
	l := newLink(5e6)
	l.run(5*time.Second, l.want(2e6))
	l.rate = 600e3
	l.run(5*time.Second, l.want(2e6))
	if got, limited := l.e.Limited(); !limited || got > 800e3 {
		t.Fatalf("narrow: %d, limited %v", got, limited)
	}
	l.rate = 5e6
	// The tracks in use take what is allocated; a probe shows that there is more.
	l.run(2*time.Second, l.want(500e3))
	l.e.StartProbe(2e6, false, l.now)
	l.run(200*time.Millisecond, func() float64 { return 2e6 })
	l.e.EndProbe(l.now)
	l.run(500*time.Millisecond, l.want(500e3))
	if found, _ := l.e.ProbeResult(l.now); !found {
		t.Error("the probe failed")
	}
	if got, _ := l.e.Limited(); got < 1.6e6 {
		t.Errorf("after the probe: %d", got)
	}
	for range 20 {
		l.run(time.Second, l.want(1.2e6))
		l.e.Asked(1.2e6, l.now)
	}
	if got, limited := l.e.Limited(); limited {
		t.Errorf("wide again: still limited to %d", got)
	}
}

func TestAProbeOfANarrowPathFails(t *testing.T) {
	l := newLink(700e3)
	l.run(10*time.Second, l.want(2e6))
	before, _ := l.e.Limited()
	l.e.StartProbe(2e6, false, l.now)
	l.run(200*time.Millisecond, func() float64 { return 2e6 })
	l.e.EndProbe(l.now)
	l.run(time.Second, l.want(500e3))
	if found, conclusive := l.e.ProbeResult(l.now); found || !conclusive {
		t.Error("the probe found room that is not there")
	}
	if after, _ := l.e.Limited(); after > before+before/5 {
		t.Errorf("estimate %d -> %d", before, after)
	}
}

func TestRandomLossDoesNotStarveAPath(t *testing.T) {
	l := newLink(20e6)
	l.loss = 0.3
	l.run(60*time.Second, l.want(2e6))
	if rate, limited := l.e.Limited(); limited && rate < 600e3 {
		t.Errorf("30 %% random loss on a wide path: limited to %d", rate)
	}
	if n := l.e.Loss(); n < 0.2 || n > 0.4 {
		t.Errorf("loss %v", n)
	}
}

func TestLossThatLowerRatesCureIsCongestion(t *testing.T) {
	l := newLink(800e3)
	l.queue = 5 * time.Millisecond // a policer: it drops and does not delay
	l.run(20*time.Second, l.want(3e6))
	if got, limited := l.e.Limited(); !limited || got > 1.6e6 {
		t.Errorf("estimate %d, limited %v", got, limited)
	}
}

func TestFeedbackIsReadAsPionWritesIt(t *testing.T) {
	f := rtcp.TransportLayerCC{
		BaseSequenceNumber: 65534, PacketStatusCount: 12, ReferenceTime: 5,
		PacketChunks: []rtcp.PacketStatusChunk{
			&rtcp.RunLengthChunk{PacketStatusSymbol: rtcp.TypeTCCPacketReceivedSmallDelta, RunLength: 3},
			&rtcp.StatusVectorChunk{SymbolSize: rtcp.TypeTCCSymbolSizeTwoBit, SymbolList: []uint16{0, 2, 0, 1, 0, 0, 2}},
			&rtcp.RunLengthChunk{PacketStatusSymbol: rtcp.TypeTCCPacketNotReceived, RunLength: 2},
		},
	}
	for _, d := range []int64{1, 2, 3, -40, 7, 500} {
		kind := uint16(rtcp.TypeTCCPacketReceivedSmallDelta)
		if d < 0 || d > 255 {
			kind = rtcp.TypeTCCPacketReceivedLargeDelta
		}
		f.RecvDeltas = append(f.RecvDeltas, &rtcp.RecvDelta{Type: kind, Delta: d * 250})
	}
	f.Header = rtcp.Header{Type: rtcp.TypeTransportSpecificFeedback, Count: rtcp.FormatTCC, Padding: true}
	f.Header.Length = uint16(f.MarshalSize()/4 - 1)
	b, err := f.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	got := map[uint16]time.Duration{}
	lost := 0
	if !ReadFeedback(b[4:], func(sn uint16, at time.Duration, received bool) {
		if received {
			got[sn] = at - 5*refTick
		} else {
			lost++
		}
	}) {
		t.Fatal("refused")
	}
	want := map[uint16]time.Duration{65534: 1, 65535: 3, 0: 6, 2: -34, 4: -27, 7: 473}
	if len(got) != len(want) || lost != 6 {
		t.Fatalf("got %v, %d lost", got, lost)
	}
	for sn, n := range want {
		if got[sn] != n*tick {
			t.Errorf("packet %d at %v, want %v", sn, got[sn], n*tick)
		}
	}
}

func FuzzReadFeedback(f *testing.F) {
	var a Arrivals
	for i := range uint16(100) {
		if i%7 != 0 {
			a.Note(i, time.Duration(i)*3*time.Millisecond)
		}
	}
	f.Add(a.Append(nil, 1, 2)[4:])
	f.Add([]byte{15: 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		ReadFeedback(b, func(uint16, time.Duration, bool) { n++ })
		if n > maxDescribed {
			t.Errorf("%d packets in %d bytes", n, len(b))
		}
		var e Estimator
		for range 50 {
			e.Sent(1000, Ref{}, time.Second)
		}
		e.Feedback(b, 2*time.Second, nil)
		if rate, limited := e.Limited(); limited && rate < floor {
			t.Errorf("rate %d", rate)
		}
	})
}

func TestAllocation(t *testing.T) {
	camera := Demand{Wanted: 2, Now: 2, Rate: [MaxSteps]int{150_000, 450_000, 1_700_000}}
	small := camera
	small.Wanted = 0
	screen := Demand{Wanted: 2, Now: 2, Rate: [MaxSteps]int{0, 800_000, 2_500_000}, Ahead: true}
	chosen, first := camera, camera
	chosen.Priority, first.Priority = 10, 20
	single := Demand{Wanted: 2, Now: 2, Rate: [MaxSteps]int{1_000_000, 0, 0}}
	hidden := camera
	hidden.Wanted = -1
	fresh := camera
	fresh.Now = 0
	// Three pictures of three temporal layers: of the upper ones only what has half the frames at least.
	thin := Demand{Wanted: 8, Now: 8, Rate: [MaxSteps]int{60_000, 100_000, 150_000, 0, 300_000, 450_000, 0, 1_200_000, 1_700_000}}
	slow := thin
	slow.Wanted = 7
	for _, c := range []struct {
		name    string
		rate    int
		demands []Demand
		want    []int
	}{
		{"all fits", 10_000_000, []Demand{camera, small, screen, hidden}, []int{2, 0, 2, -1}},
		{"two cameras in the middle", 1_000_000, []Demand{camera, camera}, []int{1, 1}},
		{"the lowest of all comes before the highest of one", 2_000_000, []Demand{camera, camera, camera}, []int{1, 1, 1}},
		{"the screen first", 900_000, []Demand{camera, screen}, []int{-1, 1}},
		{"the screen and a little picture", 1_000_000, []Demand{camera, screen}, []int{0, 1}},
		{"priority keeps quality", 2_000_000, []Demand{camera, camera, chosen}, []int{0, 0, 2}},
		{"and goes down last", 1_100_000, []Demand{camera, camera, chosen}, []int{1, 0, 1}},
		{"the lowest of all come first nevertheless", 500_000, []Demand{camera, camera, chosen}, []int{0, 0, 0}},
		{"and stops last", 200_000, []Demand{camera, screen, chosen}, []int{-1, -1, 0}},
		{"two priorities", 1_200_000, []Demand{camera, chosen, first}, []int{0, 1, 1}},
		{"the first one always gets something", 50_000, []Demand{camera, camera}, []int{0, -1}},
		{"one stream", 500_000, []Demand{camera, single}, []int{1, -1}},
		{"a higher layer needs room to spare", 1_750_000, []Demand{fresh}, []int{1}},
		{"what it has it keeps", 1_750_000, []Demand{camera}, []int{2}},
		{"frames go before the size does", 1_300_000, []Demand{thin}, []int{7}},
		{"then the size", 500_000, []Demand{thin}, []int{5}},
		{"few frames before none at all", 130_000, []Demand{thin, thin}, []int{0, 0}},
		{"frames of both", 210_000, []Demand{thin, thin}, []int{1, 1}},
		{"who wants few frames gets no more", 9_000_000, []Demand{slow, thin}, []int{7, 8}},
		{"nothing is known of it yet", 100_000, []Demand{{Wanted: 2, Now: 2}}, []int{2}},
	} {
		got := Allocate(c.rate, 1, c.demands)
		for i := range got {
			if got[i] != c.want[i] {
				t.Errorf("%s: %v, want %v", c.name, got, c.want)
				break
			}
		}
	}
	shown, stopped := small, small
	shown.Now, stopped.Now = 0, -1
	for _, c := range []struct {
		rate int
		keep float64
		now  Demand
		want int
	}{
		{310_000, StopRoom, stopped, -1}, {350_000, StopRoom, stopped, 0}, {300_000, 1, shown, 0}, {290_000, 1, shown, -1}, {230_000, StopRoom, shown, 0}, {220_000, StopRoom, shown, -1},
	} {
		if got := Allocate(c.rate, c.keep, []Demand{shown, c.now})[1]; got != c.want {
			t.Errorf("two small pictures of 150 kbit/s, the second now at %d, at %d with %v: %d", c.now.Now, c.rate, c.keep, got)
		}
	}
	if n := Next([]Demand{camera, camera}, []int{1, 0}); n != 600_000+int(1.15*300_000) {
		t.Errorf("next step at %d", n)
	}
	if n := Next([]Demand{camera}, []int{2}); n != 0 {
		t.Errorf("a step beyond all at %d", n)
	}
}

func TestQualityFollowsLossAndDelay(t *testing.T) {
	for _, c := range []struct {
		loss         float64
		jitter, trip time.Duration
		limited      bool
		want         Quality
	}{
		{0, time.Millisecond, 20 * time.Millisecond, false, Excellent},
		{0.01, 5 * time.Millisecond, 60 * time.Millisecond, false, Excellent},
		{0.05, 5 * time.Millisecond, 60 * time.Millisecond, false, Good},
		{0, 5 * time.Millisecond, 60 * time.Millisecond, true, Good},
		{0.15, 20 * time.Millisecond, 100 * time.Millisecond, false, Poor},
		{0.3, 0, 0, false, Poor},
	} {
		if q, score := Judge(c.loss, c.jitter, c.trip, c.limited); q != c.want || score < 1 || score > 5 {
			t.Errorf("%+v: %v (%.2f)", c, q, score)
		}
	}
}
