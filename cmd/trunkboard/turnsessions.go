// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/turn"
)

// The relay's sessions on the private port: who relays what, and an end to it.
//
//	GET    /turn/sessions              ?user= narrows the list: {"sessions": [turn.Session…]}
//	DELETE /turn/sessions/{id}         ends one: {"ended": 1}
//	DELETE /turn/sessions?user=NAME    ends all of a user
//
// They are answered to this machine only. The port may be open to whoever reads metrics, who has no business ending calls; and a browser on this
// machine is kept out by the name in its Host header, for a page that has its own name point here would be of the same origin.
func (a *App) relaySessions(mux *http.ServeMux) {
	here := func(serve http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			from, err := netip.ParseAddrPort(r.RemoteAddr)
			host := r.Host
			if h, _, err := net.SplitHostPort(host); err == nil {
				host = h
			}
			named, notAddress := netip.ParseAddr(host)
			switch {
			case err != nil || !from.Addr().Unmap().IsLoopback() || !(host == "localhost" || notAddress == nil && named.Unmap().IsLoopback()):
				refuse(w, signalling.Forbidden("sessions are told to this machine only: ask 127.0.0.1, or run trunkboard turn sessions"))
			case a.relay == nil:
				refuse(w, signalling.NotFound("no relay runs here"))
			default:
				serve(w, r)
			}
		}
	}
	mux.HandleFunc("GET /turn/sessions", here(func(w http.ResponseWriter, r *http.Request) {
		list := a.relay.server.Sessions()
		if user := r.URL.Query().Get("user"); user != "" {
			kept := list[:0]
			for _, s := range list {
				if s.User == user {
					kept = append(kept, s)
				}
			}
			list = kept
		}
		writeJSON(w, http.StatusOK, sessionList{Sessions: list})
	}))
	mux.HandleFunc("DELETE /turn/sessions/{id}", here(func(w http.ResponseWriter, r *http.Request) {
		id, err := strconv.ParseUint(r.PathValue("id"), 10, 64)
		if err != nil || a.relay.server.EndSessions(func(s turn.Session) bool { return s.ID == id }) == 0 {
			refuse(w, signalling.NotFound("there is no session %s", r.PathValue("id")))
			return
		}
		writeJSON(w, http.StatusOK, map[string]int{"ended": 1})
	}))
	mux.HandleFunc("DELETE /turn/sessions", here(func(w http.ResponseWriter, r *http.Request) {
		user := r.URL.Query().Get("user")
		if user == "" {
			refuse(w, signalling.Refuse(http.StatusBadRequest, "M_MISSING_PARAM", "whose? ?user=NAME"))
			return
		}
		writeJSON(w, http.StatusOK, map[string]int{"ended": a.relay.server.EndSessions(func(s turn.Session) bool { return s.User == user })})
	}))
}

type sessionList struct {
	Sessions []turn.Session `json:"sessions"`
}

// askRelay sends a request to the private port of the server that runs with these settings.
func (s settings) askRelay(to streams, method, path string, into any) error {
	cfg, err := s.load(to)
	if err != nil {
		return err
	}
	if cfg.Listen.Metrics == "" {
		return errors.New("listen.metrics is off, and with it the way to ask a relay that runs")
	}
	_, port, err := net.SplitHostPort(cfg.Listen.Metrics)
	if err != nil {
		return fmt.Errorf("listen.metrics: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, "http://"+net.JoinHostPort("127.0.0.1", port)+path, nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return fmt.Errorf("is it running, with the same listen.metrics? %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		var why struct{ Error string }
		if err := json.NewDecoder(io.LimitReader(answer.Body, 64<<10)).Decode(&why); err != nil || why.Error == "" {
			return errors.New(answer.Status)
		}
		return errors.New(why.Error)
	}
	return json.NewDecoder(answer.Body).Decode(into)
}

type turnSessions struct {
	settings
	User string `placeholder:"NAME" help:"Only those of this user."`
}

// Run prints a table.
func (c *turnSessions) Run(to streams) error {
	var list sessionList
	if err := c.askRelay(to, http.MethodGet, "/turn/sessions?user="+url.QueryEscape(c.User), &list); err != nil {
		return err
	}
	w := tabwriter.NewWriter(to.out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tUSER\tREALM\tCLIENT\tOVER\tRELAYS\tSINCE\tTO PEERS\tTO CLIENT")
	for _, s := range list.Sessions {
		relays := ""
		for i, r := range s.Relays {
			if i > 0 {
				relays += " "
			}
			relays += r.String()
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%d B\t%d B\n", s.ID, strconv.Quote(s.User), strconv.Quote(s.Realm), s.Client, s.Transport, relays,
			s.Started.UTC().Format(time.RFC3339), s.ToPeer.Bytes, s.ToClient.Bytes)
	}
	return w.Flush()
}

type turnEnd struct {
	settings
	ID   uint64 `arg:"" optional:"" help:"The session, as trunkboard turn sessions names it."`
	User string `placeholder:"NAME" help:"All sessions of this user instead."`
}

// Run ends sessions.
func (c *turnEnd) Run(to streams) error {
	if (c.ID == 0) == (c.User == "") {
		return errors.New("name a session, or a user with --user")
	}
	path := "/turn/sessions/" + strconv.FormatUint(c.ID, 10)
	if c.User != "" {
		path = "/turn/sessions?user=" + url.QueryEscape(c.User)
	}
	var done struct{ Ended int }
	if err := c.askRelay(to, http.MethodDelete, path, &done); err != nil {
		return err
	}
	_, err := fmt.Fprintf(to.out, "%d ended\n", done.Ended)
	return err
}
