// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// user is an account with a device. Its sync goes on from call to call, so that what is waited for is not missed.
type user struct {
	t         *testing.T
	s         *server
	id, token string
	device    string
	since     string
}

var numbers atomic.Int64

func next() string { return strconv.FormatInt(numbers.Add(1), 10) }

type object = map[string]any

// newUser makes an account.
func (s *server) newUser(t *testing.T, name string) *user {
	t.Helper()
	return s.newAccount(t, name, false)
}

func (s *server) newAccount(t *testing.T, name string, admin bool) *user {
	t.Helper()
	u := &user{t: t, s: s}
	var nonce struct{ Nonce string }
	u.must("GET", "/_synapse/admin/v1/register", nil, &nonce)
	name += next()
	var out struct {
		UserID      string `json:"user_id"`
		AccessToken string `json:"access_token"`
		DeviceID    string `json:"device_id"`
	}
	u.must("POST", "/_synapse/admin/v1/register", object{
		"nonce": nonce.Nonce, "username": name, "password": "a password of " + name, "admin": admin, "mac": registrationMAC(nonce.Nonce, name, "a password of "+name, admin),
	}, &out)
	u.id, u.token, u.device = out.UserID, out.AccessToken, out.DeviceID
	return u
}

// try sends a request and gives status and body.
func (u *user) try(method, path string, in any) (int, []byte) {
	u.t.Helper()
	var body io.Reader
	contentType := "application/json"
	switch in := in.(type) {
	case nil:
	case []byte:
		body, contentType = bytes.NewReader(in), "application/octet-stream"
	default:
		text, err := json.Marshal(in)
		if err != nil {
			u.t.Fatal(err)
		}
		body = bytes.NewReader(text)
	}
	ctx, cancel := context.WithTimeout(u.t.Context(), 90*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, u.s.base+path, body)
	if err != nil {
		u.t.Fatal(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", contentType)
	}
	if u.token != "" {
		req.Header.Set("Authorization", "Bearer "+u.token)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		u.t.Fatalf("%s %s on %s: %v", method, path, u.s.kind, err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		u.t.Fatal(err)
	}
	return res.StatusCode, text
}

// must is try where any answer but 200 ends the test.
func (u *user) must(method, path string, in, out any) {
	u.t.Helper()
	status, text := u.try(method, path, in)
	if status != 200 {
		u.t.Fatalf("%s %s on %s: %d %s", method, path, u.s.kind, status, text)
	}
	if out != nil {
		if err := json.Unmarshal(text, out); err != nil {
			u.t.Fatalf("%s %s on %s: %v in %.300s", method, path, u.s.kind, err, text)
		}
	}
}

func room(id string, rest ...string) string {
	return "/_matrix/client/v3/rooms/" + url.PathEscape(id) + "/" + strings.Join(rest, "/")
}

func (u *user) createRoom(version string, more object) string {
	u.t.Helper()
	body := object{"room_version": version, "preset": "private_chat"}
	for k, v := range more {
		body[k] = v
	}
	var out struct {
		RoomID string `json:"room_id"`
	}
	u.must("POST", "/_matrix/client/v3/createRoom", body, &out)
	return out.RoomID
}

// join joins by room id through the server of via.
func (u *user) join(id string, via *user) {
	u.t.Helper()
	u.must("POST", "/_matrix/client/v3/join/"+url.PathEscape(id)+"?via="+url.QueryEscape(via.s.name)+"&server_name="+url.QueryEscape(via.s.name), object{}, nil)
}

func (u *user) invite(id string, who *user) {
	u.t.Helper()
	u.must("POST", room(id, "invite"), object{"user_id": who.id}, nil)
}

func (u *user) send(id, typ string, content object) string {
	u.t.Helper()
	var out struct {
		EventID string `json:"event_id"`
	}
	u.must("PUT", room(id, "send", typ, "t"+next()), content, &out)
	return out.EventID
}

func (u *user) say(id, text string) string {
	u.t.Helper()
	return u.send(id, "m.room.message", object{"msgtype": "m.text", "body": text})
}

func (u *user) setState(id, typ, key string, content object) string {
	u.t.Helper()
	var out struct {
		EventID string `json:"event_id"`
	}
	u.must("PUT", room(id, "state", typ, url.PathEscape(key)), content, &out)
	return out.EventID
}

type event struct {
	ID       string          `json:"event_id"`
	Type     string          `json:"type"`
	StateKey *string         `json:"state_key"`
	Sender   string          `json:"sender"`
	Content  json.RawMessage `json:"content"`
	Redacts  string          `json:"redacts"`
	Unsigned json.RawMessage `json:"unsigned"`
}

type syncAnswer struct {
	Next  string `json:"next_batch"`
	Rooms struct {
		Join map[string]struct {
			Timeline struct {
				Events  []event `json:"events"`
				Limited bool    `json:"limited"`
			} `json:"timeline"`
			State     struct{ Events []event } `json:"state"`
			Ephemeral struct{ Events []event } `json:"ephemeral"`
		} `json:"join"`
		Invite map[string]struct {
			State struct{ Events []event } `json:"invite_state"`
		} `json:"invite"`
		Leave map[string]struct {
			Timeline struct{ Events []event } `json:"timeline"`
			State    struct{ Events []event } `json:"state"`
		} `json:"leave"`
	} `json:"rooms"`
	ToDevice    struct{ Events []event }   `json:"to_device"`
	Presence    struct{ Events []event }   `json:"presence"`
	DeviceLists struct{ Changed []string } `json:"device_lists"`
}

// await syncs until done says so.
func (u *user) await(what string, done func(*syncAnswer) bool) {
	u.t.Helper()
	deadline := time.Now().Add(40 * time.Second)
	for time.Now().Before(deadline) {
		q := url.Values{"timeout": {"5000"}, "filter": {`{"room":{"timeline":{"limit":100}}}`}}
		if u.since != "" {
			q.Set("since", u.since)
		}
		var out syncAnswer
		u.must("GET", "/_matrix/client/v3/sync?"+q.Encode(), nil, &out)
		u.since = out.Next
		if done(&out) {
			return
		}
	}
	u.t.Fatalf("%s on %s waited in vain for %s", u.id, u.s.kind, what)
}

// awaitEvent waits for an event of a room that f accepts, in its timeline or, after a join, its state.
func (u *user) awaitEvent(id, what string, f func(event) bool) (found event) {
	u.t.Helper()
	u.await(what, func(a *syncAnswer) bool {
		joined, left := a.Rooms.Join[id], a.Rooms.Leave[id]
		for _, list := range [][]event{joined.Timeline.Events, joined.State.Events, left.Timeline.Events, left.State.Events} {
			for _, e := range list {
				if f(e) {
					found = e
					return true
				}
			}
		}
		return false
	})
	return found
}

func (u *user) awaitID(id, eventID string) event {
	u.t.Helper()
	return u.awaitEvent(id, "event "+eventID, func(e event) bool { return e.ID == eventID })
}

func (u *user) awaitMember(id string, who *user, membership string) {
	u.t.Helper()
	u.awaitEvent(id, fmt.Sprintf("%s to be %s", who.id, membership), func(e event) bool {
		var c struct{ Membership string }
		_ = json.Unmarshal(e.Content, &c)
		return e.Type == "m.room.member" && e.StateKey != nil && *e.StateKey == who.id && c.Membership == membership
	})
}

func (u *user) awaitInvite(id string) {
	u.t.Helper()
	u.await("an invitation", func(a *syncAnswer) bool { _, ok := a.Rooms.Invite[id]; return ok })
}
