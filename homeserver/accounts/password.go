// SPDX-License-Identifier: Apache-2.0

package accounts

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"

	"github.com/trunkboard/trunkboard/signalling"
)

// Cost is how much work hashing a password is.
type Cost uint8

// The costs. Minimum is for tests: it makes stolen hashes cheap to guess.
const (
	CostStandard Cost = iota
	CostMinimum
)

// Bounds of a password, in bytes.
const (
	minPassword = 8
	maxPassword = 512
)

// argonParams are the parameters of argon2id (RFC 9106).
type argonParams struct {
	memory  uint32 // KiB
	time    uint32
	threads uint8
}

const argonKey, argonSalt = 32, 16

// hasher hashes passwords, only so many at a time: each takes 19 MiB.
type hasher struct {
	params argonParams
	slots  chan struct{}
	decoy  string // hash of a password that nobody has
}

func newHasher(c Cost) (*hasher, error) {
	h := &hasher{params: argonParams{19456, 2, 1}, slots: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)))}
	if c == CostMinimum {
		h.params = argonParams{8, 1, 1}
	}
	// Nobody knows a password whose hash is random bytes, so none need be hashed for it when the server starts.
	var random [argonSalt + argonKey]byte
	if _, err := rand.Read(random[:]); err != nil {
		return nil, err
	}
	h.decoy = h.phc(random[:argonSalt], random[argonSalt:])
	return h, nil
}

// phc writes a hash as a PHC string.
func (h *hasher) phc(salt, key []byte) string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.params.memory, h.params.time, h.params.threads,
		base64.RawStdEncoding.EncodeToString(salt), base64.RawStdEncoding.EncodeToString(key))
}

func (h *hasher) acquire(ctx context.Context) error {
	select {
	case h.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (h *hasher) release() { <-h.slots }

// hash gives the PHC string of a password: $argon2id$v=19$m=19456,t=2,p=1$salt$key.
func (h *hasher) hash(ctx context.Context, password string) (string, error) {
	salt := make([]byte, argonSalt)
	if _, err := rand.Read(salt); err != nil {
		return "", err
	}
	if err := h.acquire(ctx); err != nil {
		return "", err
	}
	defer h.release()
	p := h.params
	key := argon2.IDKey([]byte(password), salt, p.time, p.memory, p.threads, argonKey)
	return h.phc(salt, key), nil
}

// verify says whether password belongs to stored. With stored "" it takes as long and says no. outdated says that stored was made in
// another way than hash does it now.
func (h *hasher) verify(ctx context.Context, stored, password string) (ok, outdated bool, err error) {
	if len(password) > maxPassword {
		return false, false, nil
	}
	if err := h.acquire(ctx); err != nil {
		return false, false, err
	}
	defer h.release()
	if strings.HasPrefix(stored, "$2") {
		return bcrypt.CompareHashAndPassword([]byte(stored), []byte(password)) == nil, true, nil
	}
	known := stored != ""
	if !known {
		stored = h.decoy
	}
	p, salt, key, err := parsePHC(stored)
	if err != nil {
		return false, false, err
	}
	got := argon2.IDKey([]byte(password), salt, p.time, p.memory, p.threads, uint32(len(key)))
	return subtle.ConstantTimeCompare(got, key) == 1 && known, p != h.params, nil
}

func parsePHC(s string) (p argonParams, salt, key []byte, err error) {
	bad := fmt.Errorf("a stored password hash is neither argon2id nor bcrypt")
	f := strings.Split(s, "$")
	if len(f) != 6 || f[0] != "" || f[1] != "argon2id" || f[2] != "v="+strconv.Itoa(argon2.Version) {
		return p, nil, nil, bad
	}
	if _, err := fmt.Sscanf(f[3], "m=%d,t=%d,p=%d", &p.memory, &p.time, &p.threads); err != nil {
		return p, nil, nil, bad
	}
	// What an import may bring: bounded, so that one row cannot take the machine's memory.
	if p.memory > 1<<20 || p.time == 0 || p.time > 100 || p.threads == 0 {
		return p, nil, nil, bad
	}
	if salt, err = base64.RawStdEncoding.DecodeString(f[4]); err != nil {
		return p, nil, nil, bad
	}
	if key, err = base64.RawStdEncoding.DecodeString(f[5]); err != nil || len(key) < 16 || len(key) > 128 {
		return p, nil, nil, bad
	}
	return p, salt, key, nil
}

// CheckPassword refuses a password that may not be set. Errors: M_WEAK_PASSWORD, M_INVALID_PARAM.
func (s *Service) CheckPassword(password string) error {
	least := minPassword
	if s.cfg.MinPassword > 0 {
		least = s.cfg.MinPassword
	}
	switch {
	case len(password) < least:
		return signalling.Refuse(400, "M_WEAK_PASSWORD", "choose a password of at least %d characters", least)
	case len(password) > maxPassword:
		return signalling.InvalidParam("a password may have %d bytes", maxPassword)
	}
	return nil
}

// HashSecret hashes a password that is no account's, such as a meeting's. Errors: M_INVALID_PARAM.
func (s *Service) HashSecret(ctx context.Context, secret string) (string, error) {
	if secret == "" || len(secret) > maxPassword {
		return "", signalling.InvalidParam("a password has 1 to %d bytes", maxPassword)
	}
	return s.hasher.hash(ctx, secret)
}

// IsSecret says whether secret is what HashSecret made stored of.
func (s *Service) IsSecret(ctx context.Context, stored, secret string) (bool, error) {
	ok, _, err := s.hasher.verify(ctx, stored, secret)
	return ok, err
}
