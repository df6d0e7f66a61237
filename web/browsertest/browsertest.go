// SPDX-License-Identifier: Apache-2.0

// Package browsertest runs scripts of Node.js that drive browsers, as Go tests.
package browsertest

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// Run starts `node args…` with these variables added to the environment. Each line {"case", "error", "note"} that it prints becomes a
// subtest of that name, which fails with the error unless it is "". The test fails when the script does, when it is not done after limit,
// and when it ran no case; its other lines are logged.
func Run(t *testing.T, limit time.Duration, env []string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cases := 0
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var c struct{ Case, Error, Note string }
		if !strings.HasPrefix(lines.Text(), "{") || json.Unmarshal(lines.Bytes(), &c) != nil || c.Case == "" {
			t.Log(lines.Text())
			continue
		}
		cases++
		t.Run(c.Case, func(t *testing.T) {
			if c.Note != "" {
				t.Log(c.Note)
			}
			if c.Error != "" {
				t.Error(c.Error)
			}
		})
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the browsers' script: %v", err)
	}
	if cases == 0 {
		t.Error("no case was run")
	}
}
