// SPDX-License-Identifier: Apache-2.0

// Command rooms puts participants into a room of an SFU that speaks LiveKit's client protocol and says what forwarding costs the server.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/trunkboard/trunkboard/loadtest/figures"
	"github.com/trunkboard/trunkboard/loadtest/rooms"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "rooms:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out, usage io.Writer) error {
	fs := flag.NewFlagSet("rooms", flag.ContinueOnError)
	fs.SetOutput(usage)
	var s rooms.Scenario
	fs.StringVar(&s.URL, "url", "ws://127.0.0.1:7880", "where /rtc is; on loopback only")
	fs.StringVar(&s.Key, "key", "devkey", "API key of the server")
	fs.StringVar(&s.Secret, "secret", "secretsecretsecretsecretsecretsecret", "its secret")
	fs.StringVar(&s.Label, "label", "server", "name of the server in the table")
	fs.IntVar(&s.Publishers, "publishers", 1, "participants who send")
	fs.IntVar(&s.Listeners, "listeners", 10, "participants who only listen")
	fs.BoolVar(&s.Audio, "audio", true, "send sound: 50 packets of 120 bytes a second")
	fs.BoolVar(&s.Video, "video", false, "send pictures: VP8, 30 a second")
	fs.IntVar(&s.Kbps, "kbps", 1500, "of the pictures")
	fs.BoolVar(&s.Meeting, "meeting", false, "publishers listen to each other")
	fs.DurationVar(&s.Warm, "warm", 6*time.Second, "between the last join and the timed part")
	fs.DurationVar(&s.Duration, "dur", 10*time.Second, "length of the timed part, at most 2m")
	fs.IntVar(&s.PID, "pid", 0, "process id of the server: its CPU and memory are measured")
	if err := fs.Parse(args); err != nil {
		return err
	}
	r, err := s.Run(ctx)
	if r.Rows != "" {
		fmt.Fprint(out, figures.Head, r.Rows, "\n", r.Note, "\n")
	}
	return err
}
