// SPDX-License-Identifier: Apache-2.0

package accounts

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/mail"
	"strings"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// Mailer sends a mail of plain text to one address. Errors: M_INVALID_PARAM when the address is refused for good; any other is the
// mail server's.
type Mailer interface {
	Send(ctx context.Context, to, subject, text string) error
}

// What an address is proven for. A proof is good for that alone.
const (
	EmailRegister = "register"
	EmailAdd      = "add"
	EmailReset    = "reset"
)

const (
	emailTime  = time.Hour // to follow the link, and after that to use the proof
	maxEmails  = 10        // of one account
	maxAddress = 254       // bytes (RFC 5321 section 4.5.3.1.3)
)

// EmailRequest asks for a mail with a link that proves who reads an address.
type EmailRequest struct {
	Purpose  string
	Address  string
	Secret   string // the client's, to be shown again with the proof
	Attempt  int64
	NextLink string                         // "" for none; the caller has checked that it leads nowhere else
	Link     func(sid, token string) string // the page that is linked to
}

// HasEmail says whether accounts may have e-mail addresses.
func (s *Service) HasEmail() bool { return s.cfg.Mailer != nil }

// ParseAddress checks an e-mail address and writes it in small letters. Errors: M_INVALID_PARAM.
func ParseAddress(address string) (string, error) {
	bad := signalling.InvalidParam("that is no e-mail address")
	if len(address) > maxAddress {
		return "", bad
	}
	for _, c := range []byte(address) {
		if c <= ' ' || c > '~' || strings.IndexByte(`"<>(),:;[]\`, c) >= 0 {
			return "", bad
		}
	}
	a, err := mail.ParseAddress(address)
	if err != nil || a.Address != address || a.Name != "" {
		return "", bad
	}
	at := strings.LastIndexByte(address, '@')
	domain := address[at+1:]
	if at > 64 || strings.HasPrefix(domain, ".") || strings.HasSuffix(domain, ".") || strings.Contains(domain, "..") || strings.Trim(strings.ToLower(domain), "abcdefghijklmnopqrstuvwxyz0123456789.-") != "" {
		return "", bad
	}
	return strings.ToLower(address), nil
}

// RequestEmail sends a mail to prove an address, and gives the id of the session. Nobody learns from the answer whether an account
// has the address: who reads its mail is told. An attempt that was answered before sends nothing. Errors: M_INVALID_PARAM,
// M_THREEPID_MEDIUM_NOT_SUPPORTED.
func (s *Service) RequestEmail(ctx context.Context, q EmailRequest) (sid string, err error) {
	if s.cfg.Mailer == nil {
		return "", ErrNoEmail
	}
	address, err := ParseAddress(q.Address)
	if err != nil {
		return "", err
	}
	owner, err := s.store.EmailOwner(ctx, address)
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return "", err
	}
	secret, salt := sha256.Sum256([]byte(q.Secret)), make([]byte, 16)
	_, _ = rand.Read(salt) // never fails
	now := s.clock.Now()
	e := storage.EmailSession{
		SID: rand.Text(), Address: address, Purpose: q.Purpose, SecretHash: secret[:], Salt: salt, Attempt: q.Attempt, NextLink: q.NextLink, ExpiresTS: now.Add(emailTime).UnixMilli(),
	}
	var is storage.EmailSession
	if err := s.store.Write(ctx, func(tx *storage.Tx) (err error) {
		is, err = tx.RequestEmail(e, now.UnixMilli())
		return err
	}); err != nil {
		return "", err
	}
	if q.Attempt <= is.Attempt {
		return is.SID, nil
	}
	subject, text := s.letter(q.Purpose, owner, q.Link(is.SID, s.emailToken(is)))
	if err := s.cfg.Mailer.Send(ctx, address, subject, text); err != nil {
		back := context.WithoutCancel(ctx)
		if e := s.store.Write(back, func(tx *storage.Tx) error { return tx.EmailNotSent(is.SID, q.Attempt, is.Attempt) }); e != nil {
			err = errors.Join(err, e)
		}
		if e := signalling.AsError(err); e.Status < http.StatusInternalServerError {
			return "", err
		}
		return "", signalling.Refuse(http.StatusServiceUnavailable, "M_UNKNOWN", "the mail could not be sent now; try again later").Because(err)
	}
	return is.SID, nil
}

// ErrNoEmail is 400 M_THREEPID_MEDIUM_NOT_SUPPORTED.
var ErrNoEmail = signalling.Refuse(http.StatusBadRequest, "M_THREEPID_MEDIUM_NOT_SUPPORTED", "this server sends no e-mail")

// letter is what is written to somebody who is, or says he is, the reader of an address. owner is the account that has it.
func (s *Service) letter(purpose, owner, link string) (subject, text string) {
	const unasked = "If you did not ask for this, somebody may have mistyped an address: do nothing, and delete this mail.\n"
	here := s.cfg.Server
	switch {
	case purpose == EmailReset && owner == "":
		return "Your password at " + here, fmt.Sprintf("Somebody asked to set a new password at %s, with this e-mail address.\n\nNo account there has this address. Maybe you used another one.\n\n%s", here, unasked)
	case purpose == EmailReset:
		return "A new password at " + here, fmt.Sprintf("Somebody asked to set a new password for the account %s.\n\nIf it was you, open this page and confirm it, then go on in your app:\n\n%s\n\nThe link works for an hour. %s", owner, link, unasked)
	case owner != "":
		return "Your e-mail address at " + here, fmt.Sprintf("Somebody wants to use this e-mail address for an account at %s.\n\nIt belongs to an account there already. If that is yours, log in to it, or ask for a new password.\n\n%s", here, unasked)
	}
	return "Confirm your e-mail address for " + here, fmt.Sprintf("Somebody wants to use this e-mail address for an account at %s.\n\nIf it was you, open this page and confirm it, then go on in your app:\n\n%s\n\nThe link works for an hour. %s", here, link, unasked)
}

// emailToken is what the mail of a session holds: 128 bits that nobody can make without the server's key.
func (s *Service) emailToken(e storage.EmailSession) string {
	m := hmac.New(sha256.New, s.key)
	m.Write([]byte("email\x00" + e.SID + "\x00"))
	m.Write(e.Salt)
	return base64.RawURLEncoding.EncodeToString(m.Sum(nil)[:16])
}

// EmailSession finds the session that a link leads to. Errors: M_TOKEN_INCORRECT, M_SESSION_EXPIRED.
func (s *Service) EmailSession(ctx context.Context, sid, token string) (storage.EmailSession, error) {
	e, err := s.store.EmailSession(ctx, sid, s.clock.Now().UnixMilli())
	if errors.Is(err, storage.ErrNotFound) {
		return e, signalling.Refuse(http.StatusBadRequest, "M_SESSION_EXPIRED", "this link is too old, or was used")
	}
	if err != nil {
		return e, err
	}
	if subtle.ConstantTimeCompare([]byte(s.emailToken(e)), []byte(token)) != 1 {
		return storage.EmailSession{}, signalling.Refuse(http.StatusBadRequest, "M_TOKEN_INCORRECT", "this link is not whole")
	}
	return e, nil
}

// ConfirmEmail notes that whoever reads the address of a session followed its link. Errors: as EmailSession.
func (s *Service) ConfirmEmail(ctx context.Context, sid, token string) (storage.EmailSession, error) {
	e, err := s.EmailSession(ctx, sid, token)
	if err != nil {
		return e, err
	}
	now := s.clock.Now()
	return e, s.store.Write(ctx, func(tx *storage.Tx) error {
		return tx.ValidateEmail(sid, now.UnixMilli(), now.Add(emailTime).UnixMilli())
	})
}

var errEmailUnproven = signalling.Refuse(http.StatusUnauthorized, "M_UNAUTHORIZED", "the e-mail address is not confirmed yet: follow the link in the mail")

// provenEmail finds a session whose address is proven, for a purpose and by whoever knows its secret. Errors: M_UNAUTHORIZED.
func (s *Service) provenEmail(ctx context.Context, purpose string, c *EmailProof) (storage.EmailSession, error) {
	if c == nil {
		return storage.EmailSession{}, errEmailUnproven
	}
	e, err := s.store.EmailSession(ctx, c.SID, s.clock.Now().UnixMilli())
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return e, err
	}
	secret := sha256.Sum256([]byte(c.Secret))
	if err != nil || e.ValidatedTS == 0 || e.Purpose != purpose || subtle.ConstantTimeCompare(secret[:], e.SecretHash) != 1 {
		return storage.EmailSession{}, errEmailUnproven
	}
	return e, nil
}

// EmailProof names a session and the client's secret for it ("threepid_creds").
type EmailProof struct {
	SID    string `json:"sid"`
	Secret string `json:"client_secret"`
}

var errEmailInUse = signalling.Refuse(http.StatusBadRequest, "M_THREEPID_IN_USE", "another account has this e-mail address")

// takeEmail gives an account the address of a session, and uses the session up.
func takeEmail(tx *storage.Tx, sid, userID string, now int64) error {
	e, err := tx.TakeEmailSession(sid, now)
	if errors.Is(err, storage.ErrNotFound) {
		return errEmailUnproven
	}
	if err != nil {
		return err
	}
	err = tx.InsertEmail(storage.Email{Address: e.Address, UserID: userID, ValidatedTS: e.ValidatedTS, AddedTS: now})
	if errors.Is(err, storage.ErrExists) {
		return errEmailInUse
	}
	return err
}

// AddEmail gives an account an address that was proven. Errors: M_THREEPID_AUTH_FAILED, M_THREEPID_IN_USE, M_RESOURCE_LIMIT_EXCEEDED.
func (s *Service) AddEmail(ctx context.Context, userID string, c *EmailProof) error {
	e, err := s.provenEmail(ctx, EmailAdd, c)
	if err == nil {
		now := s.clock.Now().UnixMilli()
		err = s.store.Write(ctx, func(tx *storage.Tx) error {
			n, err := tx.CountEmails(userID)
			if err == nil && n >= maxEmails {
				err = signalling.Refuse(http.StatusForbidden, "M_RESOURCE_LIMIT_EXCEEDED", "an account may have %d e-mail addresses", maxEmails)
			}
			if err != nil {
				return err
			}
			return takeEmail(tx, e.SID, userID, now)
		})
	}
	if errors.Is(err, errEmailUnproven) {
		return signalling.Refuse(http.StatusBadRequest, "M_THREEPID_AUTH_FAILED", "the e-mail address is not confirmed: follow the link in the mail")
	}
	return err
}

// DeleteEmail takes an address from an account. Errors: M_THREEPID_NOT_FOUND.
func (s *Service) DeleteEmail(ctx context.Context, userID, address string) error {
	err := s.store.Write(ctx, func(tx *storage.Tx) error { return tx.DeleteEmail(userID, strings.ToLower(address)) })
	if errors.Is(err, storage.ErrNotFound) {
		return signalling.Refuse(http.StatusBadRequest, "M_THREEPID_NOT_FOUND", "your account does not have this address")
	}
	return err
}

// Emails lists the addresses of an account.
func (s *Service) Emails(ctx context.Context, userID string) ([]storage.Email, error) {
	return s.store.Emails(ctx, userID)
}

// ResetPassword gives the account that has the address of a proven session a new password, and uses the session up. others logs out
// its devices. user is who is logged in, "" for nobody. Errors: M_FORBIDDEN when the address is not the user's, M_WEAK_PASSWORD,
// M_INVALID_PARAM, M_UNAUTHORIZED when the session was used.
func (s *Service) ResetPassword(ctx context.Context, sid, user, password string, others bool, keep string) error {
	now := s.clock.Now().UnixMilli()
	e, err := s.store.EmailSession(ctx, sid, now)
	if err != nil {
		return errEmailUnproven.Because(err)
	}
	owner, err := s.store.EmailOwner(ctx, e.Address)
	if errors.Is(err, storage.ErrNotFound) || err == nil && user != "" && owner != user {
		return signalling.Forbidden("your account does not have this e-mail address")
	}
	if err != nil {
		return err
	}
	return s.setPassword(ctx, owner, password, others, keep, func(tx *storage.Tx) error {
		if _, err := tx.TakeEmailSession(sid, now); errors.Is(err, storage.ErrNotFound) {
			return errEmailUnproven
		} else if err != nil {
			return err
		}
		return nil
	})
}

// identified finds the user whom an identifier names, "" when it names nobody here. Errors: M_UNKNOWN for a type that is not known.
func (s *Service) identified(ctx context.Context, id *Identifier) (string, error) {
	switch {
	case id.Type == "m.id.user":
		return s.UserID(id.User), nil
	case id.Type == "m.id.thirdparty" && id.Medium == "email":
		address, err := ParseAddress(id.Address)
		if err != nil {
			return "", nil
		}
		owner, err := s.store.EmailOwner(ctx, address)
		if errors.Is(err, storage.ErrNotFound) {
			return "", nil
		}
		return owner, err
	}
	return "", signalling.Refuse(http.StatusBadRequest, "M_UNKNOWN", "identifier must be of type m.id.user, or m.id.thirdparty with an e-mail address")
}

// Identify finds the user whom somebody names when he logs in, "" when he names nobody here. Errors: M_UNKNOWN, M_MISSING_PARAM.
func (s *Service) Identify(ctx context.Context, id *Identifier) (string, error) {
	if id.Type == "m.id.user" && id.User == "" {
		return "", signalling.MissingParam("identifier.user is needed: a user name")
	}
	return s.identified(ctx, id)
}
