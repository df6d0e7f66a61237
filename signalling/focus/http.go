// SPDX-License-Identifier: Apache-2.0

package focus

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/matrixrtc"
)

const (
	maxBody  = 64 << 10 // bytes of a request
	bodyTime = 10 * time.Second
	maxToken = 4096 // bytes of an OpenID token
)

// Handler serves the token service as today's clients ask it: POST /sfu/get, /get_token, /delegate_delayed_leave, GET /healthz.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	mux.HandleFunc("/sfu/get", s.post(s.oldToken))
	mux.HandleFunc("/get_token", s.post(s.newToken))
	mux.HandleFunc("/delegate_delayed_leave", s.post(s.takeLeave))
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { refuse(w, signalling.Unrecognized()) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", "*")
		h.Set("Access-Control-Allow-Methods", "GET, POST, OPTIONS")
		h.Set("Access-Control-Allow-Headers", "Accept, Content-Type, Content-Length, Accept-Encoding, Authorization, X-CSRF-Token")
		h.Set("Access-Control-Max-Age", "86400")
		h.Set("X-Content-Type-Options", "nosniff")
		if r.Method == http.MethodOptions {
			w.WriteHeader(http.StatusOK)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// openIDToken is what the homeserver gave the client ("OpenID").
type openIDToken struct {
	AccessToken string `json:"access_token"`
	ServerName  string `json:"matrix_server_name"`
}

// request is the union of the bodies.
type request struct {
	Room     string      `json:"room"` // of /sfu/get
	RoomID   string      `json:"room_id"`
	SlotID   string      `json:"slot_id"`
	OpenID   openIDToken `json:"openid_token"`
	DeviceID string      `json:"device_id"`
	Member   struct {
		ID       string `json:"id"`
		UserID   string `json:"claimed_user_id"`
		DeviceID string `json:"claimed_device_id"`
	} `json:"member"`
	DelayID      string      `json:"delay_id"`
	DelayTimeout json.Number `json:"delay_timeout"` // milliseconds
}

// access is the answer to both requests for a token.
type access struct {
	URL string `json:"url"`
	JWT string `json:"jwt"`
}

// post parses a body, finds the user and answers.
func (s *Service) post(handle func(r *http.Request, q *request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := s.serve(w, r, handle)
		if err != nil {
			e := signalling.AsError(err)
			if e.Status >= http.StatusInternalServerError {
				s.Log.Error("the token service could not answer", "path", r.URL.Path, "err", err)
			}
			refuse(w, e)
			return
		}
		answer(w, http.StatusOK, v)
	}
}

func (s *Service) serve(w http.ResponseWriter, r *http.Request, handle func(r *http.Request, q *request) (any, error)) (any, error) {
	if r.Method != http.MethodPost {
		return nil, signalling.Refuse(http.StatusMethodNotAllowed, "M_UNRECOGNIZED", "this endpoint does not answer %s", r.Method)
	}
	if s.Limit != nil {
		if err := s.Limit(r); err != nil {
			return nil, err
		}
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTime))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, signalling.TooLarge("the body of this request may have %d bytes", maxBody)
	case err != nil:
		return nil, signalling.NotJSON("the body did not arrive whole")
	}
	q, err := parse(body)
	if err != nil {
		return nil, err
	}
	return handle(r, q)
}

// parse reads a body. Errors: M_NOT_JSON, M_BAD_JSON.
func parse(body []byte) (*request, error) {
	if !utf8.Valid(body) || !json.Valid(body) {
		return nil, signalling.NotJSON("the body must be JSON")
	}
	q := &request{}
	if err := json.Unmarshal(body, q); err != nil {
		return nil, signalling.BadJSON("the body has the wrong shape")
	}
	if q.OpenID.AccessToken == "" || q.OpenID.ServerName == "" || len(q.OpenID.AccessToken) > maxToken || len(q.OpenID.ServerName) > maxID {
		return nil, signalling.BadJSON("openid_token must hold access_token and matrix_server_name")
	}
	return q, nil
}

// delay is the delay that a client claims; 0 when it does not.
func (q *request) delay() (time.Duration, error) {
	if q.DelayTimeout == "" {
		return 0, nil
	}
	ms, err := q.DelayTimeout.Int64()
	if err != nil || ms < 1 || ms > int64(30*24*time.Hour/time.Millisecond) {
		return 0, signalling.BadJSON("delay_timeout must be a number of milliseconds")
	}
	return time.Duration(ms) * time.Millisecond, nil
}

// user finds out who asks; device is the one that the request claims.
func (s *Service) user(ctx context.Context, q *request, device string) (string, error) {
	if q.OpenID.ServerName != s.ServerName {
		select {
		case s.asking <- struct{}{}:
			defer func() { <-s.asking }()
		default:
			return "", signalling.LimitExceeded(time.Second)
		}
	}
	user, made, err := s.Homeserver.OpenIDUser(ctx, q.OpenID.ServerName, q.OpenID.AccessToken)
	if err != nil {
		return "", err
	}
	if serverOf(user) != q.OpenID.ServerName {
		return "", signalling.Refuse(http.StatusUnauthorized, "M_UNAUTHORIZED", "that server speaks for its own users only")
	}
	if made != "" && device != made {
		return "", signalling.Refuse(http.StatusUnauthorized, "M_UNAUTHORIZED", "the OpenID token was made for another device")
	}
	return user, nil
}

// oldToken answers /sfu/get.
func (s *Service) oldToken(r *http.Request, q *request) (any, error) {
	if q.Room == "" || q.DeviceID == "" {
		return nil, signalling.BadJSON("room, openid_token and device_id are needed")
	}
	user, err := s.user(r.Context(), q, q.DeviceID)
	if err != nil {
		return nil, err
	}
	// Clients of this endpoint may send to the SFU of whoever began the call.
	return s.token(r, q, Member{RoomID: q.Room, SlotID: matrixrtc.RoomSlot, UserID: user, DeviceID: q.DeviceID, Form: Plain}, true)
}

// member reads the body of the newer endpoints.
func (s *Service) member(r *http.Request, q *request) (Member, error) {
	if q.RoomID == "" || q.SlotID == "" || q.Member.ID == "" || q.Member.UserID == "" || q.Member.DeviceID == "" {
		return Member{}, signalling.BadJSON("room_id, slot_id, openid_token and member with id, claimed_user_id and claimed_device_id are needed")
	}
	user, err := s.user(r.Context(), q, q.Member.DeviceID)
	if err != nil {
		return Member{}, err
	}
	if user != q.Member.UserID {
		return Member{}, signalling.Refuse(http.StatusUnauthorized, "M_UNAUTHORIZED", "the OpenID token is another user's")
	}
	return Member{RoomID: q.RoomID, SlotID: q.SlotID, UserID: user, DeviceID: q.Member.DeviceID, MemberID: q.Member.ID, Form: DeviceHashed}, nil
}

// newToken answers /get_token.
func (s *Service) newToken(r *http.Request, q *request) (any, error) {
	m, err := s.member(r, q)
	if err != nil {
		return nil, err
	}
	return s.token(r, q, m, false)
}

func (s *Service) token(r *http.Request, q *request, m Member, publish bool) (any, error) {
	delay, err := q.delay()
	if err != nil {
		return nil, err
	}
	if q.DelayID != "" && !s.own(m.UserID) {
		return nil, signalling.BadJSON("only users of this server may hand over their leaves")
	}
	jwt, err := s.Grant(r.Context(), m, publish)
	if err != nil {
		return nil, err
	}
	if q.DelayID != "" {
		if err := s.Delegate(r.Context(), m, q.DelayID, delay); err != nil {
			return nil, err
		}
	}
	return access{MediaURL(s.Base(r)), jwt}, nil
}

// takeLeave answers /delegate_delayed_leave.
func (s *Service) takeLeave(r *http.Request, q *request) (any, error) {
	delay, err := q.delay()
	if err != nil {
		return nil, err
	}
	if q.DelayID == "" || delay == 0 {
		return nil, signalling.BadJSON("delay_id and delay_timeout are needed")
	}
	m, err := s.member(r, q)
	if err != nil {
		return nil, err
	}
	return struct{}{}, s.Delegate(r.Context(), m, q.DelayID, delay)
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client went away: nobody to tell
}

func refuse(w http.ResponseWriter, e *signalling.Error) {
	m := map[string]any{}
	for k, v := range e.Fields {
		m[k] = v
	}
	m["errcode"], m["error"] = e.Code, e.Message
	answer(w, e.Status, m)
}
