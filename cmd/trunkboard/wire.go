// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"

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
	if err := a.openFocusBeside(); err != nil {
		return err
	}
	if a.authority != nil {
		api = withAuthority(a.authority, api)
	}
	if a.has("web") {
		h, err := a.openWeb()
		if err != nil {
			return err
		}
		site = h
	}
	public := a.withMeetings(a.withFocus(a.withSFU(dispatch(a.count("api", a.endPolls(api)), a.count("web", site)))))
	a.api.Store(&public)
	return nil
}

// openWeb serves the web client, and beside it Element Call's files if they are in the data folder.
func (a *App) openWeb() (http.Handler, error) {
	meetings, err := configs.ParseMeetings(a.cfg.Meetings.Options)
	if err != nil {
		return nil, err
	}
	options := web.Options{PublicURL: a.publicURL(), EmbedFrom: meetings.EmbedFrom}
	if a.cfg.Web.ElementCall != "" {
		options.ElementCall = strings.TrimSuffix(a.cfg.Web.ElementCall, "/") + "/"
		return web.Handler(options)
	}
	folder := filepath.Join(a.cfg.DataDir, "element-call")
	if _, err := os.Stat(filepath.Join(folder, "index.html")); err != nil {
		return web.Handler(options)
	}
	options.ElementCall = web.ElementCallPath
	client, err := web.Handler(options)
	if err != nil {
		return nil, err
	}
	files := http.StripPrefix(strings.TrimSuffix(web.ElementCallPath, "/"), web.Folder(os.DirFS(folder)))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, web.ElementCallPath) {
			files.ServeHTTP(w, r)
			return
		}
		client.ServeHTTP(w, r)
	}), nil
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
