// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"net"
	"net/http"

	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/web"
)

// open makes every part that runs here and connects them. What it opened before an error is closed by Close.
func (a *App) open(context.Context) error {
	api, site := http.Handler(http.HandlerFunc(unrecognised)), http.Handler(http.HandlerFunc(unrecognised))
	if a.authority != nil {
		api = withAuthority(a.authority, api)
	}
	if a.has("web") {
		h, err := web.Handler()
		if err != nil {
			return err
		}
		site = h
	}
	public := dispatch(a.count("api", api), a.count("web", site))
	a.api.Store(&public)
	return nil
}

// relayConn takes over connections that turn out to speak TURN on an HTTPS port; nil when no relay runs here.
func (a *App) relayConn() func(net.Conn) { return nil }

func unrecognised(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Access-Control-Allow-Origin", "*")
	refuse(w, signalling.Unrecognized())
}

// withAuthority lets devices fetch the certificate of the local authority, to trust it.
func withAuthority(ca *authority, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != authorityPath {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/x-x509-ca-cert")
		w.Header().Set("Content-Disposition", `attachment; filename="trunkboard-ca.pem"`)
		w.Write(ca.Certificate())
	})
}

const authorityPath = "/_trunkboard/ca.pem"
