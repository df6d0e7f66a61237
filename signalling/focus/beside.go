// SPDX-License-Identifier: Apache-2.0

package focus

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/matrixrtc"
)

// Beside is a homeserver that runs elsewhere, asked over HTTP: for an SFU beside a Synapse. Who is in a room, and which devices are logged
// in, it tells its administrators only; without a token of one of them that is not checked, as little as by lk-jwt-service.
type Beside struct {
	ServerName string
	URL        string            // of its client API, without a slash at the end
	Token      string            // of an administrator of the Synapse; "": none
	Related    map[string]string // other homeservers of the same people: the URL of the client API by name
	Elsewhere  Elsewhere         // nil: users of all other servers are refused
	Client     *http.Client      // see NewClient
}

// Elsewhere asks other servers whom their OpenID tokens name: server-server API, GET /_matrix/federation/v1/openid/userinfo.
type Elsewhere interface {
	OpenIDUser(ctx context.Context, server, token string) (userID string, err error)
}

var (
	_ Homeserver       = Beside{}
	_ Watch            = Beside{}
	_ matrixrtc.Events = Beside{}
)

const (
	besideTime = 10 * time.Second // for a whole request
	besideBody = 64 << 10         // bytes of an answer
	besideList = 4 << 20          // bytes of a list: of a user's rooms or devices, of a room's members
	besideMost = 32               // connections to one homeserver
)

// NewClient makes the client with which homeservers beside this server are asked. It follows no redirect: requests carry an administrator's
// token, or an OpenID token in their URL. Who made it closes its idle connections.
func NewClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: besideTime / 2}).DialContext, ForceAttemptHTTP2: true,
			TLSHandshakeTimeout: besideTime / 2, MaxResponseHeaderBytes: 64 << 10, MaxConnsPerHost: besideMost, MaxIdleConnsPerHost: 4, IdleConnTimeout: 90 * time.Second,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// at is the URL of a homeserver that is known, "" for others.
func (b Beside) at(server string) string {
	if server == b.ServerName {
		return b.URL
	}
	return b.Related[server]
}

// errLong is the cause of an error: the answer has more bytes than it may have.
var errLong = errors.New("the answer is too long")

// ask sends a request and decodes the answer, of limit bytes at most, into v. Errors: those of the other server as they are, 502
// M_UNKNOWN when there is none.
func (b Beside) ask(ctx context.Context, method, address, token string, body []byte, limit int64, v any) error {
	ctx, cancel := context.WithTimeout(ctx, besideTime)
	defer cancel()
	unreachable := signalling.Refuse(http.StatusBadGateway, "M_UNKNOWN", "the homeserver does not answer")
	r, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return unreachable.Because(errors.New("there is no such URL"))
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := b.Client.Do(r)
	if err != nil {
		var with *url.Error // names the URL, and in it perhaps a token, which is nothing for a log
		if errors.As(err, &with) {
			err = with.Err
		}
		return unreachable.Because(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, limit+1))
	switch {
	case err != nil:
		return unreachable.Because(err)
	case int64(len(text)) > limit:
		return unreachable.Because(errLong)
	case res.StatusCode != http.StatusOK:
		var e struct {
			Code string `json:"errcode"`
		}
		_ = json.Unmarshal(text, &e)
		if res.StatusCode < 400 || res.StatusCode >= 500 || e.Code == "" { // not a Matrix server's refusal
			return unreachable.Because(fmt.Errorf("%s %s: status %d", method, r.URL.Path, res.StatusCode))
		}
		return signalling.Refuse(res.StatusCode, e.Code, "the homeserver refuses")
	}
	if err := json.Unmarshal(text, v); err != nil {
		return unreachable.Because(err)
	}
	return nil
}

// asAdmin asks Synapse's admin API. Errors: 404 M_NOT_FOUND as it is; 502 M_UNKNOWN for everything else, so that nobody is held to be gone
// because a proxy or another program answers, or because the token is not, or no longer, an administrator's.
func (b Beside) asAdmin(ctx context.Context, path string, v any) error {
	err := b.ask(ctx, http.MethodGet, b.URL+"/_synapse/admin"+path, b.Token, nil, besideList, v)
	if e := signalling.AsError(err); err != nil && e.Status < 500 && e.Code != "M_NOT_FOUND" {
		err = untold().Because(err)
	}
	return err
}

func untold() *signalling.Error {
	return signalling.Refuse(http.StatusBadGateway, "M_UNKNOWN", "the homeserver does not say who is in the room")
}

func notFound(err error) bool { return err != nil && signalling.AsError(err).Code == "M_NOT_FOUND" }

// segment is a name as one part of a path. ok is false for those that would not stay one part when something in between decodes the path
// and tidies it up: "..", "a/../b".
func segment(name string) (escaped string, ok bool) {
	seen := "/" + strings.ReplaceAll(name, `\`, "/")
	return url.PathEscape(name), path.Clean(seen) == seen && !strings.ContainsFunc(name, unicode.IsControl)
}

// isUser says whether id is a user of a server.
func isUser(id, server string) bool {
	_, ok := segment(id)
	return ok && strings.HasPrefix(id, "@") && serverOf(id) == server && len(id) <= maxID
}

// OpenIDUser implements Homeserver.
func (b Beside) OpenIDUser(ctx context.Context, server, token string) (string, string, error) {
	refuse := signalling.Refuse(http.StatusUnauthorized, "M_UNAUTHORIZED", "the OpenID token is not good")
	var who struct {
		Sub string `json:"sub"`
	}
	at := b.at(server)
	switch {
	case at != "":
		err := b.ask(ctx, http.MethodGet, at+"/_matrix/federation/v1/openid/userinfo?access_token="+url.QueryEscape(token), "", nil, besideBody, &who)
		switch status := signalling.AsError(err).Status; {
		case err != nil && status == http.StatusNotFound: // it has no such endpoint there
			return "", "", signalling.Refuse(http.StatusBadGateway, "M_UNKNOWN", "the homeserver says nothing about OpenID tokens").Because(err)
		case err != nil && status < 500:
			return "", "", refuse
		case err != nil:
			return "", "", err
		}
	case b.Elsewhere != nil:
		var err error
		if who.Sub, err = b.Elsewhere.OpenIDUser(ctx, server, token); err != nil {
			return "", "", refuse.Because(err)
		}
	}
	if !isUser(who.Sub, server) { // also of a server that speaks for another one's users
		return "", "", refuse
	}
	return who.Sub, "", nil
}

// Present implements Homeserver: Synapse's admin API, GET /_synapse/admin/v1/users/{user}/joined_rooms, which knows the rooms of users of
// other servers too as far as its own users are in them; and LoggedIn.
func (b Beside) Present(ctx context.Context, roomID, userID, deviceID string) error {
	refuse := signalling.Forbidden("you are not in this room")
	user, ok := segment(userID)
	if server := serverOf(userID); !ok || b.at(server) == "" && b.Elsewhere == nil {
		return refuse
	}
	if b.Token == "" {
		return nil
	}
	var in struct {
		Rooms []string `json:"joined_rooms"`
	}
	switch err := b.asAdmin(ctx, "/v1/users/"+user+"/joined_rooms", &in); {
	case notFound(err): // a user whom it does not know
		return refuse
	case err != nil:
		return err
	case in.Rooms == nil: // an answer, but not to this
		return untold()
	case !slices.Contains(in.Rooms, roomID):
		return refuse
	}
	return b.LoggedIn(ctx, userID, deviceID)
}

// Joined implements Watch: Synapse's admin API, GET /_synapse/admin/v1/rooms/{room}/members.
func (b Beside) Joined(ctx context.Context, roomID string) ([]string, error) {
	room, ok := segment(roomID)
	if !ok {
		return nil, nil
	}
	var in struct {
		Members []string `json:"members"`
	}
	switch err := b.asAdmin(ctx, "/v1/rooms/"+room+"/members", &in); {
	case notFound(err), errors.Is(err, errLong):
		return nil, nil
	case err != nil:
		return nil, err
	case in.Members == nil:
		return nil, untold()
	}
	return in.Members, nil
}

// LoggedIn implements Watch: Synapse's admin API, GET /_synapse/admin/v2/users/{user}/devices. It knows the devices of its own users; those
// of other servers count as logged in.
func (b Beside) LoggedIn(ctx context.Context, userID, deviceID string) error {
	refuse := signalling.Forbidden("this device is not logged in")
	user, ok := segment(userID)
	switch {
	case b.Token == "" || deviceID == "" || serverOf(userID) != b.ServerName:
		return nil
	case !ok:
		return refuse
	}
	var in struct {
		Devices []struct {
			ID string `json:"device_id"`
		} `json:"devices"`
	}
	switch err := b.asAdmin(ctx, "/v2/users/"+user+"/devices", &in); {
	case notFound(err):
		return refuse
	case err != nil:
		return err
	case in.Devices == nil:
		return untold()
	}
	for _, d := range in.Devices {
		if d.ID == deviceID {
			return nil
		}
	}
	return refuse
}

// Delay implements Homeserver. Of another homeserver's event the name is told with the server before it.
func (b Beside) Delay(_ context.Context, userID, _, delayID string, claimed time.Duration) (string, time.Duration, error) {
	server := serverOf(userID)
	_, ok := segment(delayID)
	switch {
	case claimed <= 0:
		return "", 0, signalling.BadJSON("delay_timeout is needed")
	case b.at(server) == "":
		return "", 0, signalling.BadJSON("it is not known where the delayed events of %s are", server)
	case !ok || strings.Contains(delayID, " "):
		return "", 0, signalling.InvalidParam("delay_id names no delayed event")
	case server != b.ServerName:
		delayID = server + " " + delayID
	}
	return delayID, claimed, nil
}

func (b Beside) delayed(ctx context.Context, name, action string) error {
	at := b.URL
	if server, id, other := strings.Cut(name, " "); other {
		at, name = b.Related[server], id
	}
	var none struct{}
	return b.ask(ctx, http.MethodPost, at+"/_matrix/client/unstable/org.matrix.msc4140/delayed_events/"+url.PathEscape(name)+"/"+action, "", []byte("{}"), besideBody, &none)
}

// Restart implements matrixrtc.Events.
func (b Beside) Restart(ctx context.Context, delayID string) error {
	return b.delayed(ctx, delayID, "restart")
}

// Send implements matrixrtc.Events.
func (b Beside) Send(ctx context.Context, delayID string) error {
	return b.delayed(ctx, delayID, "send")
}

// Cancel implements matrixrtc.Events.
func (b Beside) Cancel(ctx context.Context, delayID string) error {
	return b.delayed(ctx, delayID, "cancel")
}
