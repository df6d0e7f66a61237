// SPDX-License-Identifier: Apache-2.0

// Command messages sends messages into rooms of a homeserver and says how fast they reach all members.
package main

import (
	"context"
	"errors"
	"flag"
	"io"

	"github.com/trunkboard/trunkboard/loadtest/command"
	"github.com/trunkboard/trunkboard/loadtest/load"
)

func main() { command.Main("messages", register) }

func register(fs *flag.FlagSet) func(context.Context, io.Writer) error {
	var f load.Flags
	f.Register(fs)
	s := load.Messages{}
	fs.IntVar(&s.Rooms, "rooms", 10, "rooms")
	fs.IntVar(&s.Members, "members", 10, "members of each room, each with a sync of its own")
	fs.IntVar(&s.Senders, "senders", 10, "messages under way at once")
	return func(ctx context.Context, out io.Writer) error {
		if err := f.Parsed(); err != nil {
			return err
		}
		if s.Rooms < 1 || s.Members < 2 || s.Senders < 1 || s.Rooms*s.Members > 2000 {
			return errors.New("-rooms times -members must be at most 2000, with 2 members and 1 sender at least")
		}
		s.Config = f.Config
		return f.Run(ctx, s, out)
	}
}
