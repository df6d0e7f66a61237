// SPDX-License-Identifier: Apache-2.0

package e2ee_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/homeserver/e2ee"
	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/clocktest"
)

// rooms says who shares a room: those with the same number.
type rooms map[string]int

func (r rooms) ShareRoom(_ context.Context, a, b string) (bool, error) {
	return r[a] != 0 && r[a] == r[b], nil
}

func (r rooms) SharedUsers(_ context.Context, user string) (map[string]struct{}, error) {
	out := map[string]struct{}{user: {}}
	for u, n := range r {
		if n != 0 && n == r[user] {
			out[u] = struct{}{}
		}
	}
	return out, nil
}

// house is one server under test.
type house struct {
	t     testing.TB
	store *storage.Store
	clock *clocktest.Clock
	rooms rooms
	*e2ee.Service
}

func open(t testing.TB, s *storage.Store) *house {
	h := &house{t: t, store: s, clock: clocktest.New(), rooms: rooms{alice: 1, bob: 1, carol: 1}}
	h.Service = e2ee.New(s, "example.org", slog.New(slog.DiscardHandler), e2ee.Deps{Rooms: h.rooms, Clock: h.clock})
	return h
}

// each runs f against a house on each engine.
func each(t *testing.T, f func(t *testing.T, h *house)) {
	t.Helper()
	storagetest.Each(t, func(t *testing.T, s *storage.Store) { f(t, open(t, s)) })
}

var ctx = context.Background()

// phone is a device with keys of its own.
type phone struct {
	user, id string
	key      ed25519.PrivateKey
	curve    string
}

func newPhone(user, id string) *phone {
	p := &phone{user: user, id: id, curve: random32()}
	_, p.key, _ = ed25519.GenerateKey(rand.Reader)
	return p
}

// device makes a phone known to the server.
func (h *house) device(user, id string) *phone {
	h.t.Helper()
	h.login(user, id, id+" of "+user)
	return newPhone(user, id)
}

func (h *house) login(user, id, name string) {
	h.t.Helper()
	h.must(h.store.Write(ctx, func(tx *storage.Tx) error {
		_, err := tx.Exec(`INSERT INTO devices (user_id, device_id, display_name, created_ts, seen_ts) VALUES ($1, $2, $3, 1, 1)`, user, id, name)
		return err
	}))
}

func (h *house) logout(user, id string) {
	h.t.Helper()
	h.must(h.store.Write(ctx, func(tx *storage.Tx) error {
		if _, err := tx.Exec(`DELETE FROM devices WHERE user_id = $1 AND device_id = $2`, user, id); err != nil {
			return err
		}
		return h.DeviceDeleted(tx, user, id)
	}))
	h.ForgetDevice(user, id)
}

func (h *house) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// refuses checks that err is a refusal with that code.
func (h *house) refuses(err error, code string) {
	h.t.Helper()
	var e *signalling.Error
	if !errors.As(err, &e) || e.Code != code {
		h.t.Fatalf("got %v, want %s", err, code)
	}
}

func random32() string {
	var b [32]byte
	_, _ = rand.Read(b[:])
	return base64.RawStdEncoding.EncodeToString(b[:])
}

func public(k ed25519.PrivateKey) string {
	return base64.RawStdEncoding.EncodeToString(k.Public().(ed25519.PublicKey))
}

type object = map[string]any

// sign adds a signature to an object as a client would.
func sign(o object, user, keyID string, key ed25519.PrivateKey) object {
	bare := object{}
	for k, v := range o {
		if k != "signatures" && k != "unsigned" {
			bare[k] = v
		}
	}
	raw, err := json.Marshal(bare)
	if err != nil {
		panic(err)
	}
	canonical, err := event.Canonical(raw)
	if err != nil {
		panic(err)
	}
	out := object{}
	for k, v := range o {
		out[k] = v
	}
	sigs := map[string]map[string]string{}
	if old, ok := o["signatures"].(map[string]map[string]string); ok {
		for u, byKey := range old {
			sigs[u] = map[string]string{}
			for k, s := range byKey {
				sigs[u][k] = s
			}
		}
	}
	if sigs[user] == nil {
		sigs[user] = map[string]string{}
	}
	sigs[user][keyID] = base64.RawStdEncoding.EncodeToString(ed25519.Sign(key, canonical))
	out["signatures"] = sigs
	return out
}

func (p *phone) deviceKeys() object {
	return sign(object{
		"user_id": p.user, "device_id": p.id, "algorithms": []string{"m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"},
		"keys": object{"ed25519:" + p.id: public(p.key), "curve25519:" + p.id: p.curve},
	}, p.user, "ed25519:"+p.id, p.key)
}

// oneTime makes n signed one-time keys with ids from first.
func (p *phone) oneTime(first, n int) object {
	out := object{}
	for i := range n {
		out[fmt.Sprintf("signed_curve25519:%04d", first+i)] = sign(object{"key": random32()}, p.user, "ed25519:"+p.id, p.key)
	}
	return out
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

func (h *house) upload(p *phone, body object) (map[string]int, error) {
	u, err := e2ee.DecodeUpload(encode(body))
	if err != nil {
		return nil, err
	}
	return h.Upload(ctx, p.user, p.id, u)
}

func (h *house) mustUpload(p *phone, body object) map[string]int {
	h.t.Helper()
	counts, err := h.upload(p, body)
	h.must(err)
	return counts
}

func (h *house) claim(user, id string) (name string, key json.RawMessage) {
	h.t.Helper()
	got, err := h.Claim(ctx, e2ee.Claims{user: {id: "signed_curve25519"}})
	h.must(err)
	if len(got.Failures) > 0 {
		h.t.Fatalf("failures: %v", got.Failures)
	}
	for name, key = range got.OneTimeKeys[user][id] {
	}
	return name, key
}

// counts checks the numbers that sync would tell.
func (h *house) counts(user, id string, oneTime int, fallback ...string) {
	h.t.Helper()
	if fallback == nil {
		fallback = []string{}
	}
	gotOneTime, gotFallback, err := h.KeyCounts(ctx, user, id)
	h.must(err)
	if diff := cmp.Diff(map[string]int{"signed_curve25519": oneTime}, gotOneTime); diff != "" {
		h.t.Error(diff)
	}
	if diff := cmp.Diff(fallback, gotFallback); diff != "" {
		h.t.Error(diff)
	}
}

// queried are the keys of a query in the shape a client reads.
type queried struct {
	DeviceKeys      map[string]map[string]signedKey `json:"device_keys"`
	MasterKeys      map[string]signedKey            `json:"master_keys"`
	SelfSigningKeys map[string]signedKey            `json:"self_signing_keys"`
	UserSigningKeys map[string]signedKey            `json:"user_signing_keys"`
	Failures        map[string]e2ee.Failure         `json:"failures"`
}

type signedKey struct {
	UserID     string                       `json:"user_id"`
	Keys       map[string]string            `json:"keys"`
	Signatures map[string]map[string]string `json:"signatures"`
	Unsigned   struct {
		Name string `json:"device_display_name"`
	} `json:"unsigned"`
}

func (h *house) query(viewer string, users ...string) queried {
	h.t.Helper()
	q := e2ee.Query{}
	for _, u := range users {
		q[u] = nil
	}
	got, err := h.Query(ctx, viewer, q)
	h.must(err)
	var out queried
	h.must(json.Unmarshal(encode(got), &out))
	return out
}

// changed lists whose devices changed for viewer since from, and moves on.
func (h *house) changed(viewer string, from *int64) []string {
	h.t.Helper()
	to := h.store.Pos()
	got, err := h.DeviceListsChanged(ctx, viewer, *from, to)
	h.must(err)
	*from = to
	return got
}
