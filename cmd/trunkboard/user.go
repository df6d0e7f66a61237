// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/trunkboard/trunkboard/configs"
	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/homeserver/e2ee"
	"github.com/trunkboard/trunkboard/homeserver/push"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// userCommand works on the database itself, beside a server that runs or without one. It leaves rooms alone: a server that runs holds
// their newest state in memory.
type userCommand struct {
	Create     userCreate     `cmd:"" help:"Make an account."`
	Password   userPassword   `cmd:"" help:"Set a new password and log every device out."`
	List       userList       `cmd:"" help:"List the accounts."`
	Deactivate userDeactivate `cmd:"" help:"End an account for good: no log-in, no devices. The name stays taken, and memberships of rooms stay as they are."`
}

type tokenCommand struct {
	Create tokenCreate `cmd:"" help:"Make a token: for one registration, or, with --user, an access token."`
	List   tokenList   `cmd:"" help:"List the registration tokens."`
	Revoke tokenRevoke `cmd:"" help:"Take a registration token back."`
}

// absent says what to do when there is no database yet.
type absent int

const (
	refuseAbsent absent = iota
	makeAbsent
)

// withStore opens the database, lets work use it, and closes it again.
func (s settings) withStore(to streams, without absent, work func(ctx context.Context, cfg configs.Config, store *storage.Store, log *slog.Logger) error) (err error) {
	cfg, err := s.load(to)
	if err != nil {
		return err
	}
	cfg.Log.Level = "warn" // an administrator wants the answer, not the log
	log, err := newLogger(cfg.Log, to.err)
	if err != nil {
		return err
	}
	// Whoever forgets the server's settings would work on another database, and make it.
	if file, is := strings.CutPrefix(cfg.DatabaseURL(), "sqlite:"); is {
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
			if without == refuseAbsent {
				return fmt.Errorf("there is no database %s; name the server's settings with --config, or its data_dir", file)
			}
			fmt.Fprintf(to.err, "note: there was no database %s, and now there is; if a server runs already, name its settings with --config\n", file)
		}
	}
	ctx := context.Background()
	store, err := storage.Open(ctx, cfg.DatabaseURL(), log)
	if err != nil {
		return fmt.Errorf("database.url: %w", err)
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	return work(ctx, cfg, store, log)
}

// withAccounts opens the accounts, lets work use them, and closes them again.
func (s settings) withAccounts(to streams, without absent, work func(ctx context.Context, a *accounts.Service) error) error {
	return s.withStore(to, without, func(ctx context.Context, cfg configs.Config, store *storage.Store, log *slog.Logger) error {
		service, err := accounts.New(ctx, store, accountsConfig(cfg), signalling.SystemClock{}, log)
		if err != nil {
			return err
		}
		// What belongs to a device goes with it.
		keys := e2ee.New(store, cfg.ServerName, log, e2ee.Deps{})
		service.Hook(accounts.Hooks{DeviceDeleted: keys.DeviceDeleted, DeviceRenamed: keys.DeviceRenamed, Deactivate: keys.Deactivate})
		service.Hook(accounts.Hooks{DeviceDeleted: push.New(store, signalling.SystemClock{}, log).DeviceDeleted})
		return work(ctx, service)
	})
}

func accountsConfig(cfg configs.Config) accounts.Config {
	c := accounts.Config{Server: cfg.ServerName, Open: cfg.OpenRegistration(), SharedSecret: cfg.Registration.SharedSecret, RequireEmail: cfg.Registration.RequireEmail, Guests: cfg.Registration.Guests}
	c.MinPassword = cfg.Accounts.MinPassword
	if cfg.Accounts.PasswordCost == "minimum" {
		c.Cost = accounts.CostMinimum
	}
	return c
}

// named is a user as the command line names him: alice, or @alice:example.org.
type named struct {
	Name string `arg:"" help:"The name before the colon, or the whole user id."`
}

func (n named) id(a *accounts.Service) (string, error) {
	if id := a.UserID(n.Name); id != "" {
		return id, nil
	}
	return "", fmt.Errorf("%q is no user of %s", n.Name, a.Server())
}

// chosen is where a password comes from: the first line of the input, never the command line, where others can read it.
type chosen struct {
	PasswordStdin bool `help:"Read the password from standard input. Otherwise one is made up and printed."`
}

// read gives the password, and the line that tells it when it was made up.
func (c chosen) read(in io.Reader) (password, tell string, err error) {
	if !c.PasswordStdin {
		password = rand.Text()
		return password, "password: " + password + "\n", nil
	}
	line := bufio.NewScanner(in)
	if !line.Scan() {
		return "", "", fmt.Errorf("no password on standard input: %w", orEOF(line.Err()))
	}
	return line.Text(), "", nil
}

func orEOF(err error) error {
	if err == nil {
		return io.ErrUnexpectedEOF
	}
	return err
}

type userCreate struct {
	settings
	named
	chosen
	Admin bool `help:"May use the admin API."`
}

// Run prints the user id, and the password when it was made up.
func (c *userCreate) Run(to streams) error {
	password, tell, err := c.read(to.in)
	if err != nil {
		return err
	}
	return c.withAccounts(to, makeAbsent, func(ctx context.Context, a *accounts.Service) error {
		id, err := c.id(a)
		if err != nil {
			return err
		}
		local, _, _ := strings.Cut(id[1:], ":")
		made, err := a.Create(ctx, accounts.NewUser{Localpart: local, Password: password, Admin: c.Admin})
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(to.out, "%s\n%s", made.UserID, tell)
		return err
	})
}

type userPassword struct {
	settings
	named
	chosen
	KeepDevices bool `help:"Leave the devices logged in."`
}

// Run prints the password when it was made up.
func (c *userPassword) Run(to streams) error {
	password, tell, err := c.read(to.in)
	if err != nil {
		return err
	}
	return c.withAccounts(to, refuseAbsent, func(ctx context.Context, a *accounts.Service) error {
		id, err := c.id(a)
		if err != nil {
			return err
		}
		if err := a.SetPassword(ctx, id, password, !c.KeepDevices, ""); err != nil {
			return err
		}
		_, err = io.WriteString(to.out, tell)
		return err
	})
}

type userList struct{ settings }

// Run prints a line for each account.
func (c *userList) Run(to streams) error {
	return c.withAccounts(to, refuseAbsent, func(ctx context.Context, a *accounts.Service) error {
		table := tabwriter.NewWriter(to.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "USER\tMADE\tKIND")
		for after := ""; ; {
			page, err := a.Users(ctx, after, 500)
			if err != nil {
				return err
			}
			if len(page) == 0 {
				return table.Flush()
			}
			for _, u := range page {
				fmt.Fprintf(table, "%s\t%s\t%s\n", u.ID, time.UnixMilli(u.CreatedTS).UTC().Format(time.DateTime), kind(u))
			}
			after = page[len(page)-1].ID
		}
	})
}

// kind says what is special about an account, the gravest first.
func kind(u storage.User) string {
	switch {
	case u.Deactivated:
		return "deactivated"
	case u.Locked:
		return "locked"
	case u.Admin:
		return "admin"
	case u.Guest:
		return "guest"
	case u.Type != "":
		return u.Type
	}
	return "user"
}

type userDeactivate struct {
	settings
	named
}

// Run ends the account. A running server believes its tokens for up to 30 seconds more.
func (c *userDeactivate) Run(to streams) error {
	return c.withAccounts(to, refuseAbsent, func(ctx context.Context, a *accounts.Service) error {
		id, err := c.id(a)
		if err != nil {
			return err
		}
		return a.Deactivate(ctx, id, false)
	})
}

type tokenCreate struct {
	settings
	Uses    int64         `default:"1" help:"How many accounts a registration token is good for; -1 for any number."`
	Expires time.Duration `default:"168h" help:"How long a registration token is good; 0 for ever."`
	User    string        `placeholder:"NAME" help:"Log this user in instead and print an access token, for scripts."`
}

// Run prints the token.
func (c *tokenCreate) Run(to streams) error {
	return c.withAccounts(to, makeAbsent, func(ctx context.Context, a *accounts.Service) error {
		if c.User != "" {
			id, err := named{c.User}.id(a)
			if err != nil {
				return err
			}
			tokens, err := a.LoginTrusted(ctx, id, accounts.Login{DisplayName: "trunkboard token create"})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(to.out, tokens.AccessToken)
			return err
		}
		expires := time.Time{}
		if c.Expires > 0 {
			expires = time.Now().Add(c.Expires)
		}
		token, err := a.NewRegistrationToken(ctx, "", c.Uses, expires)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(to.out, token)
		return err
	})
}

type tokenList struct{ settings }

// Run prints a line for each registration token.
func (c *tokenList) Run(to streams) error {
	return c.withAccounts(to, refuseAbsent, func(ctx context.Context, a *accounts.Service) error {
		tokens, err := a.RegistrationTokens(ctx)
		if err != nil {
			return err
		}
		table := tabwriter.NewWriter(to.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "TOKEN\tUSES LEFT\tUNTIL")
		for _, t := range tokens {
			uses, until := "any", "for ever"
			if t.Uses >= 0 {
				uses = strconv.FormatInt(t.Uses, 10)
			}
			if t.ExpiresTS != 0 {
				until = time.UnixMilli(t.ExpiresTS).UTC().Format(time.DateTime)
			}
			fmt.Fprintf(table, "%s\t%s\t%s\n", t.Token, uses, until)
		}
		return table.Flush()
	})
}

type tokenRevoke struct {
	settings
	Token string `arg:"" help:"The token, as trunkboard token list shows it."`
}

// Run takes the token back.
func (c *tokenRevoke) Run(to streams) error {
	return c.withAccounts(to, refuseAbsent, func(ctx context.Context, a *accounts.Service) error {
		return a.DeleteRegistrationToken(ctx, c.Token)
	})
}
