// SPDX-License-Identifier: Apache-2.0

package livekit

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"
	"github.com/trunkboard/trunkboard/sfu/livekit/wire"
)

// inNamespace runs the calling test again in a network namespace of its own, where it may drop packets, and reports whether this is
// that second run. It needs root, unshare, ip and nft.
func inNamespace(t *testing.T) bool {
	t.Helper()
	const inside = "TRUNKBOARD_TEST_INSIDE"
	if os.Getenv(inside) == t.Name() {
		if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
			t.Fatalf("ip: %v %s", err, out)
		}
		return true
	}
	if testing.Short() {
		t.Skip("a drill")
	}
	for _, tool := range []string{"unshare", "ip", "nft"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("there is no " + tool)
		}
	}
	if out, err := exec.Command("unshare", "-n", "true").CombinedOutput(); err != nil {
		t.Skipf("no namespaces here: %s", out)
	}
	cmd := exec.CommandContext(t.Context(), "unshare", "-n", os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v", "-test.timeout", "15m")
	cmd.Env = append(os.Environ(), inside+"="+t.Name())
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Errorf("inside the namespace: %v", err)
	}
	return false
}

// rule lets nft decide about media packets that come in.
func rule(t *testing.T, text string) {
	t.Helper()
	chain(t, "input", text)
}

// chain puts a rule into a hook, instead of any before.
func chain(t *testing.T, hook, text string) {
	t.Helper()
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader("table inet drill\ndelete table inet drill\ntable inet drill {\nchain c {\ntype filter hook " + hook + " priority 0\n" + text + "\n}\n}\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v %s", err, out)
	}
}

// TestDrillACallLivesThroughHeavyLoss loses three of ten datagrams in each direction, from before the first one, and looks for silence.
// Of the sound, which these clients do not repair, half arrives over the two hops; what the test wants is that it never stops: that no second
// of it is missing. That is counted in packets, of which there are fifty a second: a busy machine delays what it does not lose.
func TestDrillACallLivesThroughHeavyLoss(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	lasts := 20 * time.Second
	if os.Getenv("TRUNKBOARD_TEST_LONG") != "" {
		lasts = 10 * time.Minute
	}
	h := newHouse(t, nil)
	rule(t, "meta l4proto udp numgen random mod 100 < 30 drop")
	a, _ := enter(t, h, options{identity: "alice", room: "r", single: true})
	audio, video := a.publish("audio"), a.publish("video")
	b, _ := enter(t, h, options{identity: "bob", room: "r", single: true})
	tracks := map[string]*webrtc.TrackRemote{}
	for range 2 {
		tr := wait(t, b.tracks, "a track")
		tracks[tr.ID()] = tr
	}
	type result struct {
		name          string
		gap           time.Duration
		missing       int // the longest run of packets that did not come
		got, expected int
		err           error
	}
	results := make(chan result, 2)
	stop := make(chan struct{})
	defer close(stop)
	go func() { // as clients do
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Second):
			}
			for _, c := range []*client{a, b} {
				c.say(&wire.SignalRequest{Message: &wire.SignalRequest_PingReq{PingReq: &wire.Ping{}}})
			}
		}
	}()
	for name, sid := range map[string]string{"audio": audio, "video": video} {
		tr := tracks[sid]
		if tr == nil {
			t.Fatalf("no %s", name)
		}
		go func() {
			r := result{name: name}
			seen := map[int]bool{}
			end := time.Now().Add(lasts)
			first, highest, wraps := -1, 0, 0
			for last := time.Now(); time.Now().Before(end); last = time.Now() {
				_ = tr.SetReadDeadline(time.Now().Add(patience))
				p, _, err := tr.ReadRTP()
				if err != nil {
					r.err = err
					break
				}
				if first >= 0 {
					r.gap = max(r.gap, time.Since(last))
				} else {
					first, highest = int(p.SequenceNumber), int(p.SequenceNumber)
				}
				n := int(p.SequenceNumber) + wraps<<16
				if n < highest-1<<15 {
					wraps++
					n += 1 << 16
				}
				highest = max(highest, n)
				seen[n] = true
			}
			r.expected = highest - first + 1
			for n, missing := first, 0; n <= highest; n++ {
				if missing++; seen[n] {
					r.got++
					missing = 0
				}
				r.missing = max(r.missing, missing)
			}
			results <- r
		}()
	}
	for range 2 {
		r := <-results
		t.Logf("%s for %v: %d of %d packets, longest gap %v and %d packets", r.name, lasts, r.got, r.expected, r.gap.Round(time.Millisecond), r.missing)
		if r.err != nil || r.missing >= 50 || r.got < r.expected*2/5 {
			t.Errorf("%s: %v, longest gap %d packets, %d of %d", r.name, r.err, r.missing, r.got, r.expected)
		}
	}
	a.say(&wire.SignalRequest{Message: &wire.SignalRequest_PingReq{PingReq: &wire.Ping{Timestamp: 1}}})
	a.until("a pong", func(m *wire.SignalResponse) bool { return m.GetPongResp() != nil })
	if n := h.engine.Totals().Participants; n != 2 {
		t.Errorf("%d participants are left", n)
	}
}
