// SPDX-License-Identifier: Apache-2.0

// Package figures turns what a load client saw into a row of a Markdown table.
package figures

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Series is a set of durations. It is safe for concurrent use.
type Series struct {
	mu  sync.Mutex
	all []time.Duration
}

// Add counts one duration.
func (s *Series) Add(d time.Duration) {
	s.mu.Lock()
	s.all = append(s.all, d)
	s.mu.Unlock()
}

// Len is how many there are.
func (s *Series) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.all)
}

// Quantiles gives the durations below which the shares of all lie: 0.5 is the median. Of no durations all are 0.
func (s *Series) Quantiles(shares ...float64) []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.Sort(s.all)
	out := make([]time.Duration, len(shares))
	for i, q := range shares {
		if n := len(s.all); n > 0 {
			out[i] = s.all[min(n-1, int(q*float64(n)))]
		}
	}
	return out
}

// Head is the head of the table that Row fits.
const Head = "| client | server | load | what | n | per s | p50 ms | p95 ms | p99 ms | max ms |\n|---|---|---|---|---|---|---|---|---|---|\n"

// Row is a row of the table: n of something in a time, and how long each took.
func Row(client, server, load, what string, n int, in time.Duration, s *Series) string {
	q := s.Quantiles(0.5, 0.95, 0.99, 1)
	ms := func(d time.Duration) string { return strconv.FormatFloat(float64(d.Microseconds())/1000, 'f', 1, 64) }
	return fmt.Sprintf("| %s | %s | %s | %s | %d | %.1f | %s | %s | %s | %s |\n", client, server, load, what, n, float64(n)/in.Seconds(), ms(q[0]), ms(q[1]), ms(q[2]), ms(q[3]))
}

// Usage is what processes have used so far.
type Usage struct {
	CPU time.Duration
	RSS int64 // bytes, now
}

// Used sums the usage of processes and of their children (a database's backends).
func Used(pids []int) (u Usage) {
	parents := map[int][]int{}
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return u
	}
	stat := map[int][]string{}
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		if f := procStat(pid); f != nil {
			stat[pid] = f
			parent, _ := strconv.Atoi(f[1])
			parents[parent] = append(parents[parent], pid)
		}
	}
	seen := map[int]bool{}
	var add func(pid int)
	add = func(pid int) {
		f := stat[pid]
		if f == nil || seen[pid] {
			return
		}
		seen[pid] = true
		user, _ := strconv.ParseInt(f[11], 10, 64)
		system, _ := strconv.ParseInt(f[12], 10, 64)
		pages, _ := strconv.ParseInt(f[21], 10, 64)
		u.CPU += time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100 on every Linux that Go runs on
		u.RSS += pages * int64(os.Getpagesize())
		for _, c := range parents[pid] {
			add(c)
		}
	}
	for _, pid := range pids {
		add(pid)
	}
	return u
}

// procStat is /proc/PID/stat from the third field on: the second, the name, may hold anything.
func procStat(pid int) []string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return nil
	}
	i := strings.LastIndexByte(string(b), ')')
	if i < 0 {
		return nil
	}
	if f := strings.Fields(string(b)[i+1:]); len(f) > 21 {
		return f
	}
	return nil
}
