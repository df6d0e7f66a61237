// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/trunkboard/trunkboard/cmd/trunkboard/doctor"
	"github.com/trunkboard/trunkboard/configs"
	"github.com/trunkboard/trunkboard/turn"
	"github.com/trunkboard/trunkboard/turn/probe"
)

type doctorCommand struct {
	settings
	Server string `arg:"" optional:"" placeholder:"SERVER" help:"Name or URL of a server to look at from here; without it, the one of the configuration, on whose machine this is."`
	Token  string `placeholder:"TOKEN" env:"TRUNKBOARD_DOCTOR_TOKEN" help:"An access token, for a look from elsewhere: the ways to the relay are told to users only."`
	JSON   bool   `name:"json" help:"Print findings as JSON, one in a line."`
	CA     string `placeholder:"FILE" help:"Trust the authorities in this PEM file instead of the system's."`
}

// errFindings makes the exit code 1.
var errFindings = errors.New("something is broken; what to do stands above")

// Run prints a line for each finding, and what to do below those that are not good.
func (c *doctorCommand) Run(to streams) error {
	var p doctor.Patient
	var err error
	if c.Server == "" {
		p, err = c.localPatient(to)
	} else {
		p, err = remotePatient(c.Server)
	}
	if err != nil {
		return err
	}
	p.Token = c.Token
	if c.CA != "" {
		text, err := os.ReadFile(c.CA)
		if err != nil {
			return err
		}
		p.Roots = x509.NewCertPool()
		if !p.Roots.AppendCertsFromPEM(text) {
			return fmt.Errorf("%s holds no certificate in PEM form", c.CA)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	broken := false
	lines := json.NewEncoder(to.out)
	lines.SetEscapeHTML(false)
	doctor.Examine(ctx, p, func(f doctor.Finding) {
		broken = broken || f.Verdict == doctor.Broken
		if c.JSON {
			err = errors.Join(err, lines.Encode(f))
			return
		}
		printFinding(to.out, f)
	})
	if err == nil && broken {
		err = errFindings
	}
	return err
}

func printFinding(w io.Writer, f doctor.Finding) {
	fmt.Fprintf(w, "%-8s %s: %s\n", f.Verdict, f.Check, f.Text)
	if f.Next != "" {
		fmt.Fprintf(w, "         -> %s\n", f.Next)
	}
}

// remotePatient is a server of which only the name or the URL is known.
func remotePatient(server string) (doctor.Patient, error) {
	if !strings.Contains(server, "://") {
		return doctor.Patient{ServerName: server}, nil
	}
	u, err := url.Parse(server)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return doctor.Patient{}, fmt.Errorf("%q is neither a server name nor an https:// URL", server)
	}
	return doctor.Patient{PublicURL: u.Scheme + "://" + u.Host}, nil
}

// localPatient is the server of the configuration, seen from its own machine.
func (c *doctorCommand) localPatient(to streams) (doctor.Patient, error) {
	cfg, err := c.load(to)
	if err != nil {
		return doctor.Patient{}, err
	}
	trial := cfg.ServerName == "localhost"
	p := doctor.Patient{ServerName: cfg.ServerName, PublicURL: cfg.Public(), Local: &doctor.Local{
		DataDir: cfg.DataDir, MinPort: cfg.TURN.Relay.MinPort, MaxPort: cfg.TURN.Relay.MaxPort, MaxAllocations: cfg.TURN.MaxAllocations,
		TLS: cfg.TLS.Mode != configs.TLSOff, Trial: trial,
	}}
	for _, r := range cfg.TURN.Relay.Addresses {
		p.Local.Relays = append(p.Local.Relays, doctor.RelayAddress{Local: r.Local, Public: r.External})
	}
	if len(cfg.TURN.Relay.Addresses) == 0 {
		for _, ip := range lanAddresses() {
			if !slices.ContainsFunc(p.Local.Relays, func(r doctor.RelayAddress) bool { return r.Local.Is4() == ip.Is4() }) {
				p.Local.Relays = append(p.Local.Relays, doctor.RelayAddress{Local: ip})
			}
		}
	}
	if cfg.TLS.Mode == configs.TLSSelfSigned {
		p.Roots = x509.NewCertPool()
		if text, err := os.ReadFile((&authority{folder: filepath.Join(cfg.DataDir, "ca")}).File()); err == nil {
			p.Roots.AppendCertsFromPEM(text)
		}
	}
	return p, relayOf(cfg, &p)
}

// relayOf fills in the ways to the relay and credentials that are good for a few minutes.
func relayOf(cfg configs.Config, p *doctor.Patient) error {
	host := cfg.TURNHost()
	if host == "localhost" {
		host = "127.0.0.1"
	}
	ports := func(listen []string, transport string) {
		for _, at := range listen {
			_, port, err := net.SplitHostPort(at)
			n, e := strconv.Atoi(port)
			if err != nil || e != nil || n == 0 {
				continue // chosen at start; nobody is sent there by these settings
			}
			way := probe.Server{Host: host, Port: n, Transport: transport}
			if !slices.Contains(p.Ways, way) {
				p.Ways = append(p.Ways, way)
			}
		}
	}
	ports(cfg.TURN.Listen, "udp")
	ports(cfg.TURN.Listen, "tcp")
	if p.Local.TLS {
		ports(cfg.TURN.TLSListen, "tls")
		ports([]string{cfg.Listen.HTTPS}, "tls")
	}
	secret := cfg.TURN.Secret
	if secret == "" {
		text, err := os.ReadFile(filepath.Join(cfg.DataDir, "secrets", "turn"))
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the server has never run: the ways are tried without credentials
		}
		if err != nil {
			return err
		}
		secret = strings.TrimSpace(string(text))
	}
	creds, err := turn.NewCredentials(turn.CredentialsConfig{Secrets: []string{secret}})
	if err != nil {
		return err
	}
	s := creds.Issue("doctor", "", 0)
	p.Username, p.Password = s.Username, s.Credential
	return nil
}
