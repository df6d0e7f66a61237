// SPDX-License-Identifier: Apache-2.0

// Package gateway speaks the push gateway API: it hands notifications to the gateways of applications (POST
// /_matrix/push/v1/notify) and reads what they answer.
//
// Users choose the URLs, so a gateway is a stranger: connections go to public addresses over HTTPS only (package outside), redirects
// are not followed, an exchange takes at most Patience, of the answer no more than MaxAnswer is read, and one host gets at most
// PerHost connections.
package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/outside"
)

// Bounds of an exchange.
const (
	Patience  = 10 * time.Second
	MaxAnswer = 64 << 10 // bytes
	PerHost   = 8        // connections
	maxURL    = 2048
	// Path is where gateways listen.
	Path = "/_matrix/push/v1/notify"
)

// Notification is what a gateway is told (push gateway API, "Notification"). Empty fields are left out.
type Notification struct {
	EventID           string          `json:"event_id,omitempty"`
	RoomID            string          `json:"room_id,omitempty"`
	Type              string          `json:"type,omitempty"`
	Sender            string          `json:"sender,omitempty"`
	SenderDisplayName string          `json:"sender_display_name,omitempty"`
	RoomName          string          `json:"room_name,omitempty"`
	RoomAlias         string          `json:"room_alias,omitempty"`
	UserIsTarget      bool            `json:"user_is_target,omitempty"`
	Prio              string          `json:"prio,omitempty"` // high, low
	Content           json.RawMessage `json:"content,omitempty"`
	Counts            *Counts         `json:"counts,omitempty"`
	Devices           []Device        `json:"devices"`
	// Withdrawn names a ring that is over. Gateways that do not know it see new counts, which is what the API has for it.
	Withdrawn *Withdrawn `json:"org.trunkboard.withdrawn,omitempty"`
}

// Counts are what a badge shows. The API has clients take a missing number for zero.
type Counts struct {
	Unread      int64 `json:"unread"`
	MissedCalls int64 `json:"missed_calls"`
}

// Device is where the gateway passes a notification on to.
type Device struct {
	AppID     string          `json:"app_id"`
	PushKey   string          `json:"pushkey"`
	PushKeyTS int64           `json:"pushkey_ts,omitempty"` // seconds since 1970
	Data      json.RawMessage `json:"data,omitempty"`       // the pusher's, without url
	Tweaks    map[string]any  `json:"tweaks,omitempty"`
}

// Withdrawn says which ring is over.
type Withdrawn struct {
	RoomID  string `json:"room_id"`
	EventID string `json:"event_id"` // of the event that rang
}

// Refused is an answer by which a gateway does not take a notification.
type Refused struct {
	Status int
	// After is how long the gateway asks to be left alone, 0 when it does not say.
	After time.Duration
}

// Error says what was answered.
func (r *Refused) Error() string { return "gateway: answered " + strconv.Itoa(r.Status) }

// Hopeless says that this notification will never be taken, while others may be.
func (r *Refused) Hopeless() bool {
	switch r.Status {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		return true
	}
	return false
}

// Client talks to gateways. It is safe for concurrent use.
type Client struct {
	open  http.Client // HTTPS to public addresses
	local http.Client // HTTP too, to allowed ranges only
	any   bool        // there are allowed ranges
}

// New makes a client. allow lists ranges where gateways may stand although they are not public; there they may speak plain HTTP.
func New(allow []netip.Prefix) *Client {
	through := func(g outside.Guard) http.Client {
		return http.Client{
			Timeout: Patience,
			Transport: &http.Transport{
				DialContext: (&net.Dialer{Timeout: Patience / 2, Control: g.Control}).DialContext, TLSHandshakeTimeout: Patience / 2, ResponseHeaderTimeout: Patience,
				MaxResponseHeaderBytes: 16 << 10, MaxConnsPerHost: PerHost, MaxIdleConns: 256, MaxIdleConnsPerHost: 2, IdleConnTimeout: time.Minute,
				ForceAttemptHTTP2: true, DisableCompression: true,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	return &Client{open: through(outside.Guard{Allow: allow}), local: through(outside.Guard{Allow: allow, Only: true}), any: len(allow) > 0}
}

// Close lets go of idle connections.
func (c *Client) Close() {
	c.open.CloseIdleConnections()
	c.local.CloseIdleConnections()
}

// Check reads the URL of a gateway: the error says what is wrong with it.
func (c *Client) Check(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, err
	case len(text) > maxURL || u.Host == "" || u.Hostname() == "" || u.User != nil || u.Path != Path || u.Fragment != "":
		return nil, errors.New("the path must be " + Path)
	case u.Scheme == "https", u.Scheme == "http" && c.any:
		return u, nil
	}
	return nil, errors.New("the scheme must be https")
}

// Notify hands a notification over and gives the pushkeys that the gateway says are good for nothing any more. The error is a
// *Refused when the gateway answered otherwise than with 200.
func (c *Client) Notify(ctx context.Context, to *url.URL, n *Notification) (rejected []string, err error) {
	body, err := json.Marshal(struct {
		Notification *Notification `json:"notification"`
	}{n})
	if err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, to.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "Trunkboard")
	client := &c.open
	if to.Scheme == "http" {
		client = &c.local
	}
	res, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, &Refused{Status: res.StatusCode, After: retryAfter(res.Header.Get("Retry-After"))}
	}
	answer, err := io.ReadAll(io.LimitReader(res.Body, MaxAnswer+1))
	if err != nil {
		return nil, err
	}
	return Rejected(answer), nil
}

func retryAfter(text string) time.Duration {
	s, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return 0
	}
	return time.Duration(s) * time.Second
}

// Rejected reads the answer of a gateway that took a notification. One that makes no sense rejects nothing: the status said that the
// notification was taken.
func Rejected(answer []byte) []string {
	if len(answer) > MaxAnswer {
		return nil
	}
	var a struct {
		Rejected []json.RawMessage `json:"rejected"`
	}
	if json.Unmarshal(answer, &a) != nil {
		return nil
	}
	var keys []string
	for _, raw := range a.Rejected {
		var key string
		if json.Unmarshal(raw, &key) == nil && key != "" {
			keys = append(keys, key)
		}
	}
	return keys
}
