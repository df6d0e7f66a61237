// SPDX-License-Identifier: Apache-2.0

// Package binary builds Trunkboard for tests that run it as a process.
package binary

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// Builder builds the binary of this checkout once for the tests of a package, when the first of them asks. The zero value is ready.
type Builder struct {
	once sync.Once
	dir  string
	err  error
}

// Main runs the tests, removes what was built, and ends the process: for TestMain.
func (b *Builder) Main(m *testing.M) {
	code := m.Run()
	if b.dir != "" {
		_ = os.RemoveAll(b.dir)
	}
	os.Exit(code)
}

// Path is where the binary stands: static, as releases are.
func (b *Builder) Path(t testing.TB) string {
	t.Helper()
	b.once.Do(func() { b.err = b.build() })
	if b.err != nil {
		t.Fatal(b.err)
	}
	return filepath.Join(b.dir, "trunkboard")
}

func (b *Builder) build() error {
	root, err := checkout()
	if err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "trunkboard-binary"); err != nil {
		return err
	}
	cmd := exec.Command("go", "build", "-trimpath", "-o", b.dir, "./cmd/trunkboard") // as make build does: nothing is compiled twice
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// checkout is the folder with go.mod: this one or one above it.
func checkout() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		above := filepath.Dir(dir)
		if above == dir {
			return "", errors.New("no go.mod here or above")
		}
		dir = above
	}
}

// FreePort is a TCP port of an address on which nobody listens now.
func FreePort(t testing.TB, address string) int {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
