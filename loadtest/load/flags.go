// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/trunkboard/trunkboard/loadtest/figures"
	"github.com/trunkboard/trunkboard/loadtest/matrix"
)

// Flags are those that every load client has.
type Flags struct {
	Config
	url, secret, pids string
}

// Register adds the flags to fs.
func (f *Flags) Register(fs *flag.FlagSet) {
	fs.StringVar(&f.url, "url", "http://127.0.0.1:8008", "the homeserver; on loopback only")
	fs.StringVar(&f.secret, "secret", "", "shared secret of /_synapse/admin/v1/register; empty: open registration")
	fs.StringVar(&f.Label, "label", "server", "name of the server in the table")
	fs.StringVar(&f.pids, "pid", "", "process ids of the server and its database, separated by commas: their CPU and memory are measured")
	fs.Float64Var(&f.Rate, "rate", 0, "load offered each second; 0: as much as the server takes")
	fs.DurationVar(&f.Duration, "dur", 10*time.Second, "length of the timed part, at most 2m")
}

// Scenario is Calls or Messages.
type Scenario interface {
	Run(ctx context.Context, s *matrix.Server) (Result, error)
}

// Parsed checks the flags; call it after fs.Parse and before the scenario takes Config.
func (f *Flags) Parsed() error {
	if f.Duration <= 0 || f.Duration > MaxDuration {
		return fmt.Errorf("-dur must be between 0 and %v", MaxDuration)
	}
	for p := range strings.SplitSeq(f.pids, ",") {
		if p == "" {
			continue
		}
		n, err := strconv.Atoi(p)
		if err != nil {
			return fmt.Errorf("-pid %q: %w", p, err)
		}
		f.PIDs = append(f.PIDs, n)
	}
	return nil
}

// Peer prepares for a second homeserver that takes the same secret.
func (f *Flags) Peer(url string) (*matrix.Server, error) { return matrix.Open(url, f.secret) }

// Run runs a scenario and prints its rows.
func (f *Flags) Run(ctx context.Context, s Scenario, out io.Writer) error {
	server, err := matrix.Open(f.url, f.secret)
	if err != nil {
		return err
	}
	defer server.Close()
	r, err := s.Run(ctx, server)
	if err != nil {
		return err
	}
	fmt.Fprint(out, figures.Head, r.Rows, "\n")
	for _, n := range r.Notes {
		fmt.Fprintln(out, n)
	}
	for what, n := range r.Errors {
		fmt.Fprintf(out, "ERROR %s: %d\n", what, n)
	}
	return nil
}
