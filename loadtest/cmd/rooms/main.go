// SPDX-License-Identifier: Apache-2.0

// Command rooms puts participants into a room of an SFU that speaks LiveKit's client protocol and says what forwarding costs the server.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"time"

	"github.com/trunkboard/trunkboard/loadtest/command"
	"github.com/trunkboard/trunkboard/loadtest/figures"
	"github.com/trunkboard/trunkboard/loadtest/rooms"
)

func main() { command.Main("rooms", register) }

func register(fs *flag.FlagSet) func(context.Context, io.Writer) error {
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
	return func(ctx context.Context, out io.Writer) error {
		r, err := s.Run(ctx)
		if r.Rows != "" {
			fmt.Fprint(out, figures.Head, r.Rows, "\n", r.Note, "\n")
		}
		return err
	}
}
