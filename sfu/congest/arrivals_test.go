// SPDX-License-Identifier: Apache-2.0

package congest

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pion/rtcp"
)

// read gives the packets and arrival times of a feedback message, as pion reads it.
func read(t *testing.T, b []byte) map[uint16]time.Duration {
	t.Helper()
	var f rtcp.TransportLayerCC
	if err := f.Unmarshal(b); err != nil {
		t.Fatalf("% x: %v", b, err)
	}
	got := map[uint16]time.Duration{}
	at, next, delta := time.Duration(f.ReferenceTime)*64*time.Millisecond, f.BaseSequenceNumber, 0
	left := int(f.PacketStatusCount)
	for _, c := range f.PacketChunks {
		v, ok := c.(*rtcp.StatusVectorChunk)
		if !ok {
			t.Fatalf("chunk %T", c)
		}
		for _, s := range v.SymbolList {
			if left == 0 {
				break
			}
			left--
			if s != rtcp.TypeTCCPacketNotReceived {
				at += time.Duration(f.RecvDeltas[delta].Delta) * time.Microsecond
				delta++
				got[next] = at
			}
			next++
		}
	}
	return got
}

func TestFeedbackSaysWhatArrivedAndWhen(t *testing.T) {
	var a Arrivals
	r := rand.New(rand.NewPCG(1, 2))
	at := 5 * time.Second
	sn := uint16(65000)
	for range 200 {
		want := map[uint16]time.Duration{}
		for range 1 + r.IntN(60) {
			sn++
			at += time.Duration(r.IntN(400)) * tick
			if r.IntN(10) == 0 && len(want) > 0 {
				continue // lost
			}
			a.Note(sn, at)
			want[sn] = at
		}
		if diff := cmp.Diff(want, read(t, a.Append(nil, 1, 2))); diff != "" {
			t.Fatal(diff)
		}
	}
	if a.Pending() || a.Append(nil, 1, 2) != nil {
		t.Error("something is left")
	}
}

func TestALongSilenceBeginsANewMessage(t *testing.T) {
	var a Arrivals
	a.Note(1, time.Second)
	a.Note(2, time.Minute)
	if got := read(t, a.Append(nil, 1, 2)); len(got) != 1 || got[1] != time.Second {
		t.Errorf("first %v", got)
	}
	if got := read(t, a.Append(nil, 1, 2)); len(got) != 1 || got[2] != time.Minute {
		t.Errorf("second %v", got)
	}
}

func TestAJumpOfTheNumbersIsSurvived(t *testing.T) {
	var a Arrivals
	for _, sn := range []uint16{1, 30000, 60000, 5, 40000, 39999} {
		a.Note(sn, time.Duration(sn)*time.Millisecond)
	}
	for range 100 {
		if b := a.Append(nil, 1, 2); b == nil {
			return
		}
	}
	t.Error("it never ends")
}

func TestFeedbackTellsOfWhatIsMissingBetweenTwoMessages(t *testing.T) {
	var a Arrivals
	for sn := range uint16(10) {
		a.Note(100+sn, time.Second)
	}
	lost := func() (n int) {
		ReadFeedback(a.Append(nil, 1, 2)[4:], func(_ uint16, _ time.Duration, received bool) {
			if !received {
				n++
			}
		})
		return n
	}
	if n := lost(); n != 0 {
		t.Errorf("%d lost", n)
	}
	a.Note(150, 2*time.Second)
	if n := lost(); n != 40 {
		t.Errorf("%d told as lost, want those from 110 to 149", n)
	}
	a.Note(700, 3*time.Second) // the sender has begun anew
	if n := lost(); n != 0 {
		t.Errorf("%d told as lost after a jump", n)
	}
}
