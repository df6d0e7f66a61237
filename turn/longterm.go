// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"crypto/md5"
	"errors"
	"fmt"
	"strings"
)

// LongTermUser is a user of the relay with a password of its own (RFC 8489, section 9.2), beside those whose credentials are made from
// shared secrets.
type LongTermUser struct {
	Realm, Name string
	Key         [16]byte
}

// NewLongTermUser makes a user from a password, which may hold any printable character of Unicode. The realm is that of Config.
func NewLongTermUser(realm, name, password string) (LongTermUser, error) {
	if password == "" {
		return LongTermUser{}, errors.New("an empty password")
	}
	u := LongTermUser{Realm: realm, Name: name, Key: md5.Sum([]byte(name + ":" + realm + ":" + password))}
	return u, u.check()
}

func (u LongTermUser) check() error {
	switch {
	case u.Name == "" || len(u.Name) > maxUsername:
		return fmt.Errorf("a user's name has 1 to %d bytes", maxUsername)
	case u.Realm == "" || len(u.Realm) > maxText:
		return fmt.Errorf("a realm has 1 to %d bytes", maxText)
	case strings.ContainsFunc(u.Name+u.Realm, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return errors.New("control characters in the name or the realm")
	}
	return nil
}

// SetUsers replaces the long-term users. Allocations of users who are gone, or whose key is another now, end at once. A user whose name
// could also be one made from a shared secret is looked up here first.
func (c *Credentials) SetUsers(users []LongTermUser) error {
	now := make(map[string]map[string][16]byte)
	for _, u := range users {
		if err := u.check(); err != nil {
			return fmt.Errorf("turn: user %q of realm %q: %w", u.Name, u.Realm, err)
		}
		if now[u.Name] == nil {
			now[u.Name] = make(map[string][16]byte, 1)
		}
		now[u.Name][u.Realm] = u.Key
	}
	var ended []party
	var watchers []func(party, int64)
	c.mu.Lock()
	for name, keys := range c.users {
		for realm, key := range keys {
			if k, ok := now[name][realm]; !ok || k != key {
				ended = append(ended, party{user: name})
				break
			}
		}
	}
	c.users = now
	for _, w := range c.watchers {
		watchers = append(watchers, w)
	}
	until := c.clock.Now().UnixMilli()
	c.mu.Unlock()
	for _, p := range ended {
		for _, w := range watchers {
			w(p, until)
		}
	}
	return nil
}

// longTerm gives the keys of a name by realm, nil if it is no long-term user. The map is never changed.
func (c *Credentials) longTerm(name string) map[string][16]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.users[name]
}
