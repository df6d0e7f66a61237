// SPDX-License-Identifier: Apache-2.0

package web

import (
	"net/http"
	"strings"
)

// The script by which pages of others show meetings of this server (Jitsi's IFrame API), and the names under which they ask for it.
const (
	externalAPI    = "external_api.js"
	externalAPIMin = "libs/external_api.min.js"
)

// scriptForOthers returns the file that a path means when it is that script. Clients of Jitsi as a service put a tenant before its name.
func scriptForOthers(name string) (string, bool) {
	switch {
	case name == externalAPI, name == externalAPIMin:
		return name, true
	case strings.Count(name, "/") == 1 && strings.HasSuffix(name, "/"+externalAPI):
		return externalAPI, true
	}
	return "", false
}

// openToOthers lets pages of any origin load what they ask for: the script is the same for everybody and holds no secret.
func openToOthers(h http.Header) {
	h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	h.Set("Access-Control-Allow-Origin", "*")
}
