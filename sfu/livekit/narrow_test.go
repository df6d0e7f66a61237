// SPDX-License-Identifier: Apache-2.0

package livekit

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trunkboard/trunkboard/sfu"
	"github.com/trunkboard/trunkboard/sfu/livekit/wire"
)

// narrowPort is the media port of the subscriber whose path is narrow: in a namespace of its own, all are free.
const narrowPort = 40000

// narrow makes the path to narrowPort carry rate bytes a second. A policer drops what is above; a queue holds that many bytes, as a
// modem's does, and drops what does not fit.
func narrow(t *testing.T, rate int, police bool, queue int) {
	t.Helper()
	if police {
		rule(t, fmt.Sprintf("udp dport %d limit rate over %d bytes/second burst %d bytes drop", narrowPort, rate, queue))
		return
	}
	_ = exec.Command("tc", "qdisc", "del", "dev", "lo", "root").Run()
	for _, line := range []string{
		"qdisc add dev lo root handle 1: htb",
		fmt.Sprintf("class add dev lo parent 1: classid 1:20 htb rate %dbps burst 3000 cburst 3000 quantum 1600", rate),
		fmt.Sprintf("qdisc add dev lo parent 1:20 handle 20: bfifo limit %d", queue),
	} {
		if out, err := exec.Command("tc", strings.Fields(line)...).CombinedOutput(); err != nil {
			t.Skipf("this kernel has no queues to shape a path with: tc %s: %v %s", line, err, out)
		}
	}
	chain(t, "output", fmt.Sprintf("udp dport %d meta priority set 1:20", narrowPort))
}

// TestDrillANarrowPathPausesWhatDoesNotFit gives a subscriber two pictures of 55 kB/s over a path that carries one, or not even that, and
// then a wide path again.
func TestDrillANarrowPathPausesWhatDoesNotFit(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	cases := []struct {
		name   string
		rate   int
		police bool
		queue  int
		late   time.Duration // after which it becomes narrow
	}{
		{"a queue of 250 ms, 75 kB/s", 75_000, false, 19_000, 0},
		{"a policer, 75 kB/s", 75_000, true, 20_000, 0},
		{"a policer, 30 kB/s", 30_000, true, 20_000, 0},
		{"a policer of old, 75 kB/s, on a path that was wide for long", 75_000, true, 20_000, 10 * time.Second},
		{"a queue of a second, 60 kB/s, on a path that was wide for long", 60_000, false, 60_000, 10 * time.Second},
	}
	if os.Getenv("TRUNKBOARD_TEST_LONG") == "" {
		cases = cases[:1] // the other ones with TRUNKBOARD_TEST_LONG
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			rule(t, "meta l4proto udp accept")
			h := newHouse(t, func(e *sfu.Config, _ *Config) {
				if os.Getenv("TRUNKBOARD_TEST_VERBOSE") != "" {
					e.Log = slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{Level: slog.LevelDebug}))
				}
			})
			var sids []string
			for i := range 2 {
				p, _ := enter(t, h, options{identity: fmt.Sprint("p", i), room: "r", single: true})
				p.size = 1100 // 50 packets a second: 0.45 Mbit/s
				sids = append(sids, p.publish("video"))
			}
			b, _ := enter(t, h, options{identity: "bob", room: "r", single: true, mayPause: true, port: narrowPort})
			for range 2 {
				tr := wait(t, b.tracks, "a track")
				go func() {
					for {
						if _, _, err := tr.ReadRTP(); err != nil {
							return
						}
					}
				}()
			}
			time.Sleep(c.late) // the time itself is what is tested: nobody listens to the path any more by then
			is := func(state wire.StreamState, sids ...string) func(*wire.SignalResponse) bool {
				return func(m *wire.SignalResponse) bool {
					return slices.ContainsFunc(m.GetStreamStateUpdate().GetStreamStates(), func(s *wire.StreamStateInfo) bool {
						return s.GetState() == state && slices.Contains(sids, s.GetTrackSid())
					})
				}
			}
			narrow(t, c.rate, c.police, c.queue)
			begun := time.Now()
			paused := b.until("a pause", is(wire.StreamState_PAUSED, sids...)).GetStreamStateUpdate().GetStreamStates()[0]
			after := time.Since(begun)
			rule(t, "meta l4proto udp accept")
			begun = time.Now()
			b.until("the picture to go on", is(wire.StreamState_ACTIVE, paused.GetTrackSid()))
			t.Logf("paused after %v, goes on %v after the path is wide again", after.Round(10*time.Millisecond), time.Since(begun).Round(10*time.Millisecond))
		})
	}
}
