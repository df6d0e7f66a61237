// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/signalling"
)

// routesLogin: "Login", "Refreshing access tokens", "Logout" and whoami.
func (a *API) routesLogin() {
	if a.Accounts == nil {
		return
	}
	flows := mustEncode(map[string]any{"flows": []map[string]any{{"type": accounts.StagePassword}, {"type": loginToken, "get_login_token": true}}})
	a.route("GET /_matrix/client/v3/login", Open, "requests", func(*Request) (any, error) { return flows, nil })
	a.route("POST /_matrix/client/v3/login", Open, "login", a.login)
	a.route("POST /_matrix/client/v1/login/get_token", Token, "login", a.getLoginToken)
	a.route("POST /_matrix/client/v3/refresh", Open, "requests", a.refresh)
	a.route("POST /_matrix/client/v3/logout", AnyUser, "requests", a.logout)
	a.route("POST /_matrix/client/v3/logout/all", AnyUser, "requests", a.logoutAll)
	a.route("GET /_matrix/client/v3/account/whoami", AnyUser, "requests", a.whoami)
}

const loginToken = "m.login.token"

func (a *API) login(r *Request) (any, error) {
	var in struct {
		Type        string               `json:"type"`
		Identifier  *accounts.Identifier `json:"identifier"`
		User        string               `json:"user"` // older form of identifier
		Password    *string              `json:"password"`
		Token       string               `json:"token"`
		DeviceID    string               `json:"device_id"`
		DisplayName string               `json:"initial_device_display_name"`
		Refresh     bool                 `json:"refresh_token"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	device := accounts.Login{DeviceID: in.DeviceID, DisplayName: in.DisplayName, Refresh: in.Refresh}
	if in.Type == loginToken {
		if in.Token == "" {
			return nil, signalling.MissingParam("token is needed")
		}
		t, err := a.Accounts.LoginByToken(r.Context(), in.Token, device)
		if err != nil {
			return nil, err
		}
		return a.tokens(t, true), nil
	}
	if in.Type != accounts.StagePassword {
		return nil, signalling.Refuse(400, "M_UNKNOWN", "this server does not know that way of logging in; GET on the same path lists the ways")
	}
	if in.Identifier == nil {
		in.Identifier = &accounts.Identifier{Type: "m.id.user", User: in.User}
	}
	id, err := a.Accounts.Identify(r.Context(), in.Identifier)
	if err != nil {
		return nil, err
	}
	if in.Password == nil {
		return nil, signalling.MissingParam("password is needed")
	}
	// By user too: many addresses may guess one password.
	if id != "" {
		if err := r.LimitBy("login", id); err != nil {
			return nil, err
		}
	}
	t, err := a.Accounts.LoginPassword(r.Context(), id, *in.Password, device)
	if err != nil {
		return nil, err
	}
	return a.tokens(t, true), nil
}

// getLoginToken makes a token that logs another device in. It asks who is there every time: no authentication of before counts.
func (a *API) getLoginToken(r *Request) (any, error) {
	var in struct {
		Auth *accounts.Auth `json:"auth"`
	}
	if err := r.DecodeIfAny(&in); err != nil {
		return nil, err
	}
	if err := r.confirm("make a log-in token", in.Auth); err != nil {
		return nil, err
	}
	token, err := a.Accounts.LoginToken(r.Context(), r.UserID)
	if err != nil {
		return nil, err
	}
	return map[string]any{"login_token": token, "expires_in_ms": accounts.LoginTokenTime.Milliseconds()}, nil
}

// tokens is the answer of a log-in, a registration or a refresh.
func (a *API) tokens(t accounts.Tokens, login bool) map[string]any {
	m := map[string]any{"access_token": t.AccessToken}
	if login {
		m["user_id"], m["device_id"], m["home_server"] = t.UserID, t.DeviceID, a.Config.ServerName
		if a.Config.PublicURL != "" {
			m["well_known"] = map[string]any{"m.homeserver": map[string]string{"base_url": a.Config.PublicURL}}
		}
	}
	if t.RefreshToken != "" {
		m["refresh_token"], m["expires_in_ms"] = t.RefreshToken, t.ExpiresIn.Milliseconds()
	}
	return m
}

func (a *API) refresh(r *Request) (any, error) {
	var in struct {
		RefreshToken string `json:"refresh_token"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	if in.RefreshToken == "" {
		return nil, signalling.MissingParam("refresh_token is needed")
	}
	t, err := a.Accounts.Refresh(r.Context(), in.RefreshToken)
	if err != nil {
		return nil, err
	}
	return a.tokens(t, false), nil
}

func (a *API) logout(r *Request) (any, error) {
	return nil, a.Accounts.DeleteDevices(r.Context(), r.UserID, r.DeviceID)
}

func (a *API) logoutAll(r *Request) (any, error) {
	return nil, a.Accounts.DeleteAllDevices(r.Context(), r.UserID, "")
}

func (a *API) whoami(r *Request) (any, error) {
	return struct {
		UserID   string `json:"user_id"`
		DeviceID string `json:"device_id,omitempty"`
		Guest    bool   `json:"is_guest"`
	}{r.UserID, r.DeviceID, r.Guest}, nil
}
