// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/google/renameio/v2"
	"golang.org/x/sync/errgroup"

	"github.com/trunkboard/trunkboard/configs"
)

// gcPercent is how much the heap may grow between collections. Half of Go's default: the heap is mostly caches, and the packet paths
// make no garbage, so a collection more now and then costs less than the memory does.
const gcPercent = 50

type serveCommand struct {
	settings
	Only     []string `placeholder:"PART,…" help:"Run only these parts: homeserver, turn, sfu, focus, web."`
	TLS      string   `name:"tls" placeholder:"MODE" help:"Same as --set tls.mode=MODE. self-signed lets other devices on the network try calls."`
	Announce string   `placeholder:"FILE" help:"Write the addresses in use to FILE, as JSON, once requests are answered."`
}

// Run serves until SIGTERM or SIGINT; a second one ends the process at once.
func (c *serveCommand) Run(to streams) error {
	var more []string
	if c.TLS != "" {
		more = append(more, "tls.mode="+c.TLS)
	}
	cfg, err := c.load(to, more...)
	if err != nil {
		return err
	}
	log, err := newLogger(cfg.Log, to.err)
	if err != nil {
		return err
	}
	app, err := New(cfg, log, c.Only...)
	if err != nil {
		return err
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	context.AfterFunc(ctx, stop) // from the first signal on, the next one has its usual effect

	work, ctx := errgroup.WithContext(ctx)
	done := make(chan struct{})
	ended, end := context.WithCancel(ctx)
	work.Go(func() error {
		defer end()
		defer close(done)
		return app.Run(ctx)
	})
	work.Go(func() error { return trim(ended) })
	work.Go(func() error {
		select {
		case <-app.Ready():
		case <-done:
			return nil
		}
		if cfg.Log.Format == "text" {
			welcome(to.out, app)
		}
		if c.Announce == "" {
			return nil
		}
		return announce(c.Announce, app)
	})
	return work.Wait()
}

// announce writes file whole or not at all, so that whoever waits for it never reads half.
func announce(file string, a *App) error {
	text, err := json.MarshalIndent(a.Addrs(), "", "  ")
	if err != nil {
		return err
	}
	return renameio.WriteFile(file, append(text, '\n'), 0o644)
}

// welcome tells a person what to do next.
func welcome(w io.Writer, a *App) {
	var b strings.Builder
	line := func(what, format string, args ...any) {
		fmt.Fprintf(&b, "  %-15s %s\n", what, fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(&b, "\nTrunkboard serves %s\n\n", a.cfg.ServerName)
	if a.Addr("listen.client") != "" && a.has("web") {
		line("Open", "%s  and sign up; a second, private window can be the one you ring", a.publicURL())
		if a.has("homeserver") && a.conference != nil {
			line("Meet", "%s/meet/  by a link; whoever has it needs no account", a.publicURL())
		}
	} else if a.Addr("listen.client") != "" {
		line("Matrix API", "%s", a.publicURL())
	}
	if a.authority != nil {
		a.welcomeDevices(line)
	} else if a.cfg.TLS.Mode == configs.TLSOff && a.cfg.ServerName == "localhost" {
		line("Other devices", "need HTTPS, or their browsers give no camera: trunkboard serve --tls self-signed")
	}
	line("Data", "%s", a.cfg.DataDir)
	line("Stop", "Ctrl-C")
	fmt.Fprintln(&b)
	io.WriteString(w, b.String())
}

// welcomeDevices says how a phone on the same network gets in.
func (a *App) welcomeDevices(line func(what, format string, args ...any)) {
	_, port, _ := net.SplitHostPort(a.Addr("listen.https"))
	suffix := ""
	if port != "443" {
		suffix = ":" + port
	}
	lan := lanAddresses()
	for _, ip := range lan {
		if ip.Is4() {
			line("Other devices", "https://%s%s", ip, suffix)
		}
	}
	if len(lan) == 0 {
		line("HTTPS", "https://localhost%s  (this machine has no network to be reached over)", suffix)
	}
	line("", "They warn about the certificate until they trust this server's own authority:")
	line("", "fetch it from %s there, or copy %s,", authorityPath, a.authority.File())
	line("", "install it as a trusted root, and compare its SHA-256 fingerprint:")
	line("", "%s", a.authority.Fingerprint())
}
