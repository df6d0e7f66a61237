// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/trunkboard/trunkboard/loadtest/figures"
	"github.com/trunkboard/trunkboard/loadtest/matrix"
)

// Calls is a load of 1:1 calls by m.call events (version 1): invite, candidates, answer, candidates, select_answer, hangup. Both
// sides act on what their own syncs bring. Media does not flow: this measures signalling.
type Calls struct {
	Config
	Pairs int            // who call each other, one call of a pair at a time
	Peer  *matrix.Server // where the callees are; nil: where the callers are
}

type callPair struct {
	caller, callee *matrix.User
	room           string
	toCaller       chan sighting
	toCallee       chan sighting
}

type sighting struct {
	mark string
	at   time.Time
}

// wait passes over what belongs to earlier calls until mark comes.
func wait(from <-chan sighting, mark string, late <-chan time.Time) (time.Time, bool) {
	for {
		select {
		case s := <-from:
			if s.mark == mark {
				return s.at, true
			}
		case <-late:
			return time.Time{}, false
		}
	}
}

// Run makes the accounts and rooms, then the calls.
func (c Calls) Run(ctx context.Context, s *matrix.Server) (Result, error) {
	pairs := make([]*callPair, c.Pairs)
	there := s
	if c.Peer != nil {
		there = c.Peer
	}
	err := each(c.Pairs, func(i int) (err error) {
		p := &callPair{toCaller: make(chan sighting, 64), toCallee: make(chan sighting, 64)}
		if p.caller, err = s.Register(ctx, "caller"+strconv.Itoa(i)); err != nil {
			return err
		}
		if p.callee, err = there.Register(ctx, "callee"+strconv.Itoa(i)); err != nil {
			return err
		}
		p.room, err = p.caller.CreateRoom(ctx, p.callee)
		pairs[i] = p
		return err
	})
	if err != nil {
		return Result{}, fmt.Errorf("preparing: %w", err)
	}
	var bad faults
	var users []*matrix.User
	for _, p := range pairs {
		users = append(users, p.caller, p.callee)
	}
	stop := follow(ctx, users, &bad, func(i int, mark string, at time.Time) {
		to := pairs[i/2].toCaller
		if i%2 == 1 {
			to = pairs[i/2].toCallee
		}
		select {
		case to <- sighting{mark, at}:
		default:
			bad.add("a client fell behind its own syncs")
		}
	})
	var ring, setup figures.Series
	used := startUsage(c.PIDs, os.Getpid())
	started := time.Now()
	offer(ctx, c.Duration, c.Rate, c.Pairs, func(w int, due time.Time) {
		if what := pairs[w].call(ctx, due, &ring, &setup); what != "" {
			bad.add(what)
		}
	})
	r := Result{Done: setup.Len(), Elapsed: time.Since(started), Notes: []string{used.note("call", setup.Len())}}
	stop()
	load := fmt.Sprintf("%d pairs, %s", c.Pairs, c.text())
	r.Rows = figures.Row("calls", c.Label, load, "invite -> callee", ring.Len(), r.Elapsed, &ring) +
		figures.Row("calls", c.Label, load, "call set up", setup.Len(), r.Elapsed, &setup)
	r.Errors = bad.all()
	return r, nil
}

// call makes one call; it gives what went wrong.
func (p *callPair) call(ctx context.Context, due time.Time, ring, setup *figures.Series) string {
	late := time.NewTimer(patience)
	defer late.Stop()
	id := p.caller.Txn()
	send := func(u *matrix.User, typ, mark, more string) error {
		content := `{"call_id":"` + id + `","party_id":"` + u.Device + `","version":"1","org.trunkboard.load":"` + matrix.Mark(mark+id) + `"` + more + `}`
		_, err := u.Send(ctx, p.room, typ, u.Txn(), []byte(content))
		return err
	}
	if send(p.caller, "m.call.invite", "i", `,"lifetime":60000,"offer":{"type":"offer","sdp":"`+sdp+`"}`) != nil || send(p.caller, "m.call.candidates", "c", candidates) != nil {
		return "the invite was refused"
	}
	at, ok := wait(p.toCallee, "i"+id, late.C)
	if !ok {
		return "the invite did not arrive"
	}
	ring.Add(at.Sub(due))
	if send(p.callee, "m.call.answer", "a", `,"answer":{"type":"answer","sdp":"`+sdp+`"}`) != nil || send(p.callee, "m.call.candidates", "d", candidates) != nil {
		return "the answer was refused"
	}
	if _, ok = wait(p.toCaller, "a"+id, late.C); !ok {
		return "the answer did not arrive"
	}
	if send(p.caller, "m.call.select_answer", "s", `,"selected_party_id":"`+p.callee.Device+`"`) != nil {
		return "select_answer was refused"
	}
	if at, ok = wait(p.toCallee, "s"+id, late.C); !ok {
		return "select_answer did not arrive"
	}
	setup.Add(at.Sub(due))
	if send(p.caller, "m.call.hangup", "h", `,"reason":"user_hangup"`) != nil {
		return "the hangup was refused"
	}
	if _, ok = wait(p.toCallee, "h"+id, late.C); !ok {
		return "the hangup did not arrive"
	}
	return ""
}

// sdp is as long as what browsers send for one audio and one video track: about 3.5 KB, escaped for JSON.
var sdp = func() string {
	line := func(s string, n int) string { return strings.Repeat(s+`\r\n`, n) }
	return line("v=0", 1) + line("o=- 4611731400430051336 2 IN IP4 127.0.0.1", 1) + line("s=-", 1) + line("t=0 0", 1) + line("a=group:BUNDLE 0 1", 1) +
		line("m=audio 9 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126", 1) + line("a=fingerprint:sha-256 "+strings.Repeat("AB:", 31)+"CD", 2) +
		line("a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time", 12) + line("a=rtpmap:111 opus/48000/2", 8) +
		line("m=video 9 UDP/TLS/RTP/SAVPF 96 97 98 99 100 101 35 36 37 38 102 103", 1) + line("a=rtcp-fb:96 transport-cc", 30) + line("a=fmtp:97 apt=96", 24) +
		line("a=ssrc:1409127426 cname:8vCjKRbfJZmJxDDB", 6)
}()

// candidates are the rest of an m.call.candidates event of six.
var candidates = `,"candidates":[` + strings.TrimSuffix(strings.Repeat(`{"candidate":"candidate:842163049 1 udp 1677729535 198.51.100.7 46154 typ srflx raddr 0.0.0.0 rport 0 generation 0 ufrag 5oKb network-cost 999","sdpMid":"0","sdpMLineIndex":0},`, 6), ",") + `]`
