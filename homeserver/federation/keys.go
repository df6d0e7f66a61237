// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

const (
	keyServers   = 4096               // servers whose keys are kept in memory
	keyLifeMax   = 7 * 24 * time.Hour // "valid_until_ts": never believed for longer
	ownKeyLife   = 24 * time.Hour
	ownKeyRenew  = time.Hour
	keyTime      = 10 * time.Second
	keyAnswer    = 256 << 10        // bytes
	maxKeys      = 256              // in one answer
	askAgain     = 30 * time.Second // after a server did not answer, doubled each time
	askAgainMost = 30 * time.Minute
)

var keyID = regexp.MustCompile(`^ed25519:[A-Za-z0-9_]{1,200}$`)

// Keys knows the signing keys of other servers: in memory, then in the store, then by asking. Whoever asks for the keys of a server at
// the same time waits for one answer, and a server that did not answer is left alone for a while.
type Keys struct {
	store    *storage.Store
	client   *Client
	clock    signalling.Clock
	log      *slog.Logger
	notaries []string
	denied   map[string]bool // public keys

	ask    singleflight.Group
	known  *lru.Cache[string, map[string]storage.RemoteKey]
	silent *lru.Cache[string, silence]

	mu     sync.Mutex
	own    []byte
	ownDue time.Time
}

// silence is a server that did not answer.
type silence struct {
	err   error
	until time.Time
	wait  time.Duration
}

func newKeys(d Deps, c *Client) *Keys {
	k := &Keys{store: d.Store, client: c, clock: d.Clock, log: d.Log, notaries: d.Config.Notaries, denied: map[string]bool{}}
	k.known, _ = lru.New[string, map[string]storage.RemoteKey](keyServers)
	k.silent, _ = lru.New[string, silence](keyServers)
	for _, text := range d.Config.DenyKeys {
		if raw, err := decodeKey(text); err == nil {
			k.denied[string(raw)] = true
		}
	}
	return k
}

func decodeKey(text string) (ed25519.PublicKey, error) {
	raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "="))
	if err == nil && len(raw) != ed25519.PublicKeySize {
		err = errors.New("not a public key")
	}
	return raw, err
}

// Own is what this server says of its keys ("Publishing Keys"), signed.
func (k *Keys) Own(ctx context.Context) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.clock.Now()
	if k.own != nil && now.Before(k.ownDue) {
		return k.own, nil
	}
	type key struct {
		Key     string `json:"key"`
		Expired int64  `json:"expired_ts,omitempty"`
	}
	signer := k.client.signer()
	doc := struct {
		Server string         `json:"server_name"`
		Keys   map[string]key `json:"verify_keys"`
		Old    map[string]key `json:"old_verify_keys"`
		Until  int64          `json:"valid_until_ts"`
	}{signer.Server, map[string]key{}, map[string]key{}, now.Add(ownKeyLife).UnixMilli()}
	rows, err := k.store.ServerKeys(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		if r.ID != signer.KeyID && r.ExpiredTS > 0 && len(r.Seed) == ed25519.SeedSize {
			public := ed25519.NewKeyFromSeed(r.Seed).Public().(ed25519.PublicKey)
			doc.Old[r.ID] = key{base64.RawStdEncoding.EncodeToString(public), r.ExpiredTS}
		}
	}
	doc.Keys[signer.KeyID] = key{Key: base64.RawStdEncoding.EncodeToString(signer.Key.Public().(ed25519.PublicKey))}
	raw, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	if k.own, err = event.SignJSON(signer, raw); err != nil {
		return nil, err
	}
	k.ownDue = now.Add(ownKeyRenew)
	return k.own, nil
}

// VerifyRequest checks the signature of an object by a key that a server uses now.
func (k *Keys) VerifyRequest(ctx context.Context, server, id string, raw []byte) error {
	now := k.clock.Now().UnixMilli()
	key, err := k.key(ctx, server, id, func(r storage.RemoteKey) bool { return r.Expired == 0 && r.ValidUntil >= now })
	if err != nil {
		return err
	}
	return event.VerifyJSON(server, id, key, raw)
}

// VerifyEvent checks that server signed e with a key that was good when e was made. Room versions before 5 do not ask for how long a
// key was promised to be good.
func (k *Keys) VerifyEvent(ctx context.Context, server string, e *event.Event) error {
	at := e.OriginTS()
	strict := e.Version().StrictKeys()
	good := func(r storage.RemoteKey) bool {
		if r.Expired > 0 {
			return !strict || at <= r.Expired
		}
		return !strict || at <= r.ValidUntil
	}
	ids := e.Signatures()[server]
	var last error = unauthorised("event %s is not signed by %s", e.ID(), server)
	// The signature of a policy server is made with a key that its room names, not with one of the server's.
	ids = slices.DeleteFunc(ids, func(id string) bool { return id == policyKeyID })
	for i, id := range ids {
		if i == maxHeaders {
			break
		}
		key, err := k.ours(server, id)
		if key == nil && err == nil {
			key, err = k.key(ctx, server, id, good)
		}
		if err == nil {
			err = e.VerifySignature(server, id, key)
		}
		if err == nil {
			return nil
		}
		last = err
	}
	return last
}

// ours gives a key of ours.
func (k *Keys) ours(server, id string) (ed25519.PublicKey, error) {
	s := k.client.signer()
	if server != s.Server {
		return nil, nil
	}
	if id == s.KeyID {
		return s.Key.Public().(ed25519.PublicKey), nil
	}
	rows, err := k.store.ServerKeys(context.Background())
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		if r.ID == id && len(r.Seed) == ed25519.SeedSize {
			return ed25519.NewKeyFromSeed(r.Seed).Public().(ed25519.PublicKey), nil
		}
	}
	return nil, unauthorised("this server has no key %s", id)
}

// key finds a key that is good, asking the server when none is known. Errors: 401 M_UNAUTHORIZED.
func (k *Keys) key(ctx context.Context, server, id string, good func(storage.RemoteKey) bool) (ed25519.PublicKey, error) {
	if !keyID.MatchString(id) {
		return nil, unauthorised("%q is not a key id of this kind: ed25519:name", id)
	}
	keys, err := k.of(ctx, server)
	if err != nil {
		return nil, err
	}
	r, ok := keys[id]
	if !ok || !good(r) {
		if keys, err = k.fetch(ctx, server); err != nil {
			return nil, unauthorised("the keys of %s are not known", server).Because(err)
		}
		if r, ok = keys[id]; !ok || !good(r) {
			return nil, unauthorised("%s does not have a key %s that is good for this", server, id)
		}
	}
	if k.denied[string(r.Public)] {
		return nil, unauthorised("the key %s of %s is known to others; it is not accepted", id, server)
	}
	return r.Public, nil
}

// of gives the keys known of a server, without asking it.
func (k *Keys) of(ctx context.Context, server string) (map[string]storage.RemoteKey, error) {
	if m, ok := k.known.Get(server); ok {
		return m, nil
	}
	rows, err := k.store.RemoteKeys(ctx, server)
	if err != nil {
		return nil, err
	}
	m := make(map[string]storage.RemoteKey, len(rows))
	for _, r := range rows {
		m[r.ID] = r
	}
	if len(m) > 0 {
		k.known.Add(server, m)
	}
	return m, nil
}

// knows says whether keys of all those servers are known without asking anybody.
func (k *Keys) knows(ctx context.Context, servers []string) bool {
	for _, server := range servers {
		if m, err := k.of(ctx, server); (err != nil || len(m) == 0) && server != k.client.signer().Server {
			return false
		}
	}
	return true
}

// Forgive has a server asked again although it did not answer a moment ago: it has just shown life.
func (k *Keys) Forgive(server string) { k.silent.Remove(server) }

// fetch asks a server for its keys, and the notaries when it does not answer.
func (k *Keys) fetch(ctx context.Context, server string) (map[string]storage.RemoteKey, error) {
	if s, ok := k.silent.Get(server); ok && k.clock.Now().Before(s.until) {
		return nil, s.err
	}
	c := k.ask.DoChan(server, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*keyTime)
		defer cancel()
		doc, keys, err := k.direct(ctx, server)
		for i := 0; err != nil && i < len(k.notaries); i++ {
			if n := k.notaries[i]; n != server {
				if d, m, nerr := k.byNotary(ctx, n, server); nerr == nil {
					doc, keys, err = d, m, nil
				}
			}
		}
		if err != nil {
			s, _ := k.silent.Get(server)
			s.wait = min(max(2*s.wait, askAgain), askAgainMost)
			s.err, s.until = err, k.clock.Now().Add(s.wait)
			k.silent.Add(server, s)
			return nil, err
		}
		k.silent.Remove(server)
		if err := k.store.Write(ctx, func(tx *storage.Tx) error { return tx.SetRemoteKeys(doc, keys) }); err != nil {
			return nil, err
		}
		k.known.Remove(server)
		return k.of(ctx, server)
	})
	select {
	case r := <-c:
		m, _ := r.Val.(map[string]storage.RemoteKey)
		return m, r.Err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (k *Keys) direct(ctx context.Context, server string) (storage.KeyDocument, []storage.RemoteKey, error) {
	body, err := k.client.Do(ctx, Ask{Server: server, Path: "/_matrix/key/v2/server", Limit: keyAnswer, Timeout: keyTime, plain: true})
	if err != nil {
		return storage.KeyDocument{}, nil, err
	}
	return k.read(server, body)
}

// byNotary asks another server for the keys of one. Its own signature is asked for besides that of the server whose keys they are.
func (k *Keys) byNotary(ctx context.Context, notary, server string) (d storage.KeyDocument, keys []storage.RemoteKey, err error) {
	now := k.clock.Now().UnixMilli()
	body, err := json.Marshal(map[string]any{"server_keys": map[string]any{server: map[string]any{}}})
	if err != nil {
		return d, nil, err
	}
	var answer struct {
		Keys []json.RawMessage `json:"server_keys"`
	}
	if err = k.client.ask(ctx, Ask{Server: notary, Method: "POST", Path: "/_matrix/key/v2/query", Body: body, Limit: keyAnswer, Timeout: keyTime, plain: true}, &answer); err != nil {
		return d, nil, err
	}
	err = errors.New("the notary does not know")
	for _, raw := range answer.Keys {
		signed := false
		for _, id := range event.Signatures(raw)[notary] {
			key, kerr := k.key(ctx, notary, id, func(r storage.RemoteKey) bool { return r.Expired == 0 && r.ValidUntil >= now })
			signed = signed || kerr == nil && event.VerifyJSON(notary, id, key, raw) == nil
		}
		if !signed {
			continue
		}
		if d, keys, err = k.read(server, raw); err == nil {
			return d, keys, nil
		}
	}
	return d, nil, err
}

// read checks what somebody says are the keys of server: they must be signed by one of the keys that the server uses now.
func (k *Keys) read(server string, raw []byte) (d storage.KeyDocument, keys []storage.RemoteKey, err error) {
	refuse := func(format string, args ...any) error {
		return signalling.Refuse(502, "M_UNKNOWN", "the keys of %s: "+format, append([]any{server}, args...)...)
	}
	type key struct {
		Key     string `json:"key"`
		Expired int64  `json:"expired_ts"`
	}
	var doc struct {
		Server string         `json:"server_name"`
		Keys   map[string]key `json:"verify_keys"`
		Old    map[string]key `json:"old_verify_keys"`
		Until  int64          `json:"valid_until_ts"`
	}
	if err := event.CheckJSON(raw); err != nil {
		return d, nil, err
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return d, nil, refuse("not the JSON that it should be")
	}
	now := k.clock.Now()
	switch {
	case doc.Server != server:
		return d, nil, refuse("they are of %q", doc.Server)
	case doc.Until < now.UnixMilli():
		return d, nil, refuse("they are no longer valid")
	case len(doc.Keys) == 0 || len(doc.Keys)+len(doc.Old) > maxKeys:
		return d, nil, refuse("%d keys", len(doc.Keys)+len(doc.Old))
	}
	until := min(doc.Until, now.Add(keyLifeMax).UnixMilli())
	signed := false
	for id, v := range doc.Keys {
		if !keyID.MatchString(id) {
			continue // of an algorithm of tomorrow
		}
		public, err := decodeKey(v.Key)
		if err != nil {
			return d, nil, refuse("%s is not a public key", id)
		}
		if slices.Contains(event.Signatures(raw)[server], id) {
			if err := event.VerifyJSON(server, id, public, raw); err != nil {
				return d, nil, refuse("the signature with %s is wrong", id)
			}
			signed = true
		}
		keys = append(keys, storage.RemoteKey{ID: id, Public: public, ValidUntil: until})
	}
	if !signed {
		return d, nil, refuse("none of them has signed this")
	}
	for id, v := range doc.Old {
		if _, used := doc.Keys[id]; used || !keyID.MatchString(id) || v.Expired <= 0 {
			continue
		}
		public, err := decodeKey(v.Key)
		if err != nil {
			continue // nobody is helped by refusing the others
		}
		keys = append(keys, storage.RemoteKey{ID: id, Public: public, ValidUntil: min(v.Expired, now.UnixMilli()), Expired: min(v.Expired, now.UnixMilli())})
	}
	return storage.KeyDocument{Server: server, JSON: raw, FetchedTS: now.UnixMilli(), ValidUntil: until}, keys, nil
}

// Query answers as a notary ("Querying Keys Through Another Server"): what a server said of its keys, with our signature too. It is
// asked again when what we have is not good at minimum (milliseconds since 1970). nil when nothing is known.
func (k *Keys) Query(ctx context.Context, server string, minimum int64) (json.RawMessage, error) {
	if server == k.client.signer().Server {
		return k.Own(ctx)
	}
	d, err := k.store.KeyDocument(ctx, server)
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return nil, err
	}
	if err != nil || d.ValidUntil < max(minimum, k.clock.Now().UnixMilli()) {
		if _, ferr := k.fetch(ctx, server); ferr != nil && err != nil {
			return nil, nil
		}
		if d, err = k.store.KeyDocument(ctx, server); errors.Is(err, storage.ErrNotFound) {
			return nil, nil
		} else if err != nil {
			return nil, err
		}
	}
	return event.SignJSON(k.client.signer(), d.JSON)
}
