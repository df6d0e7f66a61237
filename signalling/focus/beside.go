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
	"strings"
	"time"

	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/matrixrtc"
)

// Beside is a homeserver that runs elsewhere, asked over HTTP: for an SFU beside a Synapse. What such a server does not tell is not
// checked: whether a user is in the room. Users of other servers are refused.
type Beside struct {
	ServerName string
	URL        string // of its client API, without a slash at the end
	Client     *http.Client
}

var (
	_ Homeserver       = Beside{}
	_ matrixrtc.Events = Beside{}
)

const (
	besideTime = 10 * time.Second
	besideBody = 64 << 10
)

// ask sends a request and decodes the answer into v. Errors: those of the other server as they are, 502 M_UNKNOWN when there is none.
func (b Beside) ask(ctx context.Context, method, path string, body []byte, v any) error {
	ctx, cancel := context.WithTimeout(ctx, besideTime)
	defer cancel()
	unreachable := signalling.Refuse(http.StatusBadGateway, "M_UNKNOWN", "the homeserver does not answer")
	r, err := http.NewRequestWithContext(ctx, method, b.URL+path, bytes.NewReader(body))
	if err != nil {
		return unreachable.Because(err)
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	res, err := b.Client.Do(r)
	if err != nil {
		return unreachable.Because(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, besideBody))
	if err != nil {
		return unreachable.Because(err)
	}
	if res.StatusCode != http.StatusOK {
		var e struct {
			Code string `json:"errcode"`
		}
		_ = json.Unmarshal(text, &e)
		if res.StatusCode >= 500 || e.Code == "" {
			return unreachable.Because(fmt.Errorf("%s %s: status %d", method, path[:min(len(path), 40)], res.StatusCode))
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
	if server != b.ServerName {
		return "", "", refuse
	}
	var who struct {
		Sub string `json:"sub"`
	}
	if err := b.ask(ctx, http.MethodGet, "/_matrix/federation/v1/openid/userinfo?access_token="+url.QueryEscape(token), nil, &who); err != nil {
		if signalling.AsError(err).Status >= 500 {
			return "", "", err
		}
		return "", "", refuse
	}
	if !strings.HasPrefix(who.Sub, "@") || serverOf(who.Sub) != b.ServerName {
		return "", "", refuse
	}
	return who.Sub, "", nil
}

// Present implements Homeserver.
func (b Beside) Present(_ context.Context, _, userID, _ string) error {
	if serverOf(userID) != b.ServerName {
		return signalling.Forbidden("users of other servers have no place here")
	}
	return nil
}

// Delay implements Homeserver.
func (b Beside) Delay(_ context.Context, _, _, _ string, claimed time.Duration) (time.Duration, error) {
	if claimed <= 0 {
		return 0, signalling.BadJSON("delay_timeout is needed")
	}
	return claimed, nil
}

func (b Beside) delayed(ctx context.Context, id, action string) error {
	var none struct{}
	return b.ask(ctx, http.MethodPost, "/_matrix/client/unstable/org.matrix.msc4140/delayed_events/"+url.PathEscape(id)+"/"+action, []byte("{}"), &none)
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
