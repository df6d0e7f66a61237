// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/trunkboard/trunkboard/cmd/trunkboard/doctor"
)

func TestTheDoctorRelaysOverEachWayThatTheServerTells(t *testing.T) {
	a, _ := start(t, testConfig(t, "tls.mode=self-signed", "turn.relay.addresses=127.0.0.1", "turn.public_host=127.0.0.1"))
	base := "http://" + a.Addr("listen.client")
	res, err := http.Post(base+"/_matrix/client/v3/register", "application/json", strings.NewReader(`{"auth":{"type":"m.login.dummy"},"username":"ann","password":"a long password"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var user struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(res.Body).Decode(&user); err != nil || user.AccessToken == "" {
		t.Fatal(res.Status, err)
	}
	var out, log bytes.Buffer
	run([]string{"doctor", base, "--token", user.AccessToken, "--json", "--ca", a.authority.File()}, streams{strings.NewReader(""), &out, &log})
	good := 0
	for line := range strings.Lines(out.String()) {
		var f doctor.Finding
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if strings.HasPrefix(f.Check, "relay at") {
			if f.Verdict != doctor.Good {
				t.Errorf("%+v", f)
			}
			good++
		}
	}
	if uris := len(a.relay.uris); good != uris || uris < 4 {
		t.Errorf("%d of %d ways were tried:\n%s%s", good, uris, &out, &log)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := a.relay.drain(ctx); err != nil {
		t.Errorf("the doctor left something: %v", err)
	}
}

func TestTheDoctorOfAServerThatIsDownSaysWhatToDo(t *testing.T) {
	var out, log bytes.Buffer
	code := run([]string{"doctor", "--set", "data_dir=" + t.TempDir(), "--set", "listen.client=127.0.0.1:1", "--set", "turn.listen=127.0.0.1:1", "--set", "turn.tls_listen="}, streams{strings.NewReader(""), &out, &log})
	if code != 1 || !strings.Contains(out.String(), "broken   client API") || !strings.Contains(out.String(), "-> Is the server running?") {
		t.Errorf("exit code %d:\n%s%s", code, &out, &log)
	}
}
