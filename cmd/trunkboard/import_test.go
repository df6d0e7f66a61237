// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/configs"
	"github.com/trunkboard/trunkboard/homeserver/storage/turndb"
	"github.com/trunkboard/trunkboard/turn"
)

// coturnTool is one of coturn's programs, from Debian's package.
func coturnTool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("TRUNKBOARD_TEST_REQUIRED") != "" {
			t.Fatalf("%s is not installed (Debian package coturn); make deps installs it", name)
		}
		t.Skipf("%s is not installed (Debian package coturn)", name)
	}
	return path
}

// TestCoturnIsReplacedByItsOwnConfiguration runs coturn on Debian's configuration with a few lines uncommented and its database of
// users, and coturn's client against it; then Trunkboard on what the import makes of them, and the same client.
func TestCoturnIsReplacedByItsOwnConfiguration(t *testing.T) {
	server, admin := coturnTool(t, "turnserver"), coturnTool(t, "turnadmin")
	debian, err := os.ReadFile("/etc/turnserver.conf")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	port := freeTCPPort(t)
	userdb := filepath.Join(dir, "turndb")
	file := filepath.Join(dir, "turnserver.conf")
	lines := fmt.Sprintf(`
listening-port=%d
listening-ip=127.0.0.1
relay-ip=127.0.0.1
lt-cred-mech
fingerprint
realm=example.org
user=ann:wonder
userdb=%s
min-port=50000
max-port=51000
allow-loopback-peers
no-tls
no-dtls
no-cli
cli-password=unused
pidfile=%[3]s/pid
log-file=stdout
`, port, userdb, dir)
	if err := os.WriteFile(file, append(debian, lines...), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", "/var/lib/turn/turndb", userdb).CombinedOutput(); err != nil {
		t.Fatalf("coturn's empty database: %v %s", err, out)
	}
	if out, err := exec.Command(admin, "-a", "-b", userdb, "-u", "ben", "-r", "example.org", "-p", "builder").CombinedOutput(); err != nil {
		t.Fatalf("turnadmin: %v %s", err, out)
	}
	users := map[string]string{"ann": "wonder", "ben": "builder"}

	before := exec.Command(server, "-c", file)
	var log bytes.Buffer
	before.Stdout, before.Stderr = &log, &log
	if err := before.Start(); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan struct{})
	go func() { defer close(stopped); _ = before.Wait() }()
	t.Cleanup(func() { _ = before.Process.Kill(); <-stopped })
	awaitTCP(t, port)
	uclients(t, "coturn", port, users)
	_ = before.Process.Kill()
	<-stopped

	settings := filepath.Join(dir, "trunkboard.yaml")
	var out, said bytes.Buffer
	if code := run([]string{"import", "coturn", file, "-o", settings, "--set", "data_dir=" + filepath.Join(dir, "data")}, streams{strings.NewReader(""), &out, &said}); code != 0 {
		t.Fatalf("exit code %d\n%s%s", code, &out, &said)
	}
	for _, want := range []string{"users: 2", "pidfile", "log-file", "cli-password=…"} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("the import does not mention %s:\n%s", want, &said)
		}
	}
	cfg, _, err := configs.Load([]string{settings}, nil, []string{"data_dir=" + filepath.Join(dir, "data"), "listen.client=127.0.0.1:0", "listen.metrics=", "shutdown.drain=1s"})
	if err != nil {
		t.Fatal(err)
	}
	start(t, cfg, "turn")
	uclients(t, "trunkboard", port, users)
}

// uclients sends packets through a relay to itself, as each user and with a wrong password.
func uclients(t *testing.T, what string, port int, users map[string]string) {
	t.Helper()
	tool := coturnTool(t, "turnutils_uclient")
	try := func(user, password string, flags ...string) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		args := append(flags, "-y", "-s", "-p", strconv.Itoa(port), "-n", "5", "-m", "2", "-l", "160", "-u", user, "-w", password, "127.0.0.1")
		out, err := exec.CommandContext(ctx, tool, args...).CombinedOutput()
		return string(out), err
	}
	// The tool rests for seconds between its steps, so all of them run at once.
	var all sync.WaitGroup
	for user, password := range users {
		for _, flags := range [][]string{nil, {"-t"}} {
			all.Go(func() {
				// A server that has just opened its port, on a busy machine, may not have opened the rest: some tries.
				for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
					out, err := try(user, password, flags...)
					if err == nil && strings.Contains(out, "Total lost packets 0 (0.000000%)") {
						return
					}
					if time.Now().After(deadline) {
						t.Errorf("%s, user %s %v: %v\n%s", what, user, flags, err, out)
						return
					}
				}
			})
		}
	}
	all.Wait()
	if out, err := try("ann", "wrong"); err == nil && strings.Contains(out, "Total lost packets 0 (0.000000%)") {
		t.Errorf("%s lets a wrong password in:\n%s", what, out)
	}
}

func TestRealmsOfCoturnsDatabaseBecomeOptions(t *testing.T) {
	settings := map[string]any{}
	var options, left []string
	got := coturnRealms(turndb.Contents{
		Origins: []turndb.Origin{{Origin: "https://red.example", Realm: "red"}, {Origin: "https://own.example", Realm: "own"}, {Origin: "a b", Realm: "red"}},
		Options: []turndb.Option{
			{Realm: "red", Name: "max-bps", Value: "1000"}, {Realm: "red", Name: "user-quota", Value: "2"}, {Realm: "red", Name: "total-quota", Value: "0"},
			{Realm: "own", Name: "max-bps", Value: "500"}, {Realm: "own", Name: "user-quota", Value: "4"}, {Realm: "own", Name: "total-quota", Value: "90"},
			{Realm: "red", Name: "colour", Value: "1"}, {Realm: "red", Name: "user-quota", Value: "many"},
		},
		Users: []turndb.User{{Realm: "blue", Name: "x"}, {Realm: "own", Name: "y"}, {Realm: "two words", Name: "z"}},
	}, "own", settings, &options, func(text, _ string) { left = append(left, text) })
	if d := cmp.Diff([]string{"realm blue", "realm red origin=https://red.example session_bandwidth=2000 user_allocations=2"}, got); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"session_bandwidth 1000"}, options); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(map[string]any{"turn.max_allocations": 90, "turn.max_allocations_per_user": 4}, settings); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"origin a b", "option colour of realm red", "option user-quota of realm red", "realm two words"}, left); d != "" {
		t.Error(d)
	}
	if _, err := relayOptions(new(turn.Config), append(got, options...)); err != nil {
		t.Error(err)
	}
}

func freeTCPPort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func awaitTCP(t *testing.T, port int) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) { // another program: nothing to wait on but its port
		if c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
			_ = c.Close()
			return
		}
	}
	t.Fatal("nothing listens on the port")
}

func TestUsersOfTheRelayAreMadeListedAndTakenAway(t *testing.T) {
	data := "data_dir=" + t.TempDir()
	command := func(input string, args ...string) (int, string) {
		var out bytes.Buffer
		code := run(append(append([]string{"turn", "user"}, args...), "--set", data), streams{strings.NewReader(input), &out, &out})
		return code, out.String()
	}
	if code, out := command("wonder\n", "add", "ann", "--password-stdin"); code != 0 || !strings.Contains(out, "ann, realm turn") {
		t.Fatal(code, out)
	}
	if code, out := command("", "add", "ben", "--realm", "other"); code != 0 || !strings.Contains(out, "password: ") {
		t.Fatal(code, out)
	}
	if code, out := command("", "list"); code != 0 || !strings.Contains(out, "ann   turn") || !strings.Contains(out, "ben   other") {
		t.Fatal(code, out)
	}
	if code, _ := command("", "remove", "ann"); code != 0 {
		t.Fatal(code)
	}
	if code, out := command("", "remove", "ann"); code != 1 || !strings.Contains(out, "there is no user") {
		t.Fatal(code, out)
	}
}
