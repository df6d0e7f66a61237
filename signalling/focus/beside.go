// SPDX-License-Identifier: Apache-2.0

package focus

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/matrixrtc"
)

// Beside is a homeserver that runs elsewhere, asked over HTTP: for an SFU beside a Synapse. Whether a user is in a room it tells its
// administrators only; without a token of one of them that is not checked, as little as by lk-jwt-service.
type Beside struct {
	ServerName string
	URL        string            // of its client API, without a slash at the end
	Token      string            // of an administrator of the Synapse; "": none
	Related    map[string]string // other homeservers of the same people: the URL of the client API by name
	Elsewhere  Elsewhere         // nil: users of all other servers are refused
	Client     *http.Client
}

// Elsewhere asks other servers whom their OpenID tokens name: server-server API, GET /_matrix/federation/v1/openid/userinfo.
type Elsewhere interface {
	OpenIDUser(ctx context.Context, server, token string) (userID string, err error)
}

var (
	_ Homeserver       = Beside{}
	_ matrixrtc.Events = Beside{}
)

const (
	besideTime = 10 * time.Second
	besideBody = 64 << 10
	roomsBody  = 4 << 20 // bytes: the list of a user's rooms
)

// at is the URL of a homeserver that is known, "" for others.
func (b Beside) at(server string) string {
	if server == b.ServerName {
		return b.URL
	}
	return b.Related[server]
}

// ask sends a request and decodes the answer, of limit bytes at most, into v. Errors: those of the other server as they are, 502
// M_UNKNOWN when there is none.
func (b Beside) ask(ctx context.Context, method, url, token string, body []byte, limit int64, v any) error {
	ctx, cancel := context.WithTimeout(ctx, besideTime)
	defer cancel()
	unreachable := signalling.Refuse(http.StatusBadGateway, "M_UNKNOWN", "the homeserver does not answer")
	r, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return unreachable.Because(err)
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := b.Client.Do(r)
	if err != nil {
		return unreachable.Because(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, limit))
	if err != nil {
		return unreachable.Because(err)
	}
	if res.StatusCode != http.StatusOK {
		var e struct {
			Code string `json:"errcode"`
		}
		_ = json.Unmarshal(text, &e)
		if res.StatusCode >= 500 || e.Code == "" {
			return unreachable.Because(fmt.Errorf("%s %s: status %d", method, r.URL.Path, res.StatusCode))
		}
		return signalling.Refuse(res.StatusCode, e.Code, "the homeserver refuses")
	}
	if err := json.Unmarshal(text, v); err != nil {
		return unreachable.Because(err)
	}
	return nil
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
		if err := b.ask(ctx, http.MethodGet, at+"/_matrix/federation/v1/openid/userinfo?access_token="+url.QueryEscape(token), "", nil, besideBody, &who); err != nil {
			if signalling.AsError(err).Status >= 500 {
				return "", "", err
			}
			return "", "", refuse
		}
	case b.Elsewhere != nil:
		var err error
		if who.Sub, err = b.Elsewhere.OpenIDUser(ctx, server, token); err != nil {
			return "", "", refuse.Because(err)
		}
	}
	if !strings.HasPrefix(who.Sub, "@") || serverOf(who.Sub) != server { // also of a server that speaks for another one's users
		return "", "", refuse
	}
	return who.Sub, "", nil
}

// Present implements Homeserver: Synapse's admin API, GET /_synapse/admin/v1/users/{user}/joined_rooms, which knows the rooms of users of
// other servers too as far as its own users are in them.
func (b Beside) Present(ctx context.Context, roomID, userID, _ string) error {
	refuse := signalling.Forbidden("you are not in this room")
	if server := serverOf(userID); b.at(server) == "" && b.Elsewhere == nil {
		return refuse
	}
	if b.Token == "" {
		return nil
	}
	var in struct {
		Rooms []string `json:"joined_rooms"`
	}
	err := b.ask(ctx, http.MethodGet, b.URL+"/_synapse/admin/v1/users/"+url.PathEscape(userID)+"/joined_rooms", b.Token, nil, roomsBody, &in)
	switch status := signalling.AsError(err).Status; {
	case err != nil && status == http.StatusNotFound: // a user whom it does not know
		return refuse
	case err != nil && status < 500: // the token is not, or no longer, an administrator's
		return signalling.Refuse(http.StatusBadGateway, "M_UNKNOWN", "the homeserver does not say who is in the room").Because(err)
	case err != nil:
		return err
	case !slices.Contains(in.Rooms, roomID):
		return refuse
	}
	return nil
}

// Delay implements Homeserver. Of another homeserver's event the name is told with the server before it.
func (b Beside) Delay(_ context.Context, userID, _, delayID string, claimed time.Duration) (string, time.Duration, error) {
	server := serverOf(userID)
	switch {
	case claimed <= 0:
		return "", 0, signalling.BadJSON("delay_timeout is needed")
	case b.at(server) == "":
		return "", 0, signalling.BadJSON("it is not known where the delayed events of %s are", server)
	case strings.Contains(delayID, " "):
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
	path := "/_matrix/client/unstable/org.matrix.msc4140/delayed_events/" + url.PathEscape(name) + "/" + action
	return b.ask(ctx, http.MethodPost, at+path, "", []byte("{}"), besideBody, &none)
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
