// SPDX-License-Identifier: Apache-2.0

package accounts

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// The stages of interactive authentication that are served (client-server API, "User-Interactive Authentication API").
const (
	StageDummy             = "m.login.dummy"
	StagePassword          = "m.login.password"
	StageRegistrationToken = "m.login.registration_token"
	StageEmail             = "m.login.email.identity"
)

// OpRegister is the operation of making an account.
const OpRegister = "register"

const uiaTime = time.Hour

// Identifier says who somebody is, as clients write it.
type Identifier struct {
	Type    string `json:"type"`
	User    string `json:"user"`    // of m.id.user
	Medium  string `json:"medium"`  // of m.id.thirdparty
	Address string `json:"address"` // of m.id.thirdparty
}

// Auth is one step of an interactive authentication, as clients send it under "auth".
type Auth struct {
	Type       string      `json:"type"`
	Session    string      `json:"session"`
	Identifier *Identifier `json:"identifier"`
	User       string      `json:"user"` // older form of identifier
	Password   string      `json:"password"`
	Token      string      `json:"token"`
	Email      *EmailProof `json:"threepid_creds"`
}

// Proof is what an interactive authentication has shown beyond that somebody answered: by stage, the session of an e-mail address,
// or the registration token.
type Proof map[string]string

// Interact asks for interactive authentication before operation op of user ("" where nobody is logged in yet): without an error one
// of flows is complete. Otherwise the error is the 401 answer that tells the client how to go on; with errcode M_FORBIDDEN or
// M_UNAUTHORIZED when a stage failed. It is 403 M_FORBIDDEN when somebody else than user answered.
//
// A session is good for one operation of one user, so op names the thing that is operated on as well ("delete device ABC"). It is
// signed, not stored; only finished stages of flows with several stages are, and nothing secret with them.
func (s *Service) Interact(ctx context.Context, op, user string, flows [][]string, auth *Auth) (Proof, error) {
	purpose := "uia\x00" + op + "\x00" + user
	if auth == nil {
		return nil, s.challenge(purpose, flows, "", nil, nil)
	}
	done := map[string]string{}
	var expires time.Time
	if auth.Session != "" {
		var ok bool
		if expires, ok = s.unseal(purpose, auth.Session); !ok {
			return nil, s.challenge(purpose, flows, "", nil, signalling.Forbidden("that authentication session has expired, or belongs to something else"))
		}
		var err error
		if done, err = s.store.Stages(ctx, auth.Session); err != nil {
			return nil, err
		}
	}
	if auth.Type == "" && auth.Session != "" {
		return nil, s.challenge(purpose, flows, auth.Session, done, nil) // asks what is left to do
	}
	if !slices.ContainsFunc(flows, func(f []string) bool { return slices.Contains(f, auth.Type) }) {
		return nil, s.challenge(purpose, flows, auth.Session, done, signalling.Forbidden("this authentication stage is not offered here"))
	}
	detail, refused, err := s.stage(ctx, op, user, auth)
	if err != nil {
		return nil, err
	}
	if refused != nil {
		return nil, s.challenge(purpose, flows, auth.Session, done, refused)
	}
	before := len(done)
	done[auth.Type] = detail
	complete := func(f []string) bool {
		return !slices.ContainsFunc(f, func(stage string) bool { _, ok := done[stage]; return !ok })
	}
	if slices.ContainsFunc(flows, complete) {
		if before == 0 {
			return done, nil
		}
		return done, s.store.Write(ctx, func(tx *storage.Tx) error { return tx.EndStages(auth.Session) })
	}
	session := auth.Session
	if session == "" {
		expires = s.clock.Now().Add(uiaTime)
		session = s.seal(purpose, expires)
	}
	if err := s.store.Write(ctx, func(tx *storage.Tx) error { return tx.AddStage(session, auth.Type, detail, expires.UnixMilli()) }); err != nil {
		return nil, err
	}
	return nil, s.challenge(purpose, flows, session, done, nil)
}

// stage checks one stage: detail is what it has proven; refused is why it failed, for the challenge; err ends the authentication.
func (s *Service) stage(ctx context.Context, op, user string, auth *Auth) (detail string, refused *signalling.Error, err error) {
	switch auth.Type {
	case StageDummy:
		return "", nil, nil
	case StageRegistrationToken:
		ok, err := s.RegistrationTokenValid(ctx, auth.Token)
		if err != nil || ok {
			return auth.Token, nil, err
		}
		return "", errRegistrationToken, nil
	case StageEmail:
		purpose := EmailReset
		if op == OpRegister {
			purpose = EmailRegister
		}
		e, err := s.provenEmail(ctx, purpose, auth.Email)
		if errors.Is(err, errEmailUnproven) {
			return "", errEmailUnproven, nil
		}
		return e.SID, nil, err
	case StagePassword:
		id := auth.Identifier
		if id == nil {
			id = &Identifier{Type: "m.id.user", User: auth.User}
		}
		if id.Type == "m.id.user" && id.User == "" {
			id = &Identifier{Type: "m.id.user", User: user}
		}
		named, err := s.identified(ctx, id)
		if e := signalling.AsError(err); err != nil && e.Status < http.StatusInternalServerError {
			return "", signalling.Forbidden("%s", e.Message), nil
		} else if err != nil {
			return "", nil, err
		}
		u, err := s.VerifyPassword(ctx, named, auth.Password)
		if err != nil {
			if e := signalling.AsError(err); e.Status < http.StatusInternalServerError {
				return "", signalling.Forbidden("wrong password"), nil
			}
			return "", nil, err
		}
		if user != "" && u.ID != user {
			return "", nil, signalling.Forbidden("somebody else is logged in here than you say you are")
		}
		return "", nil, nil
	}
	return "", signalling.Forbidden("this authentication stage is not offered here"), nil
}

// challenge is the 401 answer of interactive authentication.
func (s *Service) challenge(purpose string, flows [][]string, session string, done map[string]string, because *signalling.Error) error {
	if session == "" {
		session = s.seal(purpose, s.clock.Now().Add(uiaTime))
	}
	list := make([]map[string][]string, len(flows))
	for i, f := range flows {
		list[i] = map[string][]string{"stages": f}
	}
	e := &signalling.Error{Status: http.StatusUnauthorized, Fields: map[string]any{"flows": list, "params": struct{}{}, "session": session}}
	if because != nil {
		e.Code, e.Message = because.Code, because.Message
	}
	if len(done) > 0 {
		e.Fields["completed"] = slices.Sorted(maps.Keys(done))
	}
	return e
}
