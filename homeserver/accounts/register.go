// SPDX-License-Identifier: Apache-2.0

package accounts

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// NewUser is an account to be made. Nothing in it has been checked.
type NewUser struct {
	Localpart string // capitals are folded; "" makes one up
	Password  string // "" where nobody logs in with a password
	Guest     bool
	Admin     bool
	Type      string // "", "bot", "support"
	Token     string // registration token to be spent; "" where none is needed
	Upgrade   string // user id of the guest whose account it becomes; "" for a new one (see UpgradeGuest)
	Email     string // session of an e-mail address that was proven; "" for none
	Name      string // display name; "" takes the localpart
	Login     *Login // nil: make the account only

	nonce        string // registration by tools: to be used up
	nonceExpires int64
	hash         string // imported
}

var errUserInUse = signalling.Refuse(http.StatusBadRequest, "M_USER_IN_USE", "that user name is taken; choose another")

// CheckLocalpart folds capitals and checks the form of a user name (appendices, "User Identifiers"). Errors: M_INVALID_USERNAME.
func (s *Service) CheckLocalpart(name string) (string, error) {
	name = strings.ToLower(name)
	refuse := func(format string, args ...any) (string, error) {
		return "", signalling.Refuse(http.StatusBadRequest, "M_INVALID_USERNAME", format, args...)
	}
	if name == "" {
		return refuse("a user name is needed")
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && strings.IndexByte("._=-/+", c) < 0 {
			return refuse("a user name may hold the letters a to z, digits, and . _ = - / +")
		}
	}
	if name[0] == '_' {
		return refuse("a user name may not begin with _")
	}
	if len("@")+len(name)+len(":")+len(s.cfg.Server) > event.MaxIDLength {
		return refuse("the user name is too long")
	}
	return name, nil
}

// Available says whether a user name could be registered. Errors: M_INVALID_USERNAME, M_USER_IN_USE.
func (s *Service) Available(ctx context.Context, name string) error {
	name, err := s.CheckLocalpart(name)
	if err != nil {
		return err
	}
	_, err = s.store.User(ctx, "@"+name+":"+s.cfg.Server)
	if errors.Is(err, storage.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return errUserInUse
}

// RegistrationFlows are the ways of interactive authentication by which an account can be made. Errors: M_FORBIDDEN when there is
// none.
func (s *Service) RegistrationFlows(ctx context.Context) ([][]string, error) {
	if s.cfg.Open {
		return s.withEmail([]string{StageDummy}, nil), nil
	}
	any, err := s.store.RegistrationTokenValid(ctx, "", s.clock.Now().UnixMilli())
	if err != nil {
		return nil, err
	}
	if any {
		return s.withEmail([]string{StageRegistrationToken}, []string{StageRegistrationToken}), nil
	}
	return nil, signalling.Forbidden("registration is closed on this server; ask its administrator for an account")
}

// withEmail adds to a flow the one that proves an e-mail address too; then is what is left of the flow beside that. Where the proof
// is required, it is the only flow.
func (s *Service) withEmail(flow, then []string) [][]string {
	if s.cfg.Mailer == nil {
		return [][]string{flow}
	}
	proven := append(slices.Clone(then), StageEmail)
	if s.cfg.RequireEmail {
		return [][]string{proven}
	}
	return [][]string{flow, proven}
}

// GuestsAllowed says whether accounts without a password may be made.
func (s *Service) GuestsAllowed() bool { return s.cfg.Guests }

// Create makes an account and, where n.Login is set, logs it in. Errors: M_INVALID_USERNAME, M_USER_IN_USE, M_WEAK_PASSWORD,
// M_INVALID_PARAM, M_TOO_LARGE, M_UNAUTHORIZED for a registration token or an e-mail session that is not good (any more), M_THREEPID_IN_USE.
func (s *Service) Create(ctx context.Context, n NewUser) (Tokens, error) {
	if n.Localpart == "" {
		n.Localpart = strings.ToLower(randomLetters(12))
		if n.Guest {
			n.Localpart = "guest-" + n.Localpart
		}
	}
	local, err := s.CheckLocalpart(n.Localpart)
	if err != nil {
		return Tokens{}, err
	}
	if n.Type != "" && n.Type != "bot" && n.Type != "support" {
		return Tokens{}, signalling.InvalidParam("user_type must be bot or support")
	}
	if len(n.Name) > maxDisplayName {
		return Tokens{}, signalling.TooLarge("a display name may have %d bytes", maxDisplayName)
	}
	if n.Login != nil {
		if err := n.Login.check(); err != nil {
			return Tokens{}, err
		}
	}
	if n.Upgrade == "" {
		if err := s.Available(ctx, local); err != nil {
			return Tokens{}, err
		}
	}
	hash := n.hash
	if n.Password != "" {
		if err := s.CheckPassword(n.Password); err != nil {
			return Tokens{}, err
		}
		if hash, err = s.hasher.hash(ctx, n.Password); err != nil {
			return Tokens{}, err
		}
	}
	now := s.clock.Now().UnixMilli()
	u := storage.User{ID: "@" + local + ":" + s.cfg.Server, PasswordHash: hash, CreatedTS: now, Guest: n.Guest, Admin: n.Admin, Type: n.Type, DisplayName: n.Name}
	if u.DisplayName == "" && !n.Guest {
		u.DisplayName = local
	}
	var g *grant
	if n.Login != nil {
		g = s.newGrant(u.ID, *n.Login)
	}
	err = s.store.Write(ctx, func(tx *storage.Tx) error {
		if n.Token != "" {
			if err := tx.SpendRegistrationToken(n.Token, now); errors.Is(err, storage.ErrNotFound) {
				return errRegistrationToken
			} else if err != nil {
				return err
			}
		}
		if n.nonce != "" {
			if err := tx.UseNonce(n.nonce, n.nonceExpires); errors.Is(err, storage.ErrExists) {
				return errNonce
			} else if err != nil {
				return err
			}
		}
		if n.Upgrade != "" {
			if err := tx.UpgradeGuest(u.ID, hash); errors.Is(err, storage.ErrNotFound) {
				return errUserInUse
			} else if err != nil {
				return err
			}
		} else if err := tx.InsertUser(u); errors.Is(err, storage.ErrExists) {
			return errUserInUse
		} else if err != nil {
			return err
		}
		if n.Email != "" {
			if err := takeEmail(tx, n.Email, u.ID, now); err != nil {
				return err
			}
		}
		if g == nil {
			return nil
		}
		_, err := g.write(tx)
		return err
	})
	if n.Upgrade != "" {
		s.Forget(u.ID) // his sessions are no guest's any more
	}
	switch {
	case err != nil:
		return Tokens{}, err
	case g == nil:
		return Tokens{UserID: u.ID}, nil
	}
	return g.Tokens, nil
}

// Import makes an account with a password hash from another server: argon2id or bcrypt, which becomes argon2id at the first log-in.
// Errors: M_INVALID_USERNAME, M_USER_IN_USE, M_INVALID_PARAM.
func (s *Service) Import(ctx context.Context, localpart, hash string, admin bool) error {
	if !strings.HasPrefix(hash, "$2") {
		if _, _, _, err := parsePHC(hash); err != nil {
			return signalling.InvalidParam("the password hash is neither argon2id nor bcrypt").Because(err)
		}
	}
	_, err := s.Create(ctx, NewUser{Localpart: localpart, Admin: admin, hash: hash})
	return err
}

// NewRegistrationToken makes a token that lets people register: uses times, or any number of times with -1, until expires, or for
// ever with the zero Time. With token "" one is made up. Errors: M_INVALID_PARAM.
func (s *Service) NewRegistrationToken(ctx context.Context, token string, uses int64, expires time.Time) (string, error) {
	if token == "" {
		token = randomLetters(16)
	}
	if len(token) > 64 || strings.Trim(token, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~-") != "" {
		return "", signalling.InvalidParam("a registration token has 1 to 64 of the characters A-Z a-z 0-9 . _ ~ -")
	}
	if uses == 0 || uses < -1 {
		return "", signalling.InvalidParam("a registration token is good for 1 use or more, or for any number with -1")
	}
	t := storage.RegistrationToken{Token: token, Uses: uses, CreatedTS: s.clock.Now().UnixMilli()}
	if !expires.IsZero() {
		t.ExpiresTS = expires.UnixMilli()
	}
	err := s.store.Write(ctx, func(tx *storage.Tx) error { return tx.InsertRegistrationToken(t) })
	if errors.Is(err, storage.ErrExists) {
		return "", signalling.InvalidParam("there is a registration token of that name already")
	}
	return token, err
}

// RegistrationTokens lists the tokens that let people register.
func (s *Service) RegistrationTokens(ctx context.Context) ([]storage.RegistrationToken, error) {
	return s.store.RegistrationTokens(ctx)
}

// DeleteRegistrationToken takes a token back. Errors: M_NOT_FOUND.
func (s *Service) DeleteRegistrationToken(ctx context.Context, token string) error {
	err := s.store.Write(ctx, func(tx *storage.Tx) error { return tx.DeleteRegistrationToken(token) })
	if errors.Is(err, storage.ErrNotFound) {
		return signalling.NotFound("there is no such registration token")
	}
	return err
}

// RegistrationTokenValid says whether a token could be used now.
func (s *Service) RegistrationTokenValid(ctx context.Context, token string) (bool, error) {
	if token == "" {
		return false, nil
	}
	return s.store.RegistrationTokenValid(ctx, token, s.clock.Now().UnixMilli())
}

const nonceTime = time.Minute

var (
	errNonce             = signalling.Refuse(http.StatusBadRequest, "M_UNKNOWN", "that nonce is unknown, used or too old; ask for a new one")
	errRegistrationToken = signalling.Refuse(http.StatusUnauthorized, "M_UNAUTHORIZED", "that registration token is not valid, or not any more")
)

// SharedSecretNonce gives a nonce for one registration by a tool that knows the shared secret, good for a minute on every node.
// Errors: M_UNRECOGNIZED when there is no shared secret.
func (s *Service) SharedSecretNonce() (string, error) {
	if s.cfg.SharedSecret == "" {
		return "", signalling.Unrecognized()
	}
	return s.seal("nonce", s.clock.Now().Add(nonceTime)), nil
}

// CreateBySharedSecret makes an account for a tool that knows the shared secret. mac is the hex HMAC-SHA1 of nonce, user, password,
// "admin" or "notadmin" and, where there is one, the user type, with NULs between them (as Synapse has it, so that its tools work).
// A nonce serves once. Errors: as Create, and M_UNKNOWN for a bad nonce, M_FORBIDDEN for a bad mac.
func (s *Service) CreateBySharedSecret(ctx context.Context, nonce, mac string, n NewUser) (Tokens, error) {
	if s.cfg.SharedSecret == "" {
		return Tokens{}, signalling.Unrecognized()
	}
	expires, ok := s.unseal("nonce", nonce)
	if !ok {
		return Tokens{}, errNonce
	}
	if strings.ContainsRune(n.Localpart+n.Password+n.Type, 0) {
		return Tokens{}, signalling.InvalidParam("name, password and type must not hold NUL")
	}
	role := "notadmin"
	if n.Admin {
		role = "admin"
	}
	fields := []string{nonce, n.Localpart, n.Password, role}
	if n.Type != "" {
		fields = append(fields, n.Type)
	}
	h := hmac.New(sha1.New, []byte(s.cfg.SharedSecret))
	h.Write([]byte(strings.Join(fields, "\x00")))
	got, err := hex.DecodeString(mac)
	if err != nil || !hmac.Equal(got, h.Sum(nil)) {
		return Tokens{}, signalling.Forbidden("the mac is wrong: the shared secret or the order of the fields differs")
	}
	if n.Password == "" {
		return Tokens{}, signalling.MissingParam("a password is needed")
	}
	n.nonce, n.nonceExpires = nonce, expires.UnixMilli()
	return s.Create(ctx, n)
}

// seal makes a random text that this server, and no other, recognises until expires: 12 random bytes, the expiry in seconds and a
// MAC over both and what it is for. So nothing is stored for those who ask and never come back.
func (s *Service) seal(purpose string, expires time.Time) string {
	b := make([]byte, 20, 36)
	_, _ = rand.Read(b[:12]) // never fails
	binary.BigEndian.PutUint64(b[12:], uint64(expires.Unix()))
	return hex.EncodeToString(append(b, s.sealMAC(purpose, b)...))
}

func (s *Service) sealMAC(purpose string, b []byte) []byte {
	m := hmac.New(sha256.New, s.key)
	m.Write(b)
	m.Write([]byte(purpose))
	return m.Sum(nil)[:16]
}

func (s *Service) unseal(purpose, text string) (expires time.Time, ok bool) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != 36 || !hmac.Equal(s.sealMAC(purpose, b[:20]), b[20:]) {
		return time.Time{}, false
	}
	expires = time.Unix(int64(binary.BigEndian.Uint64(b[12:20])), 0)
	return expires, s.clock.Now().Before(expires)
}
