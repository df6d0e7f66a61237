// SPDX-License-Identifier: Apache-2.0

package drills

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// rounds is how often a drill breaks something: a few times by default, long in `make test-long`.
func rounds(short, long int) int {
	if os.Getenv("TRUNKBOARD_TEST_LONG") != "" {
		return long
	}
	return short
}

// build makes the binary under test, once for all drills.
var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "trunkboard-drill")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "trunkboard")
	cmd := exec.Command("go", "build", "-o", bin, "./cmd/trunkboard")
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return bin, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if bin, err := build(); err == nil {
		_ = os.RemoveAll(filepath.Dir(bin))
	}
	os.Exit(code)
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

const secret = "drill"

// server is the binary on one port, started and killed many times.
type server struct {
	t    *testing.T
	port int
	log  *os.File
	cmd  *exec.Cmd
}

func newServer(t *testing.T) *server {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), "server.log"))
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, port: freePort(t), log: log}
	t.Cleanup(func() {
		s.kill()
		if t.Failed() {
			s.printLog()
		}
		_ = log.Close()
	})
	return s
}

func (s *server) url() string { return fmt.Sprintf("http://127.0.0.1:%d", s.port) }

// start runs the server on a data folder and a database ("" for SQLite in the folder) and waits until it answers.
func (s *server) start(data, database string) {
	s.t.Helper()
	bin, err := build()
	if err != nil {
		s.t.Fatal(err)
	}
	set := []string{
		"data_dir=" + data, fmt.Sprintf("listen.client=127.0.0.1:%d", s.port), "listen.metrics=", "limits.enabled=false", "log.level=warn",
		"accounts.password_cost=minimum", "registration.shared_secret=" + secret,
	}
	if database != "" {
		set = append(set, "database.url="+database)
	}
	args := []string{"serve", "--only", "homeserver"}
	for _, kv := range set {
		args = append(args, "--set", kv)
	}
	s.cmd = exec.Command(bin, args...)
	s.cmd.Stdout, s.cmd.Stderr = io.Discard, s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // no server outlives a test that was killed itself
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	died := make(chan error, 1)
	cmd := s.cmd
	go func() { died <- cmd.Wait() }()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, "GET", s.url()+"/_matrix/client/versions", nil)
		if err != nil {
			s.t.Fatal(err)
		}
		if res, err := http.DefaultClient.Do(req); err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case err := <-died:
			s.t.Fatalf("the server ended by itself: %v", err)
		case <-ctx.Done():
			s.t.Fatal("the server did not answer within a minute")
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// signal sends a signal to the server, which must be running.
func (s *server) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatalf("the server was not there any more: %v", err)
	}
}

// kill ends the server at once and waits until it is gone.
func (s *server) kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	for s.cmd.Process.Signal(syscall.Signal(0)) == nil { // the goroutine of start waits for it
		time.Sleep(time.Millisecond)
	}
	s.cmd = nil
}

func (s *server) printLog() {
	b, err := os.ReadFile(s.log.Name())
	if err != nil {
		return
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	s.t.Logf("end of the server's log:\n%s", strings.Join(lines[max(0, len(lines)-30):], "\n"))
}
