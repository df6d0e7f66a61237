// SPDX-License-Identifier: Apache-2.0

// Package rooms loads an SFU that speaks LiveKit's client protocol, ours or another, with participants who send sound and pictures and
// who listen, on loopback and bounded in time. It gives rows of a table: how long joining takes, and what forwarding costs the server.
package rooms

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/webrtc/v4"
	"github.com/trunkboard/trunkboard/loadtest/figures"
)

// Bounds of a run.
const (
	MaxDuration     = 2 * time.Minute
	MaxParticipants = 500
)

// Scenario is one room and what goes on in it.
type Scenario struct {
	URL         string // ws://host:port, below which /rtc is
	Key, Secret string // of the server's API
	Label       string // name of the server in the table
	Publishers  int
	Listeners   int           // who only listen
	Audio       bool          // publishers send sound
	Video       bool          // and pictures
	Kbps        int           // of the pictures
	Meeting     bool          // publishers listen to each other
	Warm        time.Duration // between the last join and the timed part
	Duration    time.Duration // of the timed part
	PID         int           // of the server, to measure what it uses; 0: not measured
}

// Result is what a scenario gives.
type Result struct {
	Rows      string // of the table that figures.Head begins
	Note      string
	Forwarded uint64 // packets that arrived at listeners in the timed part
	Lost      uint64
	CPU       time.Duration // of the server in the timed part
	Joined    int
}

// Check says what is wrong with the scenario.
func (s *Scenario) Check() error {
	u, err := url.Parse(s.URL)
	if err != nil {
		return err
	}
	if ip := net.ParseIP(u.Hostname()); u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("%s is not on loopback; load clients go nowhere else", s.URL)
	}
	switch {
	case u.Scheme != "ws":
		return fmt.Errorf("%s: want ws://host:port", s.URL)
	case s.Publishers < 0 || s.Listeners < 0 || s.Publishers+s.Listeners == 0 || s.Publishers+s.Listeners > MaxParticipants:
		return fmt.Errorf("want 1 to %d participants", MaxParticipants)
	case s.Duration <= 0 || s.Duration > MaxDuration || s.Warm < 0 || s.Warm > MaxDuration:
		return fmt.Errorf("durations are at most %v", MaxDuration)
	case s.Kbps < 50 || s.Kbps > 20_000:
		return errors.New("pictures take 50 to 20000 kbit/s")
	}
	return nil
}

// run is a scenario under way.
type run struct {
	s    Scenario
	api  *webrtc.API
	room string
	sent atomic.Uint64

	mu     sync.Mutex
	failed error
}

func (r *run) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = errors.Join(r.failed, err)
}

// Run runs the scenario.
func (s Scenario) Run(ctx context.Context) (Result, error) {
	if err := s.Check(); err != nil {
		return Result{}, err
	}
	r := &run{s: s, room: "load-" + strconv.FormatInt(time.Now().UnixNano(), 36)}
	se := webrtc.SettingEngine{}
	se.SetIncludeLoopbackCandidate(true)
	se.SetInterfaceFilter(func(name string) bool { return name == "lo" })
	se.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	me := &webrtc.MediaEngine{}
	if err := me.RegisterDefaultCodecs(); err != nil {
		return Result{}, err
	}
	r.api = webrtc.NewAPI(webrtc.WithSettingEngine(se), webrtc.WithMediaEngine(me))

	var all, listening []*client
	defer func() {
		for _, c := range all {
			c.close()
		}
	}()
	for i := range s.Publishers {
		c, err := r.newClient(ctx, fmt.Sprint("publisher", i), s.Meeting)
		if c != nil {
			all = append(all, c)
		}
		if err != nil {
			return Result{}, err
		}
		for kind, on := range map[string]bool{"audio": s.Audio, "video": s.Video} {
			if !on {
				continue
			}
			if err := c.publish(kind, s.Kbps); err != nil {
				return Result{}, err
			}
		}
		if s.Meeting {
			listening = append(listening, c)
		}
	}
	sounds := s.Publishers > 0 && (s.Audio || s.Video)
	for i := range s.Listeners { // one after the other: each waits for its first media, whose time is one of the figures
		c, err := r.newClient(ctx, fmt.Sprint("listener", i), true)
		if c != nil {
			all = append(all, c)
		}
		if err == nil && sounds {
			err = wait(ctx, c.heard.done, c.identity+"'s first media")
		}
		if err != nil {
			return Result{}, err
		}
		listening = append(listening, c)
	}
	if err := pause(ctx, s.Warm); err != nil {
		return Result{}, err
	}
	each := func(f func(*arrival)) {
		for _, c := range listening {
			c.mu.Lock()
			for _, a := range c.arrived {
				f(a)
			}
			c.mu.Unlock()
		}
	}
	each((*arrival).mark)
	own, server, sent, began := figures.Used([]int{os.Getpid()}), figures.Used([]int{s.PID}), r.sent.Load(), time.Now()
	if err := pause(ctx, s.Duration); err != nil {
		return Result{}, err
	}
	took := time.Since(began)
	used, ownNow := figures.Used([]int{s.PID}), figures.Used([]int{os.Getpid()})
	var packets, bytes, expected uint64
	each(func(a *arrival) {
		p, b, e := a.since()
		packets, bytes, expected = packets+p, bytes+b, expected+e
	})
	result := Result{Forwarded: packets, Lost: max(packets, expected) - packets, CPU: used.CPU - server.CPU, Joined: len(all)}
	load := fmt.Sprintf("%dx%d", s.Publishers, len(listening))
	var joins, ups, first figures.Series
	for _, c := range all {
		joins.Add(c.joined.at)
		for o, series := range map[*once]*figures.Series{&c.connected: &ups, &c.heard: &first} {
			select {
			case <-o.done:
				series.Add(o.at)
			default:
			}
		}
	}
	for _, row := range []struct {
		what string
		s    *figures.Series
	}{{"let in", &joins}, {"connected", &ups}, {"first media", &first}} {
		if row.s.Len() > 0 {
			result.Rows += figures.Row("rooms", s.Label, load, row.what, row.s.Len(), took, row.s)
		}
	}
	sec := took.Seconds()
	result.Note = fmt.Sprintf("%.0f packets/s in, %.0f forwarded, %.1f Mbit/s, %d lost; generator %.2f cores", float64(r.sent.Load()-sent)/sec, float64(packets)/sec, float64(8*bytes)/sec/1e6, result.Lost, (ownNow.CPU-own.CPU).Seconds()/sec)
	if s.PID > 0 {
		result.Note += fmt.Sprintf("; server %.1f %% of a core, RSS %d MB", 100*result.CPU.Seconds()/sec, used.RSS>>20)
		if packets > 0 {
			result.Note += fmt.Sprintf(", %.2f CPU-s for each million forwarded", result.CPU.Seconds()/float64(packets)*1e6)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return result, r.failed
}

// pause waits for a part of the run to pass.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
