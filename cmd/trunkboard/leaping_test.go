// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/trunkboard/trunkboard/configs"
)

// leaping is the system's clock plus what it has leapt; timers whose time has come by a leap go off at once.
type leaping struct {
	mu     sync.Mutex
	ahead  time.Duration
	timers map[*leapTimer]struct{}
}

type leapTimer struct {
	due  time.Time
	real *time.Timer
}

func (c *leaping) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.ahead)
}

func (c *leaping) AfterFunc(d time.Duration, f func()) (stop func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	x := &leapTimer{due: time.Now().Add(c.ahead + d)}
	taken := func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		_, waiting := c.timers[x]
		delete(c.timers, x)
		return waiting
	}
	x.real = time.AfterFunc(d, func() {
		if taken() {
			f()
		}
	})
	c.timers[x] = struct{}{}
	return func() bool { x.real.Stop(); return taken() }
}

// leap moves the clock forward.
func (c *leaping) leap(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
	now := time.Now().Add(c.ahead)
	for x := range c.timers {
		x.real.Reset(max(0, x.due.Sub(now)))
	}
}

// leapingCommand is the name under which the test binary is a homeserver whose clock leaps by what it reads from its standard input, a
// duration a line. Its arguments are settings. A leap is done when its line was written back.
const leapingCommand = "trunkboard-leaping"

func leapingMain() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	err := func() error {
		cfg, _, err := configs.Load(nil, nil, os.Args[1:])
		if err != nil {
			return err
		}
		app, err := New(cfg, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})), "homeserver")
		if err != nil {
			return err
		}
		clock := &leaping{timers: map[*leapTimer]struct{}{}}
		app.clock = clock
		go func() {
			for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
				if d, err := time.ParseDuration(lines.Text()); err == nil {
					clock.leap(d)
					fmt.Println(lines.Text())
				}
			}
		}()
		return app.Run(ctx)
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// process is a server that can be killed and started again, with its clock where it was.
type process struct {
	t        *testing.T
	name     string
	base     string
	settings []string
	log      *os.File
	cmd      *exec.Cmd
	in       io.WriteCloser
	out      *bufio.Reader
	ahead    time.Duration
	used     time.Duration // processor time of those that are gone
	starts   int
}

// process makes and starts a server on an address of 127.0.0.0/8, named after it and a port.
func (n *internet) process(address string) *process {
	n.t.Helper()
	name := freeAddress(n.t, address)
	return n.processOf(address, name, name)
}

// processOf makes and starts a server, or one node of it, that is called name and listens at federation for other servers.
func (n *internet) processOf(address, name, federation string, set ...string) *process {
	n.t.Helper()
	client := freeAddress(n.t, address)
	dir := n.t.TempDir()
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		n.t.Fatal(err)
	}
	p := &process{t: n.t, name: name, base: "http://" + client, log: log}
	p.settings = n.config(p.name, "data_dir="+filepath.Join(dir, "data"), "listen.client="+client, "listen.federation="+federation,
		"listen.https=", "listen.metrics=", "accounts.password_cost=minimum", "shutdown.drain=1s")
	p.settings = append(p.settings, set...)
	n.t.Cleanup(func() {
		p.kill()
		if text, err := os.ReadFile(log.Name()); err == nil && n.t.Failed() {
			n.t.Logf("log of %s:\n%s", p.name, text[max(0, len(text)-6000):])
		}
		_ = log.Close()
	})
	p.start()
	return p
}

// start runs the server and waits until it answers. One that ends before, since somebody has its port for a moment, is started again.
func (p *process) start() {
	p.t.Helper()
	// Another process: it can only be asked whether it answers yet.
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		if p.once(deadline) {
			p.starts++
			return
		}
		p.kill()
		if time.Now().After(deadline) {
			p.t.Fatalf("%s does not start", p.name)
		}
	}
}

func (p *process) once(deadline time.Time) bool {
	p.t.Helper()
	self, err := os.Executable()
	if err != nil {
		p.t.Fatal(err)
	}
	cmd := exec.Command(self, p.settings...)
	cmd.Args[0] = leapingCommand // by this name the test binary is the server: see TestMain
	cmd.Stderr = p.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // no server outlives a test that was killed itself
	out, err := cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if p.in, err = cmd.StdinPipe(); err != nil {
		p.t.Fatal(err)
	}
	p.out = bufio.NewReader(out)
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.cmd = cmd
	if p.ahead > 0 && !p.say(p.ahead) {
		return false
	}
	for ; time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if a, err := http.Get(p.base + "/ready"); err == nil {
			_ = a.Body.Close()
			if a.StatusCode == http.StatusOK {
				return true
			}
		}
		if state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid)); err != nil || bytes.Contains(state, []byte(") Z ")) {
			return false
		}
	}
	return false
}

// leap moves the server's clock.
func (p *process) leap(d time.Duration) {
	p.t.Helper()
	p.ahead += d
	if !p.say(d) {
		p.t.Fatalf("the clock of %s does not move", p.name)
	}
}

func (p *process) say(d time.Duration) bool {
	if _, err := fmt.Fprintln(p.in, d); err != nil {
		return false
	}
	line, err := p.out.ReadString('\n')
	return err == nil && strings.TrimSpace(line) == d.String()
}

// kill ends the server as a crash does, and waits until it is gone.
func (p *process) kill() {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	p.used += p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
	p.cmd = nil
}

// cpu is the processor time of all that have run as this server.
func (p *process) cpu() time.Duration {
	if p.cmd == nil {
		return p.used
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return p.used
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	ticks := time.Duration(0)
	if f := strings.Fields(rest); len(f) > 12 {
		for _, x := range f[11:13] { // utime, stime: hundredths of a second
			n, _ := strconv.Atoi(x)
			ticks += time.Duration(n)
		}
	}
	return p.used + ticks*10*time.Millisecond
}
