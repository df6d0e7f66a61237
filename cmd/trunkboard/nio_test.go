// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestMatrixNioChatsAndUploads lets Debian's matrix-nio, a client library of others, talk to the App: loadtest/nio/chat.py says how.
func TestMatrixNioChatsAndUploads(t *testing.T) {
	const python = "/usr/bin/python3" // Debian's, which has Debian's libraries
	if out, err := exec.Command(python, "-c", "import nio.crypto; assert nio.crypto.ENCRYPTION_ENABLED").CombinedOutput(); err != nil {
		if os.Getenv("TRUNKBOARD_TEST_REQUIRED") != "" {
			t.Fatalf("Debian's python3-matrix-nio is needed: %v %s", err, out)
		}
		t.Skip("Debian's python3-matrix-nio is not installed")
	}
	a, _ := start(t, testConfig(t, "limits.enabled=false"))
	base := "http://" + a.Addr("listen.client")
	args := []string{"../../loadtest/nio/chat.py", base}
	for _, name := range []string{"alice", "bob"} {
		const password = "a long password"
		body, err := json.Marshal(map[string]any{"auth": map[string]string{"type": "m.login.dummy"}, "username": name, "password": password, "inhibit_login": true})
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.Post(base+"/_matrix/client/v3/register", "application/json", strings.NewReader(string(body)))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 200 {
			t.Fatalf("registration: %d", res.StatusCode)
		}
		args = append(args, name, password)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, python, append(args, t.TempDir())...).CombinedOutput()
	t.Logf("%s", out)
	if err != nil || strings.Count(string(out), "\nok: ")+1 != 6 {
		t.Errorf("the chat failed: %v", err)
	}
}
