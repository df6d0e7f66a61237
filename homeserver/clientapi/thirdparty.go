// SPDX-License-Identifier: Apache-2.0

package clientapi

import "github.com/trunkboard/trunkboard/signalling"

// routesThirdParty: "Third-party Networks". They are reached through application services, of which this server has none: there is
// no protocol, so there is nothing to be found in one.
func (a *API) routesThirdParty() {
	const base = "GET /_matrix/client/v3/thirdparty/"
	none := func(*Request) (any, error) {
		return nil, signalling.NotFound("no third-party network is connected to this server")
	}
	a.route(base+"protocols", Token, "requests", func(*Request) (any, error) { return emptyObject, nil })
	for _, path := range []string{"protocol/{protocol}", "location/{protocol}", "user/{protocol}", "location", "user"} {
		a.route(base+path, Token, "requests", none)
	}
}
