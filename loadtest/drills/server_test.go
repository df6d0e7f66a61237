// SPDX-License-Identifier: Apache-2.0

package drills

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/trunkboard/trunkboard/loadtest/binary"
)

// rounds is how often a drill breaks something: a few times by default, long in `make test-long`.
func rounds(short, long int) int {
	if os.Getenv("TRUNKBOARD_TEST_LONG") != "" {
		return long
	}
	return short
}

// underTest is the binary under test, built once for all of them.
var underTest binary.Builder

func TestMain(m *testing.M) { underTest.Main(m) }

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
	s := &server{t: t, port: binary.FreePort(t, "127.0.0.1"), log: log}
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
	s.cmd = exec.Command(underTest.Path(s.t), args...)
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
