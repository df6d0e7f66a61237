// SPDX-License-Identifier: Apache-2.0

// Command calls makes 1:1 calls by m.call events on a homeserver and says how fast they ring and how many it can carry.
package main

import (
	"context"
	"errors"
	"flag"
	"io"

	"github.com/trunkboard/trunkboard/loadtest/command"
	"github.com/trunkboard/trunkboard/loadtest/load"
)

func main() { command.Main("calls", register) }

func register(fs *flag.FlagSet) func(context.Context, io.Writer) error {
	var f load.Flags
	f.Register(fs)
	s := load.Calls{}
	fs.IntVar(&s.Pairs, "pairs", 10, "pairs who call each other, one call of a pair at a time")
	peer := fs.String("peer", "", "a second homeserver, where the callees are; it takes the same -secret. Empty: the first")
	return func(ctx context.Context, out io.Writer) error {
		if err := f.Parsed(); err != nil {
			return err
		}
		if s.Pairs < 1 || s.Pairs > 500 {
			return errors.New("-pairs must be between 1 and 500")
		}
		s.Config = f.Config
		if *peer != "" {
			var err error
			if s.Peer, err = f.Peer(*peer); err != nil {
				return err
			}
			defer s.Peer.Close()
		}
		return f.Run(ctx, s, out)
	}
}
