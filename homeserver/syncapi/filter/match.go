// SPDX-License-Identifier: Apache-2.0

package filter

import "strings"

// Names is a list of ids. A list that was not given (Set is false) lets everything in; an empty one lets nothing in.
type Names struct {
	Set   bool
	names map[string]struct{}
}

func newNames(list []string) Names {
	n := Names{Set: list != nil}
	if len(list) > 0 {
		n.names = make(map[string]struct{}, len(list))
		for _, s := range list {
			n.names[s] = struct{}{}
		}
	}
	return n
}

// List gives the names, in no order.
func (n Names) List() []string {
	out := make([]string, 0, len(n.names))
	for s := range n.names {
		out = append(out, s)
	}
	return out
}

func (n Names) in(s string) bool { return !n.Set || n.has(s) }

func (n Names) has(s string) bool {
	_, ok := n.names[s]
	return ok
}

// Patterns is a list of event types, in which * stands for any number of any characters.
type Patterns struct {
	Set   bool
	exact map[string]struct{}
	globs []glob
}

func newPatterns(list []string) Patterns {
	p := Patterns{Set: list != nil}
	for _, s := range list {
		if strings.Contains(s, "*") {
			p.globs = append(p.globs, newGlob(s))
			continue
		}
		if p.exact == nil {
			p.exact = make(map[string]struct{}, len(list))
		}
		p.exact[s] = struct{}{}
	}
	return p
}

func (p Patterns) size() int { return len(p.exact) + len(p.globs) }

func (p Patterns) in(s string) bool { return !p.Set || p.has(s) }

func (p Patterns) has(s string) bool {
	if _, ok := p.exact[s]; ok {
		return true
	}
	for i := range p.globs {
		if p.globs[i].match(s) {
			return true
		}
	}
	return false
}

// glob is a pattern with at least one star, cut at its stars. Taking the first place where each part fits is always right, because
// what lies between the parts may be anything: so nothing is ever tried twice.
type glob struct {
	prefix, suffix string
	parts          []string
}

func newGlob(pattern string) glob {
	cut := strings.Split(pattern, "*")
	g := glob{prefix: cut[0], suffix: cut[len(cut)-1]}
	for _, part := range cut[1 : len(cut)-1] {
		if part != "" {
			g.parts = append(g.parts, part)
		}
	}
	return g
}

func (g *glob) match(s string) bool {
	if len(s) < len(g.prefix)+len(g.suffix) || !strings.HasPrefix(s, g.prefix) || !strings.HasSuffix(s, g.suffix) {
		return false
	}
	s = s[len(g.prefix) : len(s)-len(g.suffix)]
	for _, part := range g.parts {
		i := strings.Index(s, part)
		if i < 0 {
			return false
		}
		s = s[i+len(part):]
	}
	return true
}
