// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"strings"

	"github.com/trunkboard/trunkboard/homeserver/httpapi"
	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/focus"
)

// routesDiscovery: "Server discovery" of the client-server API and of the server-server API. It comes last: it tells of the others.
func (a *API) routesDiscovery() {
	versions := mustEncode(map[string]any{
		"versions":          specVersions,
		"unstable_features": a.unstable,
	})
	a.route("GET /_matrix/client/versions", Open, "", func(*Request) (any, error) { return versions, nil })

	client := map[string]any{"m.homeserver": map[string]string{"base_url": a.Config.PublicURL}}
	a.route("GET /.well-known/matrix/client", Open, "", func(r *Request) (any, error) {
		if a.Config.PublicURL == "" {
			return nil, signalling.NotFound("this server does not know its public URL")
		}
		if a.Focus == nil {
			return client, nil
		}
		all := maps.Clone(client)
		// MSC4158, which MSC4143's /rtc/transports replaced; clients of 2025 look here.
		base := a.Focus.Base(r.Request)
		all["org.matrix.msc4143.rtc_foci"] = []transport{{Type: "livekit", ServiceURL: focus.ServiceURL(base)}}
		if _, domain, ok := strings.Cut(base, "://"); ok && a.Config.Meetings {
			all["io.element.jitsi"] = map[string]string{"preferredDomain": domain} // Element's clients put their Jitsi widgets there
		}
		return all, nil
	})
	a.route("GET /.well-known/matrix/server", Open, "", func(*Request) (any, error) {
		if a.Config.Federation == "" {
			return nil, signalling.NotFound("this server does not take part in federation")
		}
		return map[string]string{"m.server": a.Config.Federation}, nil
	})
	a.route("GET /.well-known/matrix/policy_server", Open, "requests", func(r *Request) (any, error) {
		if a.Config.Federation == "" || a.Rooms == nil {
			return nil, signalling.NotFound("this server does not take part in federation")
		}
		key, err := a.Rooms.PolicyKey(r.Context())
		return map[string]map[string]string{"public_keys": {"ed25519": base64.RawStdEncoding.EncodeToString(key)}}, err
	})
	support := supportOf(a.Config.Contact)
	a.route("GET /.well-known/matrix/support", Open, "", func(*Request) (any, error) {
		if len(support) == 0 {
			return nil, signalling.NotFound("nobody is named whom to ask about this server")
		}
		return support, nil
	})
}

// supportOf sorts contacts into what "Getting well-known support" tells of them.
func supportOf(list []string) map[string]any {
	out, people := map[string]any{}, []map[string]string{}
	for _, x := range list {
		switch {
		case strings.Contains(x, "://"):
			out["support_page"] = x
		case strings.HasPrefix(x, "@"):
			people = append(people, map[string]string{"role": "m.role.admin", "matrix_id": x})
		default:
			people = append(people, map[string]string{"role": "m.role.admin", "email_address": x})
		}
	}
	if len(people) > 0 {
		out["contacts"] = people
	}
	return out
}

// specVersions are the releases of the specification that clients may take as served. Each release only adds; what is missing from
// the newest ones answers M_UNRECOGNIZED.
var specVersions = []string{"v1.1", "v1.2", "v1.3", "v1.4", "v1.5", "v1.6", "v1.7", "v1.8", "v1.9", "v1.10", "v1.11", "v1.12"}

func mustEncode(v any) json.RawMessage {
	b, err := httpapi.Encode(v)
	if err != nil {
		panic(err) // a constant of the program that is not JSON
	}
	return b
}
