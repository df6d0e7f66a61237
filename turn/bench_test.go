// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// processor is the time that a process has had a processor for.
func processor(b *testing.B, pid int) time.Duration {
	b.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(tasks) == 0 {
		b.Skip("no /proc here")
	}
	var sum time.Duration
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if err != nil {
			continue // a thread that has ended
		}
		n, err := strconv.ParseInt(strings.Fields(string(text))[0], 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(n)
	}
	return sum
}

// BenchmarkRelayedPacket sends packets through 100 allocations of a server in a process of its own and tells what a packet costs it. Pin it to see one
// processor's work: taskset -c 0 go test ./turn -run '^$' -bench RelayedPacket -benchtime 100000x.
func BenchmarkRelayedPacket(b *testing.B) {
	for _, load := range []struct{ size, burst, perMilli int }{{160, 1, 20}, {1200, 16, 64}} {
		b.Run(fmt.Sprintf("%d bytes, bursts of %d", load.size, load.burst), func(b *testing.B) {
			pid, at := serverAlone(b)
			sink, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				b.Fatal(err)
			}
			defer sink.Close()
			_ = sink.SetReadBuffer(4 << 20)
			peer := sink.LocalAddr().(*net.UDPAddr).AddrPort()
			creds, err := NewCredentials(CredentialsConfig{Secrets: []string{secret}})
			if err != nil {
				b.Fatal(err)
			}
			conns := make([]*net.UDPConn, 100)
			for i := range conns {
				cred := creds.Issue("@alice:example.org", "d", time.Hour)
				c := &rawClient{t: b, username: cred.Username, password: cred.Credential}
				if conns[i], err = net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(at)); err != nil {
					b.Fatal(err)
				}
				defer conns[i].Close()
				c.conn = conns[i]
				if code := c.allocate(); code != 0 {
					b.Fatal(code)
				}
				if code := c.bind(0x4000, netip.AddrPortFrom(loopback, peer.Port())); code != 0 {
					b.Fatal(code)
				}
			}
			arrived := make(chan int, 1)
			go func() {
				n, buf := 0, make([]byte, 2048)
				for {
					_ = sink.SetReadDeadline(time.Now().Add(time.Second))
					if _, err := sink.Read(buf); err != nil {
						arrived <- n
						return
					}
					n++
				}
			}()
			frame := append([]byte{0x40, 0, byte(load.size >> 8), byte(load.size)}, make([]byte, load.size)...)
			before := processor(b, pid)
			b.ResetTimer()
			begin := time.Now()
			for sent, flow := 0, 0; sent < b.N; flow++ {
				for range min(load.burst, b.N-sent) {
					_, _ = conns[flow%len(conns)].Write(frame)
					sent++
				}
				if ahead := time.Duration(sent)*time.Millisecond/time.Duration(load.perMilli) - time.Since(begin); ahead > time.Millisecond {
					time.Sleep(ahead)
				}
			}
			b.StopTimer()
			n := <-arrived
			if n == 0 {
				b.Fatal("nothing arrived")
			}
			b.ReportMetric(float64((processor(b, pid)-before).Nanoseconds())/1000/float64(n), "cpu-us/packet")
			b.ReportMetric(100-100*float64(n)/float64(b.N), "%lost")
		})
	}
}
