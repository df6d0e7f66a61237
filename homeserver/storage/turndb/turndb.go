// SPDX-License-Identifier: Apache-2.0

// Package turndb reads the SQLite database of coturn (its setting userdb), so that users and secrets move over as they are.
package turndb

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"

	_ "modernc.org/sqlite" // the "sqlite" driver
)

// Contents is what a relay needs of the database.
type Contents struct {
	Users   []User   // with a password of their own
	Secrets []Secret // of the REST API
	Allowed []Range  // peers that may be reached
	Denied  []Range  // peers that may not
	Origins []Origin // which realm a web origin belongs to
	Options []Option // quotas of realms
	OAuth   int      // keys for tokens of others: counted, not read
}

// User is a long-term user. Key is MD5(name ":" realm ":" password), 16 bytes.
type User struct {
	Realm, Name string
	Key         []byte
}

// Secret is a shared secret of a realm.
type Secret struct{ Realm, Value string }

// Range is an address, a range "FIRST-LAST" or a CIDR prefix, for a realm or, if that is empty, for all.
type Range struct{ Realm, Addresses string }

// Origin is a row of turn_origin_to_realm.
type Origin struct{ Origin, Realm string }

// Option is a row of turn_realm_option: max-bps, user-quota or total-quota.
type Option struct{ Realm, Name, Value string }

// Read reads the file at path, which may be in use. Tables that an old version lacks count as empty.
func Read(ctx context.Context, path string) (Contents, error) {
	var c Contents
	if _, err := os.Stat(path); err != nil {
		return c, err
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: url.PathEscape(path), RawQuery: "mode=ro&_pragma=busy_timeout(5000)"}).String())
	if err != nil {
		return c, err
	}
	defer db.Close()
	var problems []error
	each := func(table, columns string, scan func(*sql.Rows) error) {
		var there int
		err := db.QueryRowContext(ctx, `SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = ?`, table).Scan(&there)
		if err == nil && there > 0 {
			err = rows(ctx, db, `SELECT `+columns+` FROM `+table+` ORDER BY 1, 2`, scan)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %s: %w", path, table, err))
		}
	}
	each("turnusers_lt", "realm, name, hmackey", func(r *sql.Rows) error {
		var u User
		var key string
		if err := r.Scan(&u.Realm, &u.Name, &key); err != nil {
			return err
		}
		if u.Key, err = hex.DecodeString(key); err != nil || len(u.Key) != 16 {
			return fmt.Errorf("the key of user %q is not 32 hexadecimal digits", u.Name)
		}
		c.Users = append(c.Users, u)
		return nil
	})
	each("turn_secret", "realm, value", func(r *sql.Rows) error {
		var s Secret
		err := r.Scan(&s.Realm, &s.Value)
		c.Secrets = append(c.Secrets, s)
		return err
	})
	for table, list := range map[string]*[]Range{"allowed_peer_ip": &c.Allowed, "denied_peer_ip": &c.Denied} {
		each(table, "realm, ip_range", func(r *sql.Rows) error {
			var x Range
			err := r.Scan(&x.Realm, &x.Addresses)
			*list = append(*list, x)
			return err
		})
	}
	each("turn_origin_to_realm", "origin, realm", func(r *sql.Rows) error {
		var o Origin
		err := r.Scan(&o.Origin, &o.Realm)
		c.Origins = append(c.Origins, o)
		return err
	})
	each("turn_realm_option", "realm, opt, value", func(r *sql.Rows) error {
		var o Option
		err := r.Scan(&o.Realm, &o.Name, &o.Value)
		c.Options = append(c.Options, o)
		return err
	})
	each("oauth_key", "kid, realm", func(r *sql.Rows) error {
		c.OAuth++
		return nil
	})
	return c, errors.Join(problems...)
}

func rows(ctx context.Context, db *sql.DB, query string, scan func(*sql.Rows) error) error {
	r, err := db.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer r.Close()
	for r.Next() {
		if err := scan(r); err != nil {
			return err
		}
	}
	return r.Err()
}
