// SPDX-License-Identifier: Apache-2.0

// Package matrix is the Matrix client of the load clients and drills: it makes accounts, rooms and events on any homeserver on
// loopback, and follows /sync at little cost of its own: instead of parsing what it gets, it looks for marks that it put into
// events itself.
package matrix

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const api = "/_matrix/client/v3"

// Server is a homeserver under load.
type Server struct {
	base   string
	secret string
	http   *http.Client
	txn    atomic.Int64
	run    string // makes names and transaction ids of this run differ from earlier ones
}

// Open prepares for a homeserver at base, which must be on loopback. Accounts are made with the shared secret of Synapse's admin
// registration, or, where it is empty, by open registration.
func Open(base, secret string) (*Server, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, err
	}
	if ip := net.ParseIP(u.Hostname()); u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("%s is not on loopback; load clients go nowhere else", base)
	}
	t := &http.Transport{MaxIdleConnsPerHost: 10_000, DisableCompression: true, DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext}
	return &Server{base: base, secret: secret, http: &http.Client{Transport: t}, run: strconv.FormatInt(time.Now().UnixNano(), 36)}, nil
}

// Close drops idle connections.
func (s *Server) Close() { s.http.CloseIdleConnections() }

// Error is an answer that is not 2xx.
type Error struct {
	Status int
	Body   string
}

func (e *Error) Error() string { return fmt.Sprintf("HTTP %d: %.200s", e.Status, e.Body) }

// do sends one request; the answer's body is returned whole.
func (s *Server) do(ctx context.Context, method, path, token string, in any) ([]byte, error) {
	var body io.Reader
	switch v := in.(type) {
	case nil:
	case []byte:
		body = bytes.NewReader(v)
	default:
		b, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, s.base+path, body)
	if err != nil {
		return nil, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := s.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	if res.StatusCode/100 != 2 {
		return nil, &Error{res.StatusCode, string(b)}
	}
	return b, nil
}

// Do is a request with JSON in and out, either may be nil.
func (s *Server) Do(ctx context.Context, method, path, token string, in, out any) error {
	b, err := s.do(ctx, method, path, token, in)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(b, out)
}

// User is an account with a device.
type User struct {
	*Server
	ID     string `json:"user_id"`
	Token  string `json:"access_token"`
	Device string `json:"device_id"`
}

// Register makes an account whose name begins with name; no two calls make the same.
func (s *Server) Register(ctx context.Context, name string) (*User, error) {
	name = name + "-" + s.Txn()
	u := &User{Server: s}
	const password = "not a secret: this server is under test"
	if s.secret != "" {
		var n struct {
			Nonce string `json:"nonce"`
		}
		if err := s.Do(ctx, "GET", "/_synapse/admin/v1/register", "", nil, &n); err != nil {
			return nil, err
		}
		mac := hmac.New(sha1.New, []byte(s.secret))
		fmt.Fprintf(mac, "%s\x00%s\x00%s\x00notadmin", n.Nonce, name, password)
		return u, s.Do(ctx, "POST", "/_synapse/admin/v1/register", "", map[string]any{
			"nonce": n.Nonce, "username": name, "password": password, "admin": false, "mac": hex.EncodeToString(mac.Sum(nil)),
		}, u)
	}
	in := map[string]any{"username": name, "password": password, "auth": map[string]any{"type": "m.login.dummy"}}
	err := s.Do(ctx, "POST", api+"/register", "", in, u)
	var refused *Error
	if errors.As(err, &refused) && refused.Status == http.StatusUnauthorized { // it wants a session first
		var uia struct {
			Session string `json:"session"`
		}
		if json.Unmarshal([]byte(refused.Body), &uia) == nil && uia.Session != "" {
			in["auth"] = map[string]any{"type": "m.login.dummy", "session": uia.Session}
			err = s.Do(ctx, "POST", api+"/register", "", in, u)
		}
	}
	return u, err
}

// CreateRoom makes a room that the others join: a direct one for a pair, else a public one.
func (u *User) CreateRoom(ctx context.Context, others ...*User) (string, error) {
	in := map[string]any{"preset": "public_chat", "name": "load"}
	if len(others) == 1 {
		in = map[string]any{"preset": "trusted_private_chat", "is_direct": true, "invite": []string{others[0].ID}}
	}
	var r struct {
		ID string `json:"room_id"`
	}
	if err := u.Do(ctx, "POST", api+"/createRoom", u.Token, in, &r); err != nil {
		return "", err
	}
	for _, o := range others {
		if err := o.Do(ctx, "POST", api+"/join/"+url.PathEscape(r.ID), o.Token, struct{}{}, nil); err != nil {
			return "", err
		}
	}
	return r.ID, nil
}

// Txn is a new transaction id.
func (s *Server) Txn() string { return s.run + "." + strconv.FormatInt(s.txn.Add(1), 36) }

// Send sends an event and gives its id.
func (u *User) Send(ctx context.Context, room, typ, txn string, content []byte) (string, error) {
	var r struct {
		ID string `json:"event_id"`
	}
	err := u.Do(ctx, "PUT", api+"/rooms/"+url.PathEscape(room)+"/send/"+typ+"/"+txn, u.Token, content, &r)
	return r.ID, err
}

// Upload stores content and gives "SERVER/ID" of its mxc:// URI.
func (u *User) Upload(ctx context.Context, content []byte) (string, error) {
	var r struct {
		URI string `json:"content_uri"`
	}
	err := u.Do(ctx, "POST", "/_matrix/media/v3/upload", u.Token, content, &r)
	return strings.TrimPrefix(r.URI, "mxc://"), err
}

// Download gets the content of "SERVER/ID".
func (u *User) Download(ctx context.Context, at string) ([]byte, error) {
	return u.do(ctx, "GET", "/_matrix/client/v1/media/download/"+at, u.Token, nil)
}

// Sync is one /sync. A long timeout waits for news.
func (u *User) Sync(ctx context.Context, since, filter string, timeout time.Duration) (body []byte, next string, err error) {
	q := url.Values{"timeout": {strconv.FormatInt(timeout.Milliseconds(), 10)}, "set_presence": {"offline"}}
	if since != "" {
		q.Set("since", since)
	}
	if filter != "" {
		q.Set("filter", filter)
	}
	body, err = u.do(ctx, "GET", api+"/sync?"+q.Encode(), u.Token, nil)
	if err != nil {
		return nil, "", err
	}
	if next = nextBatch(body); next == "" {
		return nil, "", errors.New("a sync without next_batch")
	}
	return body, next, nil
}

// LongTimeline asks for up to 100 events of each room, and no members that nobody asked for.
const LongTimeline = `{"room":{"timeline":{"limit":100},"state":{"lazy_load_members":true}}}`

// Follow polls until ctx ends and calls f for each mark that comes, with the time at which the answer was there. limited counts
// the answers that left events out.
func (u *User) Follow(ctx context.Context, ready func(), f func(mark string, at time.Time)) (limited int, err error) {
	_, since, err := u.Sync(ctx, "", `{"room":{"timeline":{"limit":1},"state":{"lazy_load_members":true}}}`, 0)
	if err != nil {
		return 0, err
	}
	ready()
	for {
		body, next, err := u.Sync(ctx, since, LongTimeline, 30*time.Second)
		if ctx.Err() != nil {
			return limited, nil
		}
		if err != nil {
			return limited, err
		}
		at := time.Now()
		since = next
		if bytes.Contains(body, []byte(`"limited":true`)) || bytes.Contains(body, []byte(`"limited": true`)) {
			limited++
		}
		Marks(body, func(m string) { f(m, at) })
	}
}

// mark stands in the content of an event as "tbload:TEXT;".
const mark = "tbload:"

// Mark is text as it must stand in a string of an event's content. It must not hold a semicolon or anything that JSON escapes.
func Mark(text string) string { return mark + text + ";" }

// Marks finds the marks in an answer.
func Marks(body []byte, f func(text string)) {
	for {
		i := bytes.Index(body, []byte(mark))
		if i < 0 {
			return
		}
		body = body[i+len(mark):]
		end := bytes.IndexByte(body, ';')
		if end < 0 {
			return
		}
		if end < 64 {
			f(string(body[:end]))
		}
	}
}

// nextBatch finds the token of the next sync. The last one counts: an event may hold the word too, but servers differ in the
// order of their members, so the token must be a plain top-level member.
func nextBatch(body []byte) string {
	depth := 0
	for i := 0; i < len(body); i++ {
		switch body[i] {
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case '"':
			end := stringEnd(body, i)
			if end < 0 {
				return ""
			}
			if depth == 1 && string(body[i+1:end]) == "next_batch" {
				rest := bytes.TrimLeft(body[end+1:], " :\t\r\n")
				if len(rest) > 1 && rest[0] == '"' {
					if e := stringEnd(rest, 0); e > 0 {
						return string(rest[1:e])
					}
				}
			}
			i = end
		}
	}
	return ""
}

// stringEnd is the place of the quote that ends the string beginning at i.
func stringEnd(b []byte, i int) int {
	for i++; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return -1
}
