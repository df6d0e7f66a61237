// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"

	"github.com/trunkboard/trunkboard/configs"
	"github.com/trunkboard/trunkboard/web"
)

// settings are the flags of every command that reads the configuration.
type settings struct {
	Config []string `short:"c" placeholder:"FILE" env:"TRUNKBOARD_CONFIG" help:"Configuration file; may be given again, later ones win."`
	Set    []string `sep:"none" placeholder:"KEY=VALUE" help:"Set one key, such as listen.client=:8008; may be given again."`
}

// load reads the configuration and says on to.err what looks like a mistake and is none.
func (s settings) load(to streams, more ...string) (configs.Config, error) {
	c, warnings, err := configs.Load(s.Config, os.Environ(), append(s.Set, more...))
	for _, w := range warnings {
		fmt.Fprintln(to.err, "warning:", w)
	}
	if err != nil {
		return c, fmt.Errorf("the configuration does not work:\n%w", err)
	}
	return c, nil
}

type configCommand struct {
	settings
	Effective bool `xor:"what" help:"Print the settings in force, secrets masked."`
	Check     bool `xor:"what" help:"Check the settings and the files they name; print nothing but mistakes."`
}

// Run prints the annotated defaults unless a flag asks for something else.
func (c *configCommand) Run(to streams) error {
	if !c.Effective && !c.Check {
		_, err := io.WriteString(to.out, configs.Annotated)
		return err
	}
	cfg, err := c.load(to)
	if err != nil {
		return err
	}
	if c.Check {
		if cfg.TLS.Mode == configs.TLSFiles {
			if _, err := certificateFiles(cfg.TLS.Certificate, cfg.TLS.Key, discard); err != nil {
				return err
			}
		}
		fmt.Fprintln(to.out, "the configuration is good")
		return nil
	}
	text, err := cfg.Effective()
	if err != nil {
		return err
	}
	_, err = io.WriteString(to.out, text)
	return err
}

type versionCommand struct{}

// Run prints one line: name, version, commit, Go version.
func (versionCommand) Run(to streams) error {
	version, commit, goVersion := build()
	_, err := fmt.Fprintf(to.out, "trunkboard %s (%s, %s)\n", version, commit, goVersion)
	return err
}

type licencesCommand struct{}

// Run prints the page that is served at /licences.txt.
func (licencesCommand) Run(to streams) error {
	text := web.Licences()
	if text == "" {
		return errors.New("this binary was built without its licences; `make build` adds them")
	}
	_, err := io.WriteString(to.out, text)
	return err
}

// build says what this binary was made from, as the Go tool recorded it.
func build() (version, commit, goVersion string) {
	version, commit, goVersion = "unreleased", "unknown commit", "unknown Go"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return
	}
	goVersion = info.GoVersion
	if v := info.Main.Version; v != "" && v != "(devel)" {
		version = v
	}
	dirty := ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && len(s.Value) >= 12:
			commit = s.Value[:12]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = " with changes"
		}
	}
	return version, commit + dirty, goVersion
}
