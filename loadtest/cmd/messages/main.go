// SPDX-License-Identifier: Apache-2.0

// Command messages sends messages into rooms of a homeserver and says how fast they reach all members.
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

	"github.com/trunkboard/trunkboard/loadtest/load"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "messages:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out, usage io.Writer) error {
	fs := flag.NewFlagSet("messages", flag.ContinueOnError)
	fs.SetOutput(usage)
	var f load.Flags
	f.Register(fs)
	s := load.Messages{}
	fs.IntVar(&s.Rooms, "rooms", 10, "rooms")
	fs.IntVar(&s.Members, "members", 10, "members of each room, each with a sync of its own")
	fs.IntVar(&s.Senders, "senders", 10, "messages under way at once")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if err := f.Parsed(); err != nil {
		return err
	}
	if s.Rooms < 1 || s.Members < 2 || s.Senders < 1 || s.Rooms*s.Members > 2000 {
		return errors.New("-rooms times -members must be at most 2000, with 2 members and 1 sender at least")
	}
	s.Config = f.Config
	return f.Run(ctx, s, out)
}
