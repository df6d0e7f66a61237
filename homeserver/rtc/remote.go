// SPDX-License-Identifier: Apache-2.0

package rtc

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/federation"
	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/focus"
)

// Servers is the other homeservers, over federation.
type Servers struct{ Client *federation.Client }

var (
	_ Remote       = Servers{}
	_ focus.Remote = Servers{}
)

const (
	remoteTime   = 10 * time.Second
	remoteAnswer = 64 << 10
)

// OpenIDUser implements Remote.
func (s Servers) OpenIDUser(ctx context.Context, server, token string) (string, error) {
	b, err := s.Client.Do(ctx, federation.Ask{
		Server: server, Path: "/_matrix/federation/v1/openid/userinfo?access_token=" + url.QueryEscape(token), Timeout: remoteTime, Limit: remoteAnswer,
	})
	if err != nil {
		return "", err
	}
	var who struct {
		Sub string `json:"sub"`
	}
	if err := json.Unmarshal(b, &who); err != nil {
		return "", err
	}
	return who.Sub, nil
}

// GetToken implements focus.Remote. The stable name of the endpoint is tried first, then the one that servers of 2026 have.
func (s Servers) GetToken(ctx context.Context, server string, q focus.RemoteRequest) (jwt string, err error) {
	body, err := json.Marshal(q)
	if err != nil {
		return "", err
	}
	var b []byte
	for _, base := range []string{"/_matrix/federation/v1", "/_matrix/federation/unstable/io.element.msc4195"} {
		b, err = s.Client.Do(ctx, federation.Ask{
			Server: server, Method: http.MethodPost, Path: base + "/rtc/livekit/get_token", Body: body, Timeout: remoteTime, Limit: remoteAnswer,
		})
		if err == nil || signalling.AsError(err).Code != "M_UNRECOGNIZED" {
			break
		}
	}
	if err != nil {
		return "", err
	}
	var answer struct {
		JWT string `json:"jwt"`
	}
	err = json.Unmarshal(b, &answer)
	return answer.JWT, err
}
