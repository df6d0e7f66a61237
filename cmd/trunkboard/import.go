// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/google/renameio/v2"
	"go.yaml.in/yaml/v4"

	"github.com/trunkboard/trunkboard/cmd/trunkboard/coturn"
	"github.com/trunkboard/trunkboard/configs"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/turndb"
	"github.com/trunkboard/trunkboard/turn"
)

type importCommand struct {
	Coturn importCoturn `cmd:"" help:"Read coturn's turnserver.conf and its SQLite users, and write the same as settings of ours."`
}

type importCoturn struct {
	settings
	File   string `arg:"" help:"The configuration, usually /etc/turnserver.conf."`
	Output string `short:"o" placeholder:"FILE" help:"Write the settings there instead of to standard output; an existing file is not overwritten."`
	UserDB string `name:"userdb" placeholder:"FILE" help:"The SQLite database of users, if the configuration does not name it. none: leave them out."`
}

// Run writes the settings, puts users into the database, and names each line that was not carried over.
func (c *importCoturn) Run(to streams) error {
	f, err := os.Open(c.File)
	if err != nil {
		return err
	}
	defer f.Close()
	found, err := coturn.Parse(f, filepath.Dir(c.File))
	if err != nil {
		return fmt.Errorf("%s: %w", c.File, err)
	}
	users, err := c.database(&found)
	if err != nil {
		return err
	}
	realm, _ := found.Settings["turn.realm"].(string)
	if realm == "" {
		realm = configs.Default().TURN.Realm
	}
	for _, u := range found.Users {
		kept := storage.TURNUser{Realm: realm, Name: u.Name, Key: u.Key}
		if u.Key == nil {
			made, err := turn.NewLongTermUser(realm, u.Name, u.Password)
			if err != nil {
				return fmt.Errorf("user %q: %w", u.Name, err)
			}
			kept.Key = made.Key[:]
		}
		users = append(users, kept)
	}
	if cert, ok := found.Settings["tls.certificate"].(string); ok {
		if _, err := tls.LoadX509KeyPair(cert, found.Settings["tls.key"].(string)); err != nil {
			fmt.Fprintf(to.err, "note: the certificate cannot be read by this user: %v\n", err)
		}
	}
	text, err := c.render(found)
	if err != nil {
		return err
	}
	// What was written must be good for serve.
	if err := c.check(text); err != nil {
		return fmt.Errorf("the settings that came out do not work: %w", err)
	}
	if len(users) > 0 {
		if err := c.keep(to, users); err != nil {
			return err
		}
	}
	if c.Output == "" {
		if _, err := to.out.Write(text); err != nil {
			return err
		}
	} else {
		if _, err := os.Stat(c.Output); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s is there already; name another file, or move it away", c.Output)
		}
		if err := renameio.WriteFile(c.Output, text, 0o600); err != nil { // a secret is in it
			return err
		}
	}
	for _, l := range found.Left {
		if l.Line == 0 {
			fmt.Fprintf(to.err, "not carried over: %s: %s\n", l.Text, l.Why)
			continue
		}
		fmt.Fprintf(to.err, "not carried over: line %d, %s: %s\n", l.Line, l.Text, l.Why)
	}
	fmt.Fprintf(to.err, "settings: %d, users: %d, lines not carried over: %d. Try: trunkboard serve --only turn --config FILE\n", len(found.Settings), len(users), len(found.Left))
	return nil
}

// database reads coturn's own database into found, and gives its users.
func (c *importCoturn) database(found *coturn.Import) ([]storage.TURNUser, error) {
	path := found.UserDB
	if c.UserDB != "" {
		path = c.UserDB
	}
	if path == "" || path == "none" {
		return nil, nil
	}
	db, err := turndb.Read(context.Background(), path)
	if err != nil {
		return nil, fmt.Errorf("coturn's users (--userdb none leaves them out): %w", err)
	}
	realm, _ := found.Settings["turn.realm"].(string)
	left := func(text, why string) {
		found.Left = append(found.Left, coturn.Left{Text: text, Why: why})
	}
	var users []storage.TURNUser
	for _, u := range db.Users {
		if u.Realm == "" {
			u.Realm = realm
		}
		users = append(users, storage.TURNUser{Realm: u.Realm, Name: u.Name, Key: u.Key})
	}
	var secrets []string
	if s, ok := found.Settings["turn.secret"].(string); ok {
		old, _ := found.Settings["turn.old_secrets"].([]string)
		secrets = append([]string{s}, old...)
	}
	for _, s := range db.Secrets {
		if s.Realm != "" && s.Realm != realm {
			left("a secret of realm "+s.Realm, "secrets are good for the one realm of turn.realm")
		} else if !slices.Contains(secrets, s.Value) {
			secrets = append(secrets, s.Value)
		}
	}
	if len(secrets) > 0 {
		found.Settings["turn.secret"] = secrets[0]
	}
	if len(secrets) > 1 {
		found.Settings["turn.old_secrets"] = secrets[1:]
	}
	if len(users) > 0 {
		found.Settings["turn.users"] = true
	}
	for _, a := range db.Allowed {
		prefixes, err := coturn.Prefixes(a.Addresses)
		if err != nil {
			left("allowed peers "+a.Addresses, err.Error())
			continue
		}
		allow, _ := found.Settings["turn.relay.allow"].([]string)
		for _, p := range prefixes {
			allow = append(allow, p.String())
		}
		found.Settings["turn.relay.allow"] = allow
	}
	options, _ := found.Settings["turn.options"].([]string)
	realms := coturnRealms(db, realm, found.Settings, &options, left) // before the line below, whose options they may add to
	options = append(options, realms...)
	if len(options) > 0 {
		found.Settings["turn.options"] = options
	}
	if db.OAuth > 0 {
		left(fmt.Sprintf("%d OAuth keys", db.OAuth), "make new ones with the server that issues tokens")
	}
	return users, nil
}

// coturnRealms says the realms of coturn's database as turn.options has them. Those of the one realm that is everybody's become settings.
func coturnRealms(db turndb.Contents, own string, settings map[string]any, options *[]string, left func(text, why string)) (out []string) {
	words := make(map[string][]string) // by realm
	for _, o := range db.Origins {
		switch {
		case o.Realm == own: // whoever comes from elsewhere is led there too
		case strings.ContainsAny(o.Origin, " \t") || o.Origin == "":
			left("origin "+o.Origin, "spaces in its name")
		default:
			words[o.Realm] = append(words[o.Realm], "origin="+o.Origin)
		}
	}
	for _, o := range db.Options {
		n, err := strconv.ParseInt(o.Value, 10, 40)
		name := map[string]string{"max-bps": "session_bandwidth", "total-quota": "allocations", "user-quota": "user_allocations"}[o.Name]
		switch {
		case err != nil || n < 0 || name == "":
			left("option "+o.Name+" of realm "+o.Realm, "is not known, or no number")
		case n == 0: // no limit
		case o.Realm != own:
			if name == "session_bandwidth" {
				n *= 2 // both directions together
			}
			words[o.Realm] = append(words[o.Realm], fmt.Sprintf("%s=%d", name, n))
		case name == "session_bandwidth":
			*options = append(*options, fmt.Sprintf("session_bandwidth %d", 2*n))
		case name == "allocations":
			settings["turn.max_allocations"] = int(n)
		default:
			settings["turn.max_allocations_per_user"] = int(n)
		}
	}
	for _, u := range db.Users { // a realm that only has users is one too
		if u.Realm != "" && u.Realm != own && words[u.Realm] == nil {
			words[u.Realm] = []string{}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(words)) {
		if strings.ContainsAny(name, " \t") || name == "" {
			left("realm "+name, "spaces in its name")
			continue
		}
		out = append(out, strings.Join(append([]string{"realm", name}, words[name]...), " "))
	}
	return out
}

// render nests dotted keys.
func (c *importCoturn) render(found coturn.Import) ([]byte, error) {
	root := map[string]any{}
	for key, value := range found.Settings {
		at := root
		parts := strings.Split(key, ".")
		for _, part := range parts[:len(parts)-1] {
			next, ok := at[part].(map[string]any)
			if !ok {
				next = map[string]any{}
				at[part] = next
			}
			at = next
		}
		at[parts[len(parts)-1]] = value
	}
	text, err := yaml.Marshal(root)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# Settings of Trunkboard's relay, from %s. Run it with: trunkboard serve --only turn --config THIS-FILE\n", filepath.Base(c.File))
	for _, l := range found.Left {
		fmt.Fprintf(&b, "# Not carried over: %s (%s)\n", strings.ReplaceAll(l.Text, "\n", " "), strings.ReplaceAll(l.Why, "\n", " "))
	}
	return append([]byte(b.String()), text...), nil
}

// check loads what was written as serve would.
func (c *importCoturn) check(text []byte) error {
	dir, err := os.MkdirTemp("", "trunkboard-import")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "settings.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return err
	}
	_, _, err = configs.Load([]string{file}, nil, nil)
	return err
}

// keep puts users into the database of the settings.
func (c *importCoturn) keep(to streams, users []storage.TURNUser) error {
	return c.withStore(to, makeAbsent, func(ctx context.Context, _ configs.Config, s *storage.Store, _ *slog.Logger) error {
		return s.PutTURNUsers(ctx, users...)
	})
}
