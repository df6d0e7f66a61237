// SPDX-License-Identifier: Apache-2.0

package rooms

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// A room may name a server that looks at every event before anybody else does (m.room.policy; server-server API, "Policy Servers"). Its
// signature stands on every event but the one that names it, and the key for it is in the room. Ours are not sent without; others' that
// lack it are sent there for it, and soft-failed when it is refused.

const (
	policyType   = "m.room.policy"
	policyKeyID  = "ed25519:policy_server"
	policyTime   = 10 * time.Second // for one event
	policyBatch  = 20 * time.Second // for the events of one insertion
	policyAtOnce = 8                // events asked about side by side
	policyRest   = 30 * time.Second // for which a policy server that does not answer is not asked
)

// AskPolicy asks a policy server to sign an event (POST /_matrix/policy/v1/sign) and gives its signature. Refusals come as they are.
type AskPolicy func(ctx context.Context, server string, e *event.Event) (signature []byte, err error)

// UsePolicyServers says how other servers are asked; without it every event of a room with such a server is refused. Call it before the
// first request.
func (s *Service) UsePolicyServers(ask AskPolicy) { s.askPolicy = ask }

// policy is what a room says of its policy server. It never changes.
type policy struct {
	event string // id of the m.room.policy event
	via   string // "": what the event says makes no sense
	key   ed25519.PublicKey
}

// policyAt is the policy server of the room at a head; nil: none is in use.
func (r *Room) policyAt(ctx context.Context, h *Head) (*policy, error) {
	ref, ok := h.Ref(policyType, "")
	if !ok {
		return nil, nil
	}
	p := r.policy.Load()
	if p == nil || p.event != ref.ID {
		e, err := r.ByRef(ctx, ref)
		if err != nil || e == nil {
			return nil, err
		}
		p = parsePolicy(ref.ID, e.Content())
		r.policy.Store(p)
	}
	if p.via == "" || !h.resident(p.via) {
		return nil, nil
	}
	return p, nil
}

func parsePolicy(id string, content []byte) *policy {
	p := &policy{event: id}
	via, key := gjson.GetBytes(content, "via"), gjson.GetBytes(content, "public_keys.ed25519")
	if via.Type != gjson.String || key.Type != gjson.String {
		return p
	}
	b64 := strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(key.Str, "="))
	if raw, err := base64.RawStdEncoding.DecodeString(b64); err == nil && len(raw) == ed25519.PublicKeySize {
		p.via, p.key = via.Str, raw
	}
	return p
}

// signed says whether an event has the signature that it needs.
func (p *policy) signed(e *event.Event) bool {
	return e.Is(policyType, "") || e.VerifySignature(p.via, policyKeyID, p.key) == nil
}

// recommended gives e with the signature of the room's policy server, when it needs one and has none. Errors: what the policy server said;
// M_FORBIDDEN.
func (s *Service) recommended(ctx context.Context, r *Room, p *policy, e *event.Event) (*event.Event, error) {
	if p.signed(e) {
		return e, nil
	}
	ctx, cancel := context.WithTimeout(ctx, policyTime)
	defer cancel()
	var sig []byte
	var err error
	switch {
	case p.via == s.signer.Server:
		sig, err = s.policySignature(ctx, r, p, e)
	case s.askPolicy == nil:
		err = signalling.Forbidden("the room's policy server %s cannot be asked", p.via)
	default:
		sig, err = s.askPolicy(ctx, p.via, e)
	}
	if err != nil {
		return nil, err
	}
	out, err := e.WithSignature(p.via, policyKeyID, sig)
	if err == nil && !p.signed(out) {
		err = signalling.Forbidden("%s has not signed with the key that the room names", p.via)
	}
	return out, err
}

// appendRecommended is append for a room with a policy server: each event is built, shown to that server, and put into the room as it came
// back. Other events may have come meanwhile; then the room is forked for a moment.
func (s *Service) appendRecommended(ctx context.Context, r *Room, p *policy, drafts []Draft) (ids []string, err error) {
	for i := range drafts {
		d := &drafts[i]
		e, same, err := r.draft(ctx, r.Head(), *d)
		if err != nil {
			return nil, err
		}
		if same != "" {
			ids = append(ids, same)
			continue
		}
		if e, err = s.recommended(ctx, r, p, e); err != nil {
			return nil, err
		}
		status, err := s.insertAll(ctx, r.ID, []*event.Event{e}, entry{relay: true, own: d})
		if err != nil {
			return nil, err
		}
		if !status[0].Accepted() {
			return nil, signalling.Forbidden("the room does not allow this any more")
		}
		ids = append(ids, e.ID())
	}
	return ids, nil
}

// screen shows events from outside that lack the signature of the room's policy server to it. It gives the events, with the signatures that
// were had, and the ids of those that are not recommended.
func (s *Service) screen(ctx context.Context, r *Room, events []*event.Event) ([]*event.Event, map[string]bool, error) {
	p, err := r.policyAt(ctx, r.Head())
	if p == nil || err != nil {
		return events, nil, err
	}
	var ids []string
	for _, e := range events {
		if !p.signed(e) {
			ids = append(ids, e.ID())
		}
	}
	if len(ids) == 0 {
		return events, nil, nil
	}
	there, err := s.byEventID(ctx, r, ids...)
	if err != nil {
		return nil, nil, err
	}
	limited, cancel := context.WithTimeout(ctx, policyBatch)
	defer cancel()
	out := append([]*event.Event(nil), events...)
	failed := make([]error, len(events))
	var work errgroup.Group
	work.SetLimit(policyAtOnce)
	for i, e := range events {
		if old := there[e.ID()]; p.signed(e) || old != nil && old.StateAfter != 0 {
			continue
		}
		work.Go(func() error {
			if until := r.policySilent.Load(); s.clock.Now().UnixMilli() < until {
				failed[i] = errPolicySilent
				return nil
			}
			signed, err := s.recommended(limited, r, p, e)
			if err == nil {
				out[i] = signed
			} else if failed[i] = err; signalling.AsError(err).Status >= http.StatusInternalServerError {
				r.policySilent.Store(s.clock.Now().Add(policyRest).UnixMilli())
			}
			return nil
		})
	}
	_ = work.Wait()
	if ctx.Err() != nil {
		return nil, nil, ctx.Err()
	}
	refused := map[string]bool{}
	for i, err := range failed {
		if err != nil {
			s.log.Debug("an event is not recommended by the room's policy server", "room", r.ID, "event", events[i].ID(), "server", p.via, "err", err)
			refused[events[i].ID()] = true
		}
	}
	return out, refused, nil
}

var errPolicySilent = errors.New("the policy server did not answer a moment ago")

// PolicyKey is the public key with which this server signs as a policy server; rooms name it in m.room.policy. It is not the key that
// events are signed with.
func (s *Service) PolicyKey(ctx context.Context) (ed25519.PublicKey, error) {
	key, err := s.policyPrivate(ctx)
	if err != nil {
		return nil, err
	}
	return key.Public().(ed25519.PublicKey), nil
}

func (s *Service) policyPrivate(ctx context.Context) (ed25519.PrivateKey, error) {
	if k := s.policyKey.Load(); k != nil {
		return *k, nil
	}
	fresh := make([]byte, ed25519.SeedSize)
	if _, err := rand.Read(fresh); err != nil {
		return nil, err
	}
	seed, err := s.store.Secret(ctx, "policy_server", fresh)
	if err != nil {
		return nil, err
	}
	key := ed25519.NewKeyFromSeed(seed)
	s.policyKey.Store(&key)
	return key, nil
}

// errNoPolicyServer hides which rooms there are.
var errNoPolicyServer = signalling.NotFound("this server is not the policy server of that room")

// PolicyRoom is the room whose policy server this server is to be for another one. Errors: M_NOT_FOUND, M_FORBIDDEN (an access list).
func (s *Service) PolicyRoom(ctx context.Context, server, roomID string) (*Room, error) {
	r, err := s.Room(ctx, roomID)
	if errors.Is(err, ErrNoRoom) {
		return nil, errNoPolicyServer
	} else if err != nil {
		return nil, err
	}
	p, err := r.policyAt(ctx, r.Head())
	if err != nil {
		return nil, err
	}
	key, err := s.PolicyKey(ctx)
	if err != nil {
		return nil, err
	}
	if p == nil || p.via != s.signer.Server || !key.Equal(p.key) {
		return nil, errNoPolicyServer
	}
	return r, r.Allows(ctx, server)
}

// PolicySign gives this server's signature, as the policy server of a room, on an event of it whose other signatures the caller has
// checked. Errors: 400 M_FORBIDDEN.
func (s *Service) PolicySign(ctx context.Context, r *Room, e *event.Event) (signature []byte, err error) {
	p, err := r.policyAt(ctx, r.Head())
	if err != nil {
		return nil, err
	}
	if p == nil {
		return nil, errNoPolicyServer
	}
	return s.policySignature(ctx, r, p, e)
}

// policySignature signs what this server, as the policy server of a room, recommends: an event that is in the room, or that the room as it
// is now allows. So nothing comes in by way of the past: no old event of somebody who was thrown out since.
func (s *Service) policySignature(ctx context.Context, r *Room, p *policy, e *event.Event) ([]byte, error) {
	key, err := s.policyPrivate(ctx)
	if err != nil {
		return nil, err
	}
	refuse := func(why string) error { return signalling.Refuse(http.StatusBadRequest, "M_FORBIDDEN", "%s", why) }
	if !p.key.Equal(key.Public()) {
		return nil, refuse("the room names another key than this server's")
	}
	if e.Is(policyType, "") || e.RoomID() != r.ID || e.Version() != r.Version || e.Redacted() {
		return nil, refuse("this is no event that a policy server signs")
	}
	there, err := s.byEventID(ctx, r, e.ID())
	if err != nil {
		return nil, err
	}
	if old := there[e.ID()]; old == nil || old.Status == storage.StatusOutlier {
		head := r.Head()
		if err := event.Authorise(e, headState{ctx, r, head}); err != nil {
			if refused := (*signalling.Error)(nil); errors.As(err, &refused) && refused.Status < 500 {
				return nil, refuse("the room does not allow this: " + refused.Message)
			}
			return nil, err
		}
	} else if !old.Status.Accepted() {
		return nil, refuse("the room has refused this event")
	}
	signed, err := e.Sign(event.Signer{Server: s.signer.Server, KeyID: policyKeyID, Key: key})
	if err != nil {
		return nil, err
	}
	b64 := gjson.GetBytes(signed.JSON(), "signatures").Map()[s.signer.Server].Map()[policyKeyID].Str
	return base64.RawStdEncoding.DecodeString(b64)
}
