// SPDX-License-Identifier: Apache-2.0

// Command trunkboard is the whole server in one binary: Matrix homeserver, STUN and TURN relay, and the web client. This package
// is its command line and its composition root, App; everything that decides something lives in the packages it puts together.
package main

import (
	"fmt"
	"io"
	"os"

	"github.com/alecthomas/kong"
)

// commands is the command line.
type commands struct {
	Serve    serveCommand    `cmd:"" help:"Run the server."`
	Config   configCommand   `cmd:"" help:"Print or check the configuration."`
	User     userCommand     `cmd:"" help:"Make, list and end accounts."`
	Token    tokenCommand    `cmd:"" help:"Make tokens for registration and for scripts."`
	TURN     turnCommand     `cmd:"" name:"turn" help:"Users and sessions of the relay."`
	Backup   backupCommand   `cmd:"" help:"Copy everything the server keeps into another folder."`
	Import   importCommand   `cmd:"" help:"Take over from another server."`
	Doctor   doctorCommand   `cmd:"" help:"Find what breaks calls, and say what to do about it."`
	Version  versionCommand  `cmd:"" help:"Print the version."`
	Licences licencesCommand `cmd:"" help:"Print the licences of what is in this binary."`
}

// streams are what a command reads and where it writes: answers to out, everything else to err.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

func main() { os.Exit(run(os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr})) }

// run executes one command line and gives the exit code: 0 done, 1 failed, 2 not understood.
func run(args []string, to streams) int {
	var c commands
	exit := -1
	parser, err := kong.New(&c,
		kong.Name("trunkboard"),
		kong.Description("Matrix homeserver, TURN relay, SFU for group calls, meetings and web client in one binary. Start with: trunkboard serve"),
		kong.Writers(to.out, to.err),
		kong.Exit(func(code int) { exit = code }), // kong calls it after --help
		kong.Bind(to),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
	)
	if err != nil {
		fmt.Fprintln(to.err, "trunkboard:", err)
		return 2
	}
	k, err := parser.Parse(args)
	if exit >= 0 {
		return exit
	}
	if err != nil {
		fmt.Fprintf(to.err, "trunkboard: %v\nTry: trunkboard --help\n", err)
		return 2
	}
	if err := k.Run(to); err != nil {
		fmt.Fprintf(to.err, "trunkboard: %v\n", err)
		return 1
	}
	return 0
}
