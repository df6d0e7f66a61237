// SPDX-License-Identifier: Apache-2.0

package rooms

import (
	"context"
	"net"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/signalling"
)

// acl is a room's m.room.server_acl, ready to be asked. It never changes.
type acl struct {
	event       string // its id
	literals    bool
	allow, deny []string
}

// Allows says whether a server may take part in the room (m.room.server_acl). This server always may. Errors: M_FORBIDDEN.
func (r *Room) Allows(ctx context.Context, server string) error {
	if server == r.s.signer.Server {
		return nil
	}
	ref, ok := r.Head().Ref("m.room.server_acl", "")
	if !ok {
		return nil
	}
	list := r.acl.Load()
	if list == nil || list.event != ref.ID {
		e, err := r.ByRef(ctx, ref)
		if err != nil || e == nil {
			return err
		}
		list = parseACL(ref.ID, e.Content())
		r.acl.Store(list)
	}
	if !list.allows(server) {
		return signalling.Forbidden("your server is shut out of that room")
	}
	return nil
}

func parseACL(id string, content []byte) *acl {
	a := &acl{event: id, literals: true}
	if v := gjson.GetBytes(content, "allow_ip_literals"); v.Type == gjson.False {
		a.literals = false
	}
	globs := func(name string) (out []string) {
		for _, x := range gjson.GetBytes(content, name).Array() {
			if x.Type == gjson.String {
				out = append(out, strings.ToLower(x.Str))
			}
		}
		return out
	}
	a.allow, a.deny = globs("allow"), globs("deny")
	return a
}

// allows goes through the rules in the order of the spec; names are compared without port and case.
func (a *acl) allows(server string) bool {
	name := strings.ToLower(hostOf(server))
	if !a.literals && isLiteral(name) {
		return false
	}
	for _, g := range a.deny {
		if glob(g, name) {
			return false
		}
	}
	for _, g := range a.allow {
		if glob(g, name) {
			return true
		}
	}
	return false
}

func hostOf(server string) string {
	if strings.HasPrefix(server, "[") {
		if i := strings.IndexByte(server, ']'); i > 0 {
			return server[:i+1]
		}
		return server
	}
	host, _, _ := strings.Cut(server, ":")
	return host
}

func isLiteral(host string) bool {
	return strings.HasPrefix(host, "[") || net.ParseIP(host) != nil
}

// glob matches * and ?; its cost is the product of the lengths at worst, both of which events bound.
func glob(pattern, name string) bool {
	p, n, star, mark := 0, 0, -1, 0
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, n
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == name[n]):
			p++
			n++
		case star >= 0:
			mark++
			p, n = star+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}
