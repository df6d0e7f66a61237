// SPDX-License-Identifier: Apache-2.0

package accounts

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// Account data by which a user says who may invite him.
const (
	inviteType       = "m.invite_permission_config"                  // client-server API, "Invite permission"
	inviteType4380   = "org.matrix.msc4380.invite_permission_config" // the same before it was stable
	inviteFilterType = "org.matrix.msc4155.invite_permission_config" // MSC4155: lists of users and servers
	invitePatterns   = 1000                                          // of all lists that are looked at
	inviteWork       = 1 << 20                                       // steps that comparing one inviter with them may take
)

// inviteVerdict is what becomes of an invite.
type inviteVerdict uint8

const (
	inviteShown   inviteVerdict = iota
	inviteHidden                // it is sent, and the invited user does not see it
	inviteBlocked               // whoever invites is told so
	inviteRefused               // the same, by MSC4155, which has an error code of its own
)

// invitePolicy is what a user's account data says. The zero value lets everybody in.
type invitePolicy struct {
	blockAll bool
	rules    []inviteRule // the first that fits decides
}

type inviteRule struct {
	pattern string // in lower case, with * and ?
	server  bool   // it is compared with the inviter's server
	verdict inviteVerdict
}

func (p *invitePolicy) verdict(sender string) inviteVerdict {
	if p.blockAll {
		return inviteBlocked
	}
	if len(p.rules) == 0 {
		return inviteShown
	}
	user, server := strings.ToLower(sender), strings.ToLower(event.ServerOf(sender))
	work := inviteWork
	for _, r := range p.rules {
		text := user
		if r.server {
			text = server
		}
		if wildcard(r.pattern, text, &work) {
			return r.verdict
		}
	}
	return inviteShown
}

// wildcard compares text with a pattern in which * stands for any number of bytes and ? for one. When work is used up it says yes: a
// list that is too costly to read blocks rather than lets in.
func wildcard(pattern, text string, work *int) bool {
	p, t, star, from := 0, 0, -1, 0
	for t < len(text) {
		if *work--; *work < 0 {
			return true
		}
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, t
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == text[t]):
			p++
			t++
		case star >= 0:
			from++
			p, t = star+1, from
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// parse adds what one piece of account data says. Clients write it: what has another shape says nothing.
func (p *invitePolicy) parse(typ string, content []byte) {
	if typ != inviteFilterType {
		var c struct {
			Action string `json:"default_action"`
		}
		p.blockAll = p.blockAll || json.Unmarshal(content, &c) == nil && c.Action == "block"
		return
	}
	var lists map[string]json.RawMessage
	_ = json.Unmarshal(content, &lists)
	for _, l := range []struct {
		key     string
		server  bool
		verdict inviteVerdict
	}{
		{"allowed_users", false, inviteShown}, {"ignored_users", false, inviteHidden}, {"blocked_users", false, inviteRefused},
		{"allowed_servers", true, inviteShown}, {"ignored_servers", true, inviteHidden}, {"blocked_servers", true, inviteRefused},
	} {
		var patterns []string
		_ = json.Unmarshal(lists[l.key], &patterns)
		for _, g := range patterns {
			if len(p.rules) < invitePatterns && len(g) <= event.MaxIDLength {
				p.rules = append(p.rules, inviteRule{strings.ToLower(g), l.server, l.verdict})
			}
		}
	}
}

// invitePolicies keeps the policies of users who were invited lately.
type invitePolicies struct {
	mu    sync.Mutex
	kept  *lru.Cache[string, keptPolicy]
	epoch int64 // counts changes, so that a policy that was read before one is not kept after it
}

type keptPolicy struct {
	*invitePolicy
	until time.Time
}

func newInvitePolicies() *invitePolicies {
	c, _ := lru.New[string, keptPolicy](ignoreCache)
	return &invitePolicies{kept: c}
}

func (l *invitePolicies) changed(userID string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.epoch++
	l.kept.Remove(userID)
}

func (s *Service) invitePolicy(ctx context.Context, userID string) (*invitePolicy, error) {
	l, now := s.invites, s.clock.Now()
	l.mu.Lock()
	k, ok := l.kept.Get(userID)
	epoch := l.epoch
	l.mu.Unlock()
	if ok && now.Before(k.until) {
		return k.invitePolicy, nil
	}
	p := &invitePolicy{}
	for _, typ := range []string{inviteType, inviteType4380, inviteFilterType} {
		d, err := s.store.AccountData(ctx, userID, "", typ)
		switch {
		case errors.Is(err, storage.ErrNotFound):
		case err != nil:
			return nil, err
		default:
			p.parse(typ, d.Content)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.epoch == epoch {
		l.kept.Add(userID, keptPolicy{p, now.Add(ignoreFresh)})
	}
	return p, nil
}

// MayInvite checks whether a local user lets sender invite him (client-server API, "Invite permission"; MSC4155). The server's own
// notices always come through. Errors: M_INVITE_BLOCKED, ORG.MATRIX.MSC4155.INVITE_BLOCKED.
func (s *Service) MayInvite(ctx context.Context, userID, sender string) error {
	if sender == "@_server:"+s.cfg.Server {
		return nil
	}
	p, err := s.invitePolicy(ctx, userID)
	if err != nil {
		return err
	}
	const why = "this user does not take invitations from you"
	switch p.verdict(sender) {
	case inviteBlocked:
		return signalling.Refuse(http.StatusForbidden, "M_INVITE_BLOCKED", why)
	case inviteRefused:
		return signalling.Refuse(http.StatusForbidden, "ORG.MATRIX.MSC4155.INVITE_BLOCKED", why)
	}
	return nil
}

// HidesInvites says whose invites a local user is not to see, in /sync and as push; nil when he sees them all.
func (s *Service) HidesInvites(ctx context.Context, userID string) (func(sender string) bool, error) {
	p, err := s.invitePolicy(ctx, userID)
	if err != nil || !p.blockAll && len(p.rules) == 0 {
		return nil, err
	}
	return func(sender string) bool {
		return sender != "@_server:"+s.cfg.Server && p.verdict(sender) != inviteShown
	}, nil
}
