// SPDX-License-Identifier: Apache-2.0

package drills

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/trunkboard/trunkboard/loadtest/binary"
)

// postgres is a database server of the drill's own, with fsync on: Debian's binaries, run by the user postgres where we are root.
type postgres struct {
	t    *testing.T
	dir  string // data
	port int
}

// postgresBin is the folder of the newest PostgreSQL.
func postgresBin(t *testing.T) string {
	t.Helper()
	all, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	if len(all) == 0 {
		t.Fatal("PostgreSQL is not installed; `make deps` installs it")
	}
	slices.SortFunc(all, func(a, b string) int {
		n := func(s string) int { v, _ := strconv.Atoi(filepath.Base(filepath.Dir(s))); return v }
		return n(a) - n(b)
	})
	return all[len(all)-1]
}

// asPostgres runs one of its programs.
func asPostgres(t *testing.T, program string, args ...string) {
	t.Helper()
	argv := append([]string{filepath.Join(postgresBin(t), program)}, args...)
	if os.Getuid() == 0 {
		argv = append([]string{"runuser", "-u", "postgres", "--"}, argv...)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = "/"
	var log *os.File
	if program == "pg_ctl" { // its child, the server, would keep a pipe open
		var err error
		if log, err = os.CreateTemp(t.TempDir(), "pg_ctl"); err != nil {
			t.Fatal(err)
		}
		defer log.Close()
		cmd.Stdout, cmd.Stderr = log, log
		if err := cmd.Run(); err != nil {
			b, _ := os.ReadFile(log.Name())
			t.Fatalf("%s: %v\n%s", program, err, b)
		}
		return
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", program, err, out)
	}
}

// own gives a folder to the user that PostgreSQL runs as.
func own(t *testing.T, dir string) {
	t.Helper()
	if os.Getuid() != 0 {
		return
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
}

// tempDir is a folder that other users may enter; t.TempDir is not.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "trunkboard-drill")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// newPostgres makes a database in dir, which must be empty, and starts it.
func newPostgres(t *testing.T, dir string) *postgres {
	t.Helper()
	own(t, dir)
	asPostgres(t, "initdb", "-D", dir, "-U", "trunkboard", "-A", "trust", "-E", "UTF8", "--locale=C")
	p := &postgres{t: t, dir: dir, port: binary.FreePort(t, "127.0.0.1")}
	p.start()
	return p
}

func (p *postgres) options() string {
	return fmt.Sprintf("-c listen_addresses=127.0.0.1 -p %d -c unix_socket_directories='' -c shared_buffers=32MB -c max_connections=50", p.port)
}

func (p *postgres) start() {
	p.t.Helper()
	asPostgres(p.t, "pg_ctl", "-D", p.dir, "-s", "-w", "-t", "60", "-l", filepath.Join(p.dir, "log"), "-o", p.options(), "start")
	p.t.Cleanup(p.crash)
}

// restart crashes the database and starts it again: it recovers from its log.
func (p *postgres) restart() {
	p.t.Helper()
	asPostgres(p.t, "pg_ctl", "-D", p.dir, "-s", "-w", "-t", "60", "-m", "immediate", "-l", filepath.Join(p.dir, "log"), "-o", p.options(), "restart")
}

// crash ends it without a word, if it runs.
func (p *postgres) crash() {
	if pids := p.processes(); len(pids) > 0 {
		asPostgres(p.t, "pg_ctl", "-D", p.dir, "-s", "-w", "-t", "60", "-m", "immediate", "stop")
	}
}

func (p *postgres) url() string {
	return fmt.Sprintf("postgres://trunkboard@127.0.0.1:%d/postgres?sslmode=disable", p.port)
}

// processes are the server and its backends, the server first.
func (p *postgres) processes() []int {
	b, err := os.ReadFile(filepath.Join(p.dir, "postmaster.pid"))
	if err != nil {
		return nil
	}
	line, _, _ := strings.Cut(string(b), "\n")
	main, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || syscall.Kill(main, 0) != nil {
		return nil
	}
	pids := []int{main}
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", main))
	for _, f := range tasks {
		b, _ := os.ReadFile(f)
		for _, c := range strings.Fields(string(b)) {
			if n, err := strconv.Atoi(c); err == nil {
				pids = append(pids, n)
			}
		}
	}
	return pids
}

// freeze stops the server and every backend where they are.
func (p *postgres) freeze() {
	p.t.Helper()
	pids := p.processes()
	if len(pids) == 0 {
		p.t.Fatal("PostgreSQL is not there")
	}
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGSTOP) // a backend may just have ended
	}
}

// killFrozen ends what freeze stopped.
func (p *postgres) killFrozen() {
	pids := p.processes()
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	for _, pid := range pids {
		for i := 0; i < 5000 && alive(pid); i++ {
			time.Sleep(time.Millisecond)
		}
	}
}

// alive says that a process has not ended; one that nobody waited for yet counts as ended.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	i := strings.LastIndexByte(string(b), ')')
	return i >= 0 && i+2 < len(b) && b[i+2] != 'Z'
}
