// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/signalling"
)

// emailPage is where the link in a mail leads.
const emailPage = "/_trunkboard/client/email"

// routesEmail: "Adding Account Administrative Contact Information", and the mails that prove an address when somebody registers or
// has forgotten his password. There is no identity server: an address is this server's business alone.
func (a *API) routesEmail() {
	if a.Accounts == nil {
		return
	}
	const c = "/_matrix/client/v3"
	a.route("POST "+c+"/register/email/requestToken", Open, "requests", a.requestEmail(accounts.EmailRegister))
	a.route("POST "+c+"/account/password/email/requestToken", Open, "requests", a.requestEmail(accounts.EmailReset))
	a.route("POST "+c+"/account/3pid/email/requestToken", Optional, "requests", a.requestEmail(accounts.EmailAdd))
	for _, path := range []string{"/register", "/account/password", "/account/3pid"} {
		a.route("POST "+c+path+"/msisdn/requestToken", Open, "requests", a.requestSMS)
	}
	a.route("GET "+c+"/account/3pid", Token, "requests", a.emails)
	a.route("POST "+c+"/account/3pid", Token, "requests", a.bind(func(in bindRequest) *bindRequest { return in.Creds }))
	a.route("POST "+c+"/account/3pid/bind", Token, "requests", a.bind(func(in bindRequest) *bindRequest { return &in }))
	a.route("POST "+c+"/account/3pid/add", Token, "requests", a.addEmail)
	a.route("POST "+c+"/account/3pid/delete", Token, "requests", a.deleteEmail)
	a.route("POST "+c+"/account/3pid/unbind", Token, "requests", a.unbind)
	a.route("GET "+emailPage, Open, "requests", a.showEmailLink)
	a.route("POST "+emailPage, Open, "requests", a.followEmailLink)
	a.route("GET "+emailPage+"/done", Open, "requests", func(r *Request) (any, error) { return r.page(http.StatusOK, pageDone) })
}

// checkSecret checks the form of a client_secret.
func checkSecret(s string) error {
	if s == "" || len(s) > 255 || strings.Trim(s, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.=_-") != "" {
		return signalling.InvalidParam("client_secret has 1 to 255 of the characters 0-9 a-z A-Z . = _ -")
	}
	return nil
}

func (a *API) requestEmail(purpose string) Handler {
	return func(r *Request) (any, error) {
		var in struct {
			Secret   *string `json:"client_secret"`
			Email    *string `json:"email"`
			Attempt  *int64  `json:"send_attempt"`
			NextLink string  `json:"next_link"`
		}
		if err := r.Decode(&in); err != nil {
			return nil, err
		}
		if !a.Accounts.HasEmail() {
			return nil, accounts.ErrNoEmail
		}
		if in.Secret == nil || in.Email == nil || in.Attempt == nil {
			return nil, signalling.MissingParam("client_secret, email and send_attempt are needed")
		}
		if err := checkSecret(*in.Secret); err != nil {
			return nil, err
		}
		if *in.Attempt < 1 || *in.Attempt > 1<<53 {
			return nil, signalling.InvalidParam("send_attempt counts from 1")
		}
		address, err := accounts.ParseAddress(*in.Email)
		if err != nil {
			return nil, err
		}
		// Mails are written to others at a stranger's wish: they are counted by who asks and by who is written to.
		for _, key := range []string{r.Addr(), "to " + address} {
			if err := r.LimitBy("emails", key); err != nil {
				return nil, err
			}
		}
		sid, err := a.Accounts.RequestEmail(r.Context(), accounts.EmailRequest{
			Purpose: purpose, Address: address, Secret: *in.Secret, Attempt: *in.Attempt, NextLink: a.ownLink(in.NextLink),
			Link: func(sid, token string) string {
				return a.Config.PublicURL + emailPage + "?" + url.Values{"sid": {sid}, "token": {token}}.Encode()
			},
		})
		return map[string]string{"sid": sid}, err
	}
}

// ownLink is a link that somebody else wrote, if it leads to this server, and "" otherwise: a mail of ours must not send its reader
// anywhere else.
func (a *API) ownLink(link string) string {
	u, err := url.Parse(link)
	own, ownErr := url.Parse(a.Config.PublicURL)
	if link == "" || len(link) > 2048 || err != nil || ownErr != nil || a.Config.PublicURL == "" || u.Scheme != own.Scheme || u.Host != own.Host || u.User != nil {
		return ""
	}
	return u.String()
}

func (a *API) requestSMS(r *Request) (any, error) {
	var in struct {
		Secret  *string `json:"client_secret"`
		Country *string `json:"country"`
		Phone   *string `json:"phone_number"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	return nil, signalling.Refuse(http.StatusBadRequest, "M_THREEPID_MEDIUM_NOT_SUPPORTED", "this server knows no telephone numbers")
}

func (a *API) emails(r *Request) (any, error) {
	all, err := a.Accounts.Emails(r.Context(), r.UserID)
	if err != nil {
		return nil, err
	}
	type threepid struct {
		Medium    string `json:"medium"`
		Address   string `json:"address"`
		Validated int64  `json:"validated_at"`
		Added     int64  `json:"added_at"`
	}
	out := make([]threepid, len(all))
	for i, e := range all {
		out[i] = threepid{"email", e.Address, e.ValidatedTS, e.AddedTS}
	}
	return map[string]any{"threepids": out}, nil
}

type bindRequest struct {
	Secret *string      `json:"client_secret"`
	Server *string      `json:"id_server"`
	Token  *string      `json:"id_access_token"`
	SID    *string      `json:"sid"`
	Creds  *bindRequest `json:"three_pid_creds"`
}

// bind tells that no identity server is known here with which an address could be published.
func (a *API) bind(creds func(bindRequest) *bindRequest) Handler {
	return func(r *Request) (any, error) {
		var in bindRequest
		if err := r.Decode(&in); err != nil {
			return nil, err
		}
		c := creds(in)
		if c == nil || c.Secret == nil || c.Server == nil || c.Token == nil || c.SID == nil {
			return nil, signalling.MissingParam("client_secret, id_server, id_access_token and sid are needed")
		}
		return nil, signalling.Refuse(http.StatusBadRequest, "M_SERVER_NOT_TRUSTED", "this server works with no identity server; use /account/3pid/add")
	}
}

func (a *API) addEmail(r *Request) (any, error) {
	var in struct {
		Auth   *accounts.Auth `json:"auth"`
		Secret string         `json:"client_secret"`
		SID    string         `json:"sid"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	if !a.Accounts.HasEmail() {
		return nil, accounts.ErrNoEmail
	}
	if in.SID == "" || in.Secret == "" {
		return nil, signalling.MissingParam("sid and client_secret are needed")
	}
	if err := r.confirm("add e-mail address "+in.SID, in.Auth); err != nil {
		return nil, err
	}
	return nil, a.Accounts.AddEmail(r.Context(), r.UserID, &accounts.EmailProof{SID: in.SID, Secret: in.Secret})
}

type threepid struct {
	Medium  string `json:"medium"`
	Address string `json:"address"`
}

func (r *Request) threepid() (t threepid, err error) {
	if err := r.Decode(&t); err != nil {
		return t, err
	}
	if t.Medium == "" || t.Address == "" {
		return t, signalling.MissingParam("medium and address are needed")
	}
	if t.Medium != "email" && t.Medium != "msisdn" {
		return t, signalling.InvalidParam("medium must be email or msisdn")
	}
	return t, nil
}

// unbound says that no identity server was told of an address, so none has to forget it.
var unbound = Raw(`{"id_server_unbind_result":"no-support"}`)

func (a *API) deleteEmail(r *Request) (any, error) {
	t, err := r.threepid()
	if err != nil {
		return nil, err
	}
	address := t.Address
	if t.Medium != "email" {
		address = "" // no account has one
	}
	return unbound, a.Accounts.DeleteEmail(r.Context(), r.UserID, address)
}

func (a *API) unbind(r *Request) (any, error) {
	_, err := r.threepid()
	return unbound, err
}
