// SPDX-License-Identifier: Apache-2.0

// Package command is what the commands of loadtest/cmd have in common: flags, an end by Ctrl-C, one line for what went wrong.
package command

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// Main runs a command until it is done, or interrupted, and ends the process. register puts flags into the set, and returns what is done
// once they have been read, with standard output.
func Main(name string, register func(*flag.FlagSet) func(context.Context, io.Writer) error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(os.Stderr)
	run := register(fs)
	err := fs.Parse(os.Args[1:])
	if err == nil {
		err = run(ctx, os.Stdout)
	}
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}
