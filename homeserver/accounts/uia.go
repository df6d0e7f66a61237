// SPDX-License-Identifier: Apache-2.0

package accounts

import (
	"context"
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
)

const uiaTime = time.Hour

// Identifier says who somebody is, as clients write it.
type Identifier struct {
	Type string `json:"type"`
	User string `json:"user"`
}

// Auth is one step of an interactive authentication, as clients send it under "auth".
type Auth struct {
	Type       string      `json:"type"`
	Session    string      `json:"session"`
	Identifier *Identifier `json:"identifier"`
	User       string      `json:"user"` // older form of identifier
	Password   string      `json:"password"`
	Token      string      `json:"token"`
}

// Interact asks for interactive authentication before operation op of user ("" where nobody is logged in yet): nil says that one of
// flows is complete. Otherwise the error is the 401 answer that tells the client how to go on; with errcode M_FORBIDDEN or
// M_UNAUTHORIZED when a stage failed. It is 403 M_FORBIDDEN when somebody else than user answered.
//
// A session is good for one operation of one user, so op names the thing that is operated on as well ("delete device ABC"). It is
// signed, not stored; only finished stages of flows with several stages are, and nothing secret with them.
func (s *Service) Interact(ctx context.Context, op, user string, flows [][]string, auth *Auth) error {
	purpose := "uia\x00" + op + "\x00" + user
	if auth == nil {
		return s.challenge(purpose, flows, "", nil, nil)
	}
	var done []string
	var expires time.Time
	if auth.Session != "" {
		var ok bool
		if expires, ok = s.unseal(purpose, auth.Session); !ok {
			return s.challenge(purpose, flows, "", nil, signalling.Forbidden("that authentication session has expired, or belongs to something else"))
		}
		var err error
		if done, err = s.store.Stages(ctx, auth.Session); err != nil {
			return err
		}
	}
	if auth.Type == "" && auth.Session != "" {
		return s.challenge(purpose, flows, auth.Session, done, nil) // asks what is left to do
	}
	if !slices.ContainsFunc(flows, func(f []string) bool { return slices.Contains(f, auth.Type) }) {
		return s.challenge(purpose, flows, auth.Session, done, signalling.Forbidden("this authentication stage is not offered here"))
	}
	if refused, err := s.stage(ctx, user, auth); err != nil {
		return err
	} else if refused != nil {
		return s.challenge(purpose, flows, auth.Session, done, refused)
	}
	complete := func(f []string) bool {
		return !slices.ContainsFunc(f, func(stage string) bool { return stage != auth.Type && !slices.Contains(done, stage) })
	}
	if slices.ContainsFunc(flows, complete) {
		if len(done) == 0 {
			return nil
		}
		return s.store.Write(ctx, func(tx *storage.Tx) error { return tx.EndStages(auth.Session) })
	}
	session := auth.Session
	if session == "" {
		expires = s.clock.Now().Add(uiaTime)
		session = s.seal(purpose, expires)
	}
	if err := s.store.Write(ctx, func(tx *storage.Tx) error { return tx.AddStage(session, auth.Type, expires.UnixMilli()) }); err != nil {
		return err
	}
	return s.challenge(purpose, flows, session, append(done, auth.Type), nil)
}

// stage checks one stage: refused is why it failed, for the challenge; err ends the authentication.
func (s *Service) stage(ctx context.Context, user string, auth *Auth) (refused *signalling.Error, err error) {
	switch auth.Type {
	case StageDummy:
		return nil, nil
	case StageRegistrationToken:
		ok, err := s.RegistrationTokenValid(ctx, auth.Token)
		if err != nil || ok {
			return nil, err
		}
		return errRegistrationToken, nil
	case StagePassword:
		typed := auth.User
		if auth.Identifier != nil {
			if auth.Identifier.Type != "m.id.user" {
				return signalling.Forbidden("only m.id.user can be used to say who you are"), nil
			}
			typed = auth.Identifier.User
		}
		if typed == "" {
			typed = user
		}
		u, err := s.VerifyPassword(ctx, s.UserID(typed), auth.Password)
		if err != nil {
			if e := signalling.AsError(err); e.Status < http.StatusInternalServerError {
				return signalling.Forbidden("wrong password"), nil
			}
			return nil, err
		}
		if user != "" && u.ID != user {
			return nil, signalling.Forbidden("somebody else is logged in here than you say you are")
		}
		return nil, nil
	}
	return signalling.Forbidden("this authentication stage is not offered here"), nil
}

// challenge is the 401 answer of interactive authentication.
func (s *Service) challenge(purpose string, flows [][]string, session string, done []string, because *signalling.Error) error {
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
		e.Fields["completed"] = done
	}
	return e
}
