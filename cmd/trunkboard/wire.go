// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"net/http"

	"github.com/trunkboard/trunkboard/configs"
	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/limit"
	"github.com/trunkboard/trunkboard/web"
)

// open makes every part that runs here and connects them. What it opened before an error is closed by Close.
func (a *App) open(ctx context.Context) error {
	api, site := http.Handler(http.HandlerFunc(unrecognised)), http.Handler(http.HandlerFunc(unrecognised))
	if a.has("homeserver") {
		h, err := a.openHomeserver(ctx)
		if err != nil {
			return err
		}
		api = h
	} else if err := a.openRelayUsers(ctx, nil); err != nil {
		return err
	}
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
	public := a.withFocus(a.withSFU(dispatch(a.count("api", a.endPolls(api)), a.count("web", site))))
	a.api.Store(&public)
	return nil
}

// rates names the limits as the API does.
func rates(l configs.Limits) map[string]limit.Rate {
	if !l.Enabled {
		return nil
	}
	out := map[string]limit.Rate{}
	for op, r := range map[string]configs.Rate{
		"registration": l.Registration, "login": l.Login, "emails": l.Emails, "calls": l.Calls, "signalling": l.Signalling, "messages": l.Messages, "joins": l.Joins, "invites": l.Invites,
		"uploads": l.Uploads, "requests": l.Requests, "federation": l.Federation,
	} {
		out[op] = limit.Rate{PerSecond: r.PerSecond(), Burst: r.Burst}
	}
	return out
}

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
