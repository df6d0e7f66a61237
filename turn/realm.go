// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"errors"
	"fmt"
	"strings"

	"github.com/pion/stun/v4"

	"github.com/trunkboard/trunkboard/turn/relay"
)

// Realm is one of several tenants of a server, each with names and quotas of its own. The zero value of a quota means the server's.
type Realm struct {
	// Name is told to clients.
	Name string
	// Origins are the values of the ORIGIN attribute (draft-johnston-tram-stun-origin) that lead a client here, "https://app.example.org".
	Origins []string
	// UserQuota and TotalQuota are numbers of allocations, of one user and of the whole realm; negative means no limit.
	UserQuota, TotalQuota int
	// UserBandwidth, Bandwidth and SessionBandwidth are payload bytes a second, both directions together; 0 means no limit of the realm's own.
	UserBandwidth, Bandwidth, SessionBandwidth int64
}

// realm is a Realm at work.
type realm struct {
	Realm
	first     bool // the server's own, whose users' names stand alone
	bandwidth *relay.Bandwidth
	total     int // allocations; under Server.mu
}

// newRealms makes the server's own realm and the others.
func newRealms(c Config) (own *realm, byName, byOrigin map[string]*realm) {
	own = &realm{Realm: Realm{Name: c.Realm, UserQuota: c.UserQuota, TotalQuota: -1, UserBandwidth: c.UserBandwidth, SessionBandwidth: c.SessionBandwidth}, first: true}
	byName, byOrigin = map[string]*realm{c.Realm: own}, make(map[string]*realm)
	for _, r := range c.Realms {
		or(&r.UserQuota, c.UserQuota)
		or(&r.TotalQuota, -1)
		or(&r.UserBandwidth, c.UserBandwidth)
		or(&r.SessionBandwidth, c.SessionBandwidth)
		x := &realm{Realm: r, bandwidth: relay.NewBandwidth(r.Bandwidth)}
		byName[r.Name] = x
		for _, o := range r.Origins {
			byOrigin[strings.ToLower(o)] = x
		}
	}
	return own, byName, byOrigin
}

func (c Config) checkRealms() error {
	if len(c.Realm) > 127 {
		return errors.New("turn: the realm is longer than 127 bytes")
	}
	names, origins := map[string]bool{c.Realm: true}, make(map[string]bool)
	for _, r := range c.Realms {
		if r.Name == "" || len(r.Name) > 127 || names[r.Name] {
			return fmt.Errorf("turn: realm %q: want a name of its own of 1 to 127 bytes", r.Name)
		}
		names[r.Name] = true
		for _, o := range r.Origins {
			if o = strings.ToLower(o); o == "" || origins[o] {
				return fmt.Errorf("turn: origin %q of realm %q is empty or another realm's", o, r.Name)
			}
			origins[o] = true
		}
	}
	return nil
}

// user is the key of a user in the server's tables.
func (r *realm) user(name string) string {
	if r.first {
		return name
	}
	return r.Name + "\x00" + name
}

// asked is the realm that a request without credentials is about.
func (h *handler) asked() *realm {
	if origin, err := h.req.Get(stun.AttrOrigin); err == nil {
		if r := h.s.byOrigin[strings.ToLower(string(origin))]; r != nil {
			return r
		}
	}
	return h.s.own
}

// named is the realm that a request names; nil if there is none of that name, or if its origin belongs to another one.
func (h *handler) named(name string) *realm {
	r := h.s.realms[name]
	if origin, err := h.req.Get(stun.AttrOrigin); err == nil && r != nil {
		if o := h.s.byOrigin[strings.ToLower(string(origin))]; o != nil && o != r {
			return nil
		}
	}
	return r
}
