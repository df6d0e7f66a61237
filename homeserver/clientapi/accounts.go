// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"net/http"

	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/homeserver/delayed"
	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/signalling"
)

// routesAccounts: "Account registration and management", "Capabilities negotiation", and registration by tools.
func (a *API) routesAccounts() {
	if a.Accounts == nil {
		return
	}
	a.route("POST /_matrix/client/v3/register", Open, "requests", a.register)
	a.route("GET /_matrix/client/v3/register/available", Open, "requests", func(r *Request) (any, error) {
		if err := a.Accounts.Available(r.Context(), r.Param("username")); err != nil {
			return nil, err
		}
		return map[string]bool{"available": true}, nil
	})
	a.route("GET /_matrix/client/v1/register/m.login.registration_token/validity", Open, "registration", func(r *Request) (any, error) {
		if !r.HasParam("token") {
			return nil, signalling.MissingParam("token is needed")
		}
		ok, err := a.Accounts.RegistrationTokenValid(r.Context(), r.Param("token"))
		return map[string]bool{"valid": ok}, err
	})
	a.route("POST /_matrix/client/v3/account/password", Optional, "requests", a.changePassword)
	a.route("POST /_matrix/client/v3/account/deactivate", Token, "requests", a.deactivate)

	available := map[string]string{}
	for _, v := range event.Versions() {
		available[string(v)] = "stable"
	}
	for _, v := range event.Unstable() {
		available[string(v)] = "unstable"
	}
	newest := event.DefaultVersion
	if a.Rooms != nil {
		newest = a.Rooms.DefaultVersion()
	}
	enabled := func(b bool) map[string]bool { return map[string]bool{"enabled": b} }
	can := map[string]any{
		"m.room_versions":   map[string]any{"default": newest, "available": available},
		"m.change_password": enabled(true),
		"m.set_displayname": enabled(true),
		"m.set_avatar_url":  enabled(true),
		"m.profile_fields":  enabled(true),
		"m.3pid_changes":    enabled(a.Accounts.HasEmail()),
		"m.get_login_token": enabled(true),
	}
	if a.Delayed != nil {
		limits := map[string]int64{"max_delay_ms": delayed.MaxDelay.Milliseconds(), "max_scheduled": delayed.MaxScheduled}
		can["org.matrix.msc4140.delayed_events"], can["m.delayed_events"] = limits, limits
	}
	capabilities := mustEncode(map[string]any{"capabilities": can})
	can["m.account_moderation"] = map[string]bool{"lock": true, "suspend": true}
	ofAdmins := mustEncode(map[string]any{"capabilities": can})
	a.route("GET /_matrix/client/v3/capabilities", AnyUser, "requests", func(r *Request) (any, error) {
		if r.Admin {
			return ofAdmins, nil
		}
		return capabilities, nil
	})

	a.route("GET /_synapse/admin/v1/register", Open, "requests", func(*Request) (any, error) {
		nonce, err := a.Accounts.SharedSecretNonce()
		return map[string]string{"nonce": nonce}, err
	})
	a.route("POST /_synapse/admin/v1/register", Open, "requests", a.registerBySecret)
}

func (a *API) register(r *Request) (any, error) {
	kind := r.Param("kind")
	if kind != "" && kind != "user" && kind != "guest" {
		return nil, signalling.InvalidParam("kind must be user or guest")
	}
	var in struct {
		Username    string         `json:"username"`
		Password    string         `json:"password"`
		DeviceID    string         `json:"device_id"`
		DisplayName string         `json:"initial_device_display_name"`
		NoLogin     bool           `json:"inhibit_login"`
		Refresh     bool           `json:"refresh_token"`
		Guest       string         `json:"guest_access_token"`
		Auth        *accounts.Auth `json:"auth"`
	}
	if err := r.DecodeIfAny(&in); err != nil {
		return nil, err
	}
	login := &accounts.Login{DeviceID: in.DeviceID, DisplayName: in.DisplayName, Refresh: in.Refresh}
	if kind == "guest" {
		if !a.Accounts.GuestsAllowed() {
			return nil, signalling.Refuse(403, "M_GUEST_ACCESS_FORBIDDEN", "guests are not admitted on this server")
		}
		if err := r.Limit("registration"); err != nil {
			return nil, err
		}
		login.DeviceID = "" // chosen by the server, as the spec has it
		return a.create(r, accounts.NewUser{Guest: true, Login: login})
	}
	var guest string
	if in.Guest != "" {
		var err error
		if guest, err = a.Accounts.UpgradeGuest(r.Context(), in.Guest, in.Username); err != nil {
			return nil, err
		}
	} else if in.Username != "" {
		if err := a.Accounts.Available(r.Context(), in.Username); err != nil {
			return nil, err
		}
	}
	flows, err := a.Accounts.RegistrationFlows(r.Context())
	if err != nil {
		return nil, err
	}
	// A client asks again and again whether the link in its mail was followed; what it then shows cannot be guessed.
	if in.Auth != nil && in.Auth.Type != accounts.StageEmail {
		if err := r.Limit("registration"); err != nil {
			return nil, err
		}
	}
	if in.Password != "" {
		if err := a.Accounts.CheckPassword(in.Password); err != nil {
			return nil, err // before the stages, which do not have to be gone through again then
		}
	}
	proof, err := a.Accounts.Interact(r.Context(), accounts.OpRegister, "", flows, in.Auth)
	if err != nil {
		return nil, err
	}
	if in.Password == "" {
		return nil, signalling.MissingParam("a password is needed")
	}
	n := accounts.NewUser{Localpart: in.Username, Password: in.Password, Login: login, Token: proof[accounts.StageRegistrationToken], Email: proof[accounts.StageEmail], Upgrade: guest}
	if in.NoLogin {
		n.Login = nil
	}
	return a.create(r, n)
}

func (a *API) create(r *Request, n accounts.NewUser) (any, error) {
	t, err := a.Accounts.Create(r.Context(), n)
	if err != nil {
		return nil, err
	}
	if n.Login == nil {
		return map[string]string{"user_id": t.UserID, "home_server": a.Config.ServerName}, nil
	}
	return a.tokens(t, true), nil
}

// registerBySecret makes accounts for tools that know the shared secret, as Synapse does at the same path.
func (a *API) registerBySecret(r *Request) (any, error) {
	var in struct {
		Nonce       string  `json:"nonce"`
		Username    string  `json:"username"`
		DisplayName string  `json:"displayname"`
		Password    string  `json:"password"`
		Admin       bool    `json:"admin"`
		Type        *string `json:"user_type"`
		MAC         string  `json:"mac"`
		NoLogin     bool    `json:"inhibit_login"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	if in.Nonce == "" || in.Username == "" || in.MAC == "" {
		return nil, signalling.MissingParam("nonce, username, password and mac are needed")
	}
	n := accounts.NewUser{Localpart: in.Username, Password: in.Password, Admin: in.Admin, Name: in.DisplayName, Login: &accounts.Login{}}
	if in.Type != nil {
		n.Type = *in.Type
	}
	if in.NoLogin {
		n.Login = nil
	}
	t, err := a.Accounts.CreateBySharedSecret(r.Context(), in.Nonce, in.MAC, n)
	if err != nil {
		return nil, err
	}
	if n.Login == nil {
		return map[string]string{"user_id": t.UserID, "home_server": a.Config.ServerName}, nil
	}
	return a.tokens(t, true), nil
}

// confirm asks the caller for his password again before op, which names what is done and to what ("delete device ABC").
func (r *Request) confirm(op string, auth *accounts.Auth) error {
	if auth != nil && auth.Type == accounts.StagePassword {
		if err := r.LimitBy("login", r.UserID); err != nil {
			return err
		}
	}
	_, err := r.api.Accounts.Interact(r.Context(), op, r.UserID, [][]string{{accounts.StagePassword}}, auth)
	return err
}

// changePassword sets a new password for who is logged in, or for who has forgotten his and reads the account's e-mail.
func (a *API) changePassword(r *Request) (any, error) {
	var in struct {
		New    string         `json:"new_password"`
		Logout *bool          `json:"logout_devices"`
		Auth   *accounts.Auth `json:"auth"`
	}
	if err := r.DecodeIfAny(&in); err != nil {
		return nil, err
	}
	var flows [][]string
	if r.UserID != "" {
		flows = append(flows, []string{accounts.StagePassword})
	}
	if a.Accounts.HasEmail() {
		flows = append(flows, []string{accounts.StageEmail})
	}
	switch {
	case r.Guest:
		return nil, errGuest
	case flows == nil:
		return nil, signalling.Refuse(http.StatusUnauthorized, "M_MISSING_TOKEN", "this endpoint needs an access token, in the Authorization header")
	}
	if in.New != "" {
		if err := a.Accounts.CheckPassword(in.New); err != nil {
			return nil, err
		}
	}
	if r.UserID != "" && in.Auth != nil && in.Auth.Type == accounts.StagePassword {
		if err := r.LimitBy("login", r.UserID); err != nil {
			return nil, err
		}
	}
	proof, err := a.Accounts.Interact(r.Context(), "change password", r.UserID, flows, in.Auth)
	if err != nil {
		return nil, err
	}
	if in.New == "" {
		return nil, signalling.MissingParam("new_password is needed")
	}
	if sid := proof[accounts.StageEmail]; sid != "" {
		return nil, a.Accounts.ResetPassword(r.Context(), sid, r.UserID, in.New, in.Logout == nil || *in.Logout, r.DeviceID)
	}
	return nil, a.Accounts.SetPassword(r.Context(), r.UserID, in.New, in.Logout == nil || *in.Logout, r.DeviceID)
}

func (a *API) deactivate(r *Request) (any, error) {
	var in struct {
		Erase bool           `json:"erase"`
		Auth  *accounts.Auth `json:"auth"`
	}
	if err := r.DecodeIfAny(&in); err != nil {
		return nil, err
	}
	if err := r.confirm("deactivate", in.Auth); err != nil {
		return nil, err
	}
	if err := a.Accounts.Deactivate(r.Context(), r.UserID, in.Erase); err != nil {
		return nil, err
	}
	return map[string]string{"id_server_unbind_result": "no-support"}, nil
}
