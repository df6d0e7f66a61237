// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets scripts run this test binary as the command trunkboard, and drills as one whose clock they set.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"trunkboard": main, leapingCommand: leapingMain})
}

// TestCommandLine runs testdata/script/*.txtar; each is a page of documentation of its command.
func TestCommandLine(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			for _, key := range []string{"LISTEN_CLIENT", "LISTEN_METRICS", "LISTEN_HTTPS", "LISTEN_FEDERATION", "TURN_LISTEN", "TURN_TLS_LISTEN", "SFU_LISTEN_UDP", "SFU_LISTEN_TCP"} {
				e.Setenv("TRUNKBOARD_"+key, "127.0.0.1:0")
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"fetch": fetchCommand},
	})
}

// fetchCommand is `fetch ADDRESSES KEY PATH`: it waits for the announcement, asks the listener KEY for PATH and prints the body. With
// ! in front, an answer other than 200 is wanted.
func fetchCommand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: fetch ADDRESSES KEY PATH")
	}
	addresses := map[string]string{}
	for deadline := time.Now().Add(20 * time.Second); ; {
		text, err := os.ReadFile(ts.MkAbs(args[0]))
		if err == nil {
			ts.Check(json.Unmarshal(text, &addresses))
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || time.Now().After(deadline) {
			ts.Fatalf("no announcement: %v", err)
		}
		time.Sleep(10 * time.Millisecond) // another process: nothing to wait on but its file
	}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Get("http://" + addresses[args[1]] + args[2])
	ts.Check(err)
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	ts.Check(err)
	if (r.StatusCode == http.StatusOK) == neg {
		ts.Fatalf("%s: %s %s", args[2], r.Status, body)
	}
	_, err = ts.Stdout().Write(body)
	ts.Check(err)
}
