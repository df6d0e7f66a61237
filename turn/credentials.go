// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/trunkboard/trunkboard/signalling"
)

// Credentials makes and checks time-limited credentials from shared secrets, in the way that TURN servers and homeservers have
// agreed on (draft-uberti-behave-turn-rest-00):
//
//	username   <expiry, unix seconds>:<anything>
//	password   base64(HMAC-SHA1(secret, username))
//
// The ones made here say for whom, and when they were made, so that a logout can end them:
//
//	<expiry>:v1:<issued, unix milliseconds in base 36>:<user id>:<device id>
//
// with ':' and '%' inside the ids percent-encoded, for user ids hold colons. Any other name made with one of the secrets, by
// another homeserver or a test tool, belongs to the user that its part after the first colon names.
//
// A Credentials may serve several Servers. It is safe for concurrent use.
type Credentials struct {
	secrets []string
	maxTTL  time.Duration
	clock   signalling.Clock

	mu       sync.Mutex
	revoked  map[party]int64 // unix milliseconds; credentials made until then are dead
	last     int64           // the latest time of issue that was written into one
	swept    time.Time
	watchers map[int]func(p party, until int64)
	nextID   int
	users    map[string]map[string][16]byte // long-term users: name -> realm -> key
}

// CredentialsConfig sets up Credentials. The zero value of a field means its default.
type CredentialsConfig struct {
	// Secrets are the shared secrets. The first one makes credentials, all of them are accepted: to roll over, put the new one in
	// front, and take the old one away after MaxTTL. None means one made at random, which dies with the process.
	Secrets []string
	// MaxTTL is the longest life of a credential; one that claims to live longer is refused. Default 24 h.
	MaxTTL time.Duration
	// Clock tells the time. Default signalling.SystemClock.
	Clock signalling.Clock
}

// party is a device of a user. An empty device stands for all of them.
type party struct{ user, device string }

// identity is what a username says.
type identity struct {
	party
	issued   int64 // unix milliseconds; 0: not known
	expires  time.Time
	longTerm bool // one of SetUsers
	token    bool // who brought an access token
}

// ttlLeeway is how far the clock of another homeserver may be ahead.
const ttlLeeway = 5 * time.Minute

// maxUsername is the longest USERNAME (RFC 8489, section 14.3: fewer than 509 bytes).
const maxUsername = 508

// NewCredentials makes Credentials.
func NewCredentials(c CredentialsConfig) (*Credentials, error) {
	or(&c.MaxTTL, 24*time.Hour)
	if c.MaxTTL < time.Second {
		return nil, errors.New("turn: the credentials' longest life is shorter than a second")
	}
	if c.Clock == nil {
		c.Clock = signalling.SystemClock{}
	}
	secrets := append([]string(nil), c.Secrets...)
	for _, s := range secrets {
		if s == "" {
			return nil, errors.New("turn: an empty shared secret")
		}
	}
	if len(secrets) == 0 {
		secrets = []string{rand.Text()}
	}
	return &Credentials{
		secrets: secrets, maxTTL: c.MaxTTL, clock: c.Clock, swept: c.Clock.Now(),
		revoked: make(map[party]int64), watchers: make(map[int]func(party, int64)),
	}, nil
}

var escapeID = strings.NewReplacer("%", "%25", ":", "%3A")
var unescapeID = strings.NewReplacer("%3A", ":", "%25", "%")

// longID is the length from which an id is replaced by its hash, to keep the name within maxUsername.
const longID = 150

// nameOf is the form of an id inside a username; hashing one that is too long keeps it distinct.
func nameOf(id string) string {
	if e := escapeID.Replace(id); len(e) <= longID && strings.IndexFunc(e, func(r rune) bool { return r < ' ' || r == 0x7f }) < 0 {
		return e
	}
	sum := sha256.Sum256([]byte(id))
	return "sha256-" + hex.EncodeToString(sum[:])
}

func newParty(userID, deviceID string) party {
	p := party{user: unescapeID.Replace(nameOf(userID))}
	if deviceID != "" {
		p.device = unescapeID.Replace(nameOf(deviceID))
	}
	return p
}

// Issue makes a credential for a device of a user. ttl is capped at MaxTTL; zero means MaxTTL. The answer's URIs are for the caller
// to fill in.
func (c *Credentials) Issue(userID, deviceID string, ttl time.Duration) signalling.ICEServer {
	if ttl <= 0 || ttl > c.maxTTL {
		ttl = c.maxTTL
	}
	now := c.clock.Now()
	issued := now.UnixMilli()
	p := newParty(userID, deviceID)
	c.mu.Lock()
	for _, q := range []party{p, {user: p.user}} {
		if at, ok := c.revoked[q]; ok && at >= issued {
			issued = at + 1 // a login in the millisecond of the logout
		}
	}
	c.last = max(c.last, issued)
	c.mu.Unlock()
	name := strconv.FormatInt(now.Add(ttl).Unix(), 10) + ":v1:" + strconv.FormatInt(issued, 36) + ":" + nameOf(userID) + ":" + nameOf(deviceID)
	return signalling.ICEServer{Username: name, Credential: password(c.secrets[0], name), TTL: ttl}
}

func password(secret, username string) string {
	mac := hmac.New(sha1.New, []byte(secret))
	mac.Write([]byte(username))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// Revoke ends the credentials that a device has been given so far, and closes its allocations; an empty deviceID means all devices
// of the user. Credentials issued afterwards are good.
func (c *Credentials) Revoke(userID, deviceID string) {
	p := newParty(userID, deviceID)
	now := c.clock.Now()
	c.mu.Lock()
	c.sweep(now)
	until := max(now.UnixMilli(), c.last)
	c.revoked[p] = until
	watchers := make([]func(party, int64), 0, len(c.watchers))
	for _, w := range c.watchers {
		watchers = append(watchers, w)
	}
	c.mu.Unlock()
	for _, w := range watchers {
		w(p, until)
	}
}

// sweep forgets revocations of credentials that have expired by themselves, once in a while, so that it costs each Revoke little.
func (c *Credentials) sweep(now time.Time) {
	if now.Sub(c.swept) < c.maxTTL/4 {
		return
	}
	c.swept = now
	for p, at := range c.revoked {
		if now.Sub(time.UnixMilli(at)) > c.maxTTL+time.Second {
			delete(c.revoked, p)
		}
	}
}

// watch calls f after every Revoke until stop is called.
func (c *Credentials) watch(f func(p party, until int64)) (stop func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := c.nextID
	c.nextID++
	c.watchers[id] = f
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.watchers, id)
	}
}

// Refusals of parse.
var (
	errMalformed = errors.New("the username is not one of ours")
	errExpired   = errors.New("the credential has expired")
	errTooLong   = errors.New("the credential claims to live longer than any may")
	errRevoked   = errors.New("the credential was revoked")
)

// parse reads a username and tells whether it may be used now. Its integrity is for the caller to check, with keys.
func (c *Credentials) parse(username string) (identity, error) {
	if len(username) > maxUsername {
		return identity{}, errMalformed
	}
	if c.longTerm(username) != nil {
		return identity{party: party{user: username}, longTerm: true}, nil
	}
	expiry, rest, ok := strings.Cut(username, ":")
	seconds, err := strconv.ParseInt(expiry, 10, 64)
	if !ok || err != nil || seconds < 0 || expiry[0] == '+' || rest == "" {
		return identity{}, errMalformed
	}
	id := identity{party: party{user: rest}, expires: time.Unix(seconds, 0)}
	now := c.clock.Now()
	if !id.expires.After(now) {
		return identity{}, errExpired
	}
	if seconds > now.Add(c.maxTTL+ttlLeeway).Unix() {
		return identity{}, errTooLong
	}
	if f := strings.Split(rest, ":"); len(f) == 4 && f[0] == "v1" {
		if id.issued, err = strconv.ParseInt(f[1], 36, 64); err != nil || f[2] == "" {
			return identity{}, errMalformed
		}
		id.user, id.device = unescapeID.Replace(f[2]), unescapeID.Replace(f[3])
	}
	if c.isRevoked(id) {
		return identity{}, errRevoked
	}
	return id, nil
}

// isRevoked tells whether the credential was made before a revocation. One that does not say when it was made is taken to be as old
// as can be.
func (c *Credentials) isRevoked(id identity) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if id.longTerm {
		return c.users[id.user] == nil
	}
	for _, p := range []party{id.party, {user: id.user}} {
		if at, ok := c.revoked[p]; ok && id.issued <= at {
			return true
		}
		if id.device == "" {
			break
		}
	}
	return false
}

// keys yields the long-term key of the username for each secret, or its own (RFC 8489, section 9.2.2).
func (c *Credentials) keys(username, realm string) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		if own := c.longTerm(username); own != nil {
			if key, ok := own[realm]; ok {
				yield(key[:])
			}
			return
		}
		for _, s := range c.secrets {
			key := md5.Sum([]byte(username + ":" + realm + ":" + password(s, username)))
			if !yield(key[:]) {
				return
			}
		}
	}
}
