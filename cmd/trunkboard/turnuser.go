// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"text/tabwriter"
	"time"

	"github.com/trunkboard/trunkboard/configs"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/turn"
)

// turnCommand works on the database beside a relay that runs, which sees the change within seconds; and asks one on this machine about its sessions.
type turnCommand struct {
	Sessions turnSessions `cmd:"" help:"List what a relay on this machine relays, and for whom."`
	End      turnEnd      `cmd:"" help:"End a session of the relay, or all of a user."`

	User struct {
		Add    turnUserAdd    `cmd:"" help:"Make a user, or give one a new password."`
		List   turnUserList   `cmd:"" help:"List the users."`
		Remove turnUserRemove `cmd:"" help:"Take a user away, and end what it relays."`
	} `cmd:"" help:"Users of the relay with passwords of their own, apart from accounts (turn.users)."`
}

// ofRealm is a user of the relay as the command line names him.
type ofRealm struct {
	Name  string `arg:"" help:"The name."`
	Realm string `help:"The realm; without it, turn.realm."`
}

func (c ofRealm) realm(s settings, to streams) (string, error) {
	if c.Realm != "" {
		return c.Realm, nil
	}
	cfg, err := s.load(to)
	return cfg.TURN.Realm, err
}

type turnUserAdd struct {
	settings
	ofRealm
	chosen
}

// Run prints the password when it was made up.
func (c *turnUserAdd) Run(to streams) error {
	password, tell, err := c.read(to.in)
	if err != nil {
		return err
	}
	realm, err := c.realm(c.settings, to)
	if err != nil {
		return err
	}
	u, err := turn.NewLongTermUser(realm, c.Name, password)
	if err != nil {
		return err
	}
	return c.withStore(to, makeAbsent, func(ctx context.Context, _ configs.Config, s *storage.Store, _ *slog.Logger) error {
		if err := s.PutTURNUsers(ctx, storage.TURNUser{Realm: u.Realm, Name: u.Name, Key: u.Key[:]}); err != nil {
			return err
		}
		_, err := fmt.Fprintf(to.out, "%s, realm %s\n%s", u.Name, u.Realm, tell)
		return err
	})
}

type turnUserList struct{ settings }

// Run prints a table.
func (c *turnUserList) Run(to streams) error {
	return c.withStore(to, refuseAbsent, func(ctx context.Context, _ configs.Config, s *storage.Store, _ *slog.Logger) error {
		users, err := s.TURNUsers(ctx)
		if err != nil {
			return err
		}
		w := tabwriter.NewWriter(to.out, 0, 4, 2, ' ', 0)
		fmt.Fprintln(w, "NAME\tREALM")
		for _, u := range users {
			fmt.Fprintf(w, "%s\t%s\n", u.Name, u.Realm)
		}
		return w.Flush()
	})
}

type turnUserRemove struct {
	settings
	ofRealm
}

// Run takes the user away.
func (c *turnUserRemove) Run(to streams) error {
	realm, err := c.realm(c.settings, to)
	if err != nil {
		return err
	}
	return c.withStore(to, refuseAbsent, func(ctx context.Context, _ configs.Config, s *storage.Store, _ *slog.Logger) error {
		err := s.RemoveTURNUser(ctx, realm, c.Name)
		if errors.Is(err, storage.ErrNotFound) {
			return fmt.Errorf("there is no user %q of realm %q", c.Name, realm)
		}
		return err
	})
}

// relayUsersEvery is how soon a running relay sees users that the command line made or took away.
const relayUsersEvery = 5 * time.Second

// openRelayUsers gives the relay the users of the database and keeps them the same. Where no homeserver runs, the database is opened
// for them alone.
func (a *App) openRelayUsers(ctx context.Context, store *storage.Store) error {
	if a.relay == nil || !a.cfg.TURN.Users {
		return nil
	}
	if store == nil {
		var err error
		if store, err = storage.Open(ctx, a.cfg.DatabaseURL(), a.log.With("part", "storage")); err != nil {
			return fmt.Errorf("turn.users: database.url: %w", err)
		}
		a.running = append(a.running, component{name: "database", close: store.Close})
	}
	at, err := a.loadRelayUsers(ctx, store, -1)
	if err != nil {
		return fmt.Errorf("turn.users: %w", err)
	}
	a.running = append(a.running, component{name: "relay users", run: func(ctx context.Context) error {
		look := time.NewTicker(relayUsersEvery)
		defer look.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-look.C:
			}
			// A database that is away for a while leaves the users as they were.
			if now, err := a.loadRelayUsers(ctx, store, at); err == nil {
				at = now
			} else if ctx.Err() == nil {
				a.log.Warn("the relay's users cannot be read", "part", "turn", "err", err)
			}
		}
	}})
	return nil
}

// loadRelayUsers loads the users if their revision is not have, and gives the revision.
func (a *App) loadRelayUsers(ctx context.Context, store *storage.Store, have int64) (int64, error) {
	revision, err := store.TURNUsersRevision(ctx)
	if err != nil || revision == have {
		return revision, err
	}
	rows, err := store.TURNUsers(ctx)
	if err != nil {
		return have, err
	}
	users := make([]turn.LongTermUser, 0, len(rows))
	for _, r := range rows {
		u := turn.LongTermUser{Realm: r.Realm, Name: r.Name}
		if copy(u.Key[:], r.Key) != len(u.Key) {
			return have, fmt.Errorf("the key of user %q has %d bytes", r.Name, len(r.Key))
		}
		users = append(users, u)
	}
	return revision, a.relay.creds.SetUsers(users)
}
