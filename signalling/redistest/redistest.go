// SPDX-License-Identifier: Apache-2.0

// Package redistest starts a real redis-server for one test: on a port of its own, with its data in the test's directory. A machine
// without redis-server fails the test, it does not skip it.
package redistest

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Server is a redis-server process that can be stopped, started again, frozen and thawed. It ends with its test.
type Server struct {
	t    testing.TB
	addr string
	dir  string
	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has ended
}

// Start runs a redis-server without persistence, so that a restart finds it empty, and waits until it answers.
func Start(t testing.TB) *Server {
	t.Helper()
	s := &Server{t: t, dir: t.TempDir()}
	var last error
	// Another process may take the free port between our look and Redis' bind.
	for range 5 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s.addr = l.Addr().String()
		l.Close()
		if last = s.start(); last == nil {
			t.Cleanup(s.Kill)
			return s
		}
	}
	t.Fatalf("redis-server (Debian package redis-server) is needed by this test: %v", last)
	return nil
}

// URL is how go-redis finds the server.
func (s *Server) URL() string { return "redis://" + s.addr + "/0" }

// Restart starts the server again on the same port after Kill.
func (s *Server) Restart() {
	s.t.Helper()
	if err := s.start(); err != nil {
		s.t.Fatal(err)
	}
}

// Kill ends the server with SIGKILL and waits for its end.
func (s *Server) Kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	<-s.done
	s.cmd = nil
}

// Freeze stops the server's clockwork: connections stay open, nothing answers.
func (s *Server) Freeze() { _ = s.cmd.Process.Signal(syscall.SIGSTOP) }

// Thaw lets a frozen server go on.
func (s *Server) Thaw() { _ = s.cmd.Process.Signal(syscall.SIGCONT) }

// Do sends one command and returns the first line of its answer.
func (s *Server) Do(command ...string) string {
	s.t.Helper()
	answer, err := s.do(command...)
	if err != nil {
		s.t.Fatalf("redis %v: %v", command, err)
	}
	return answer
}

func (s *Server) start() error {
	host, port, err := net.SplitHostPort(s.addr)
	if err != nil {
		return err
	}
	cmd := exec.Command("redis-server", "--bind", host, "--port", port, "--dir", s.dir,
		"--save", "", "--appendonly", "no", "--loglevel", "warning", "--daemonize", "no")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	s.cmd, s.done = cmd, done
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		if answer, err := s.do("PING"); err == nil && answer == "+PONG" {
			return nil
		}
		select {
		case <-done:
			s.cmd = nil
			return fmt.Errorf("ended at once: %s", out.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
	s.Kill()
	return fmt.Errorf("no answer in 10 s: %s", out.String())
}

func (s *Server) do(command ...string) (string, error) {
	c, err := net.DialTimeout("tcp", s.addr, time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(command))
	for _, word := range command {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(word), word)
	}
	if _, err := c.Write([]byte(b.String())); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimRight(line, "\r\n"), err
}
