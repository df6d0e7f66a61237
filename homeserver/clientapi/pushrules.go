// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/trunkboard/trunkboard/homeserver/push"
	"github.com/trunkboard/trunkboard/signalling"
)

// routesPush: "Push notifications".
func (a *API) routesPush() {
	if a.Push == nil {
		return
	}
	const rules = "/_matrix/client/v3/pushrules"
	for _, slash := range []string{"", "/{$}"} {
		a.route("GET "+rules+slash, AnyUser, "requests", a.pushRules)
		a.route("GET "+rules+"/{scope}"+slash, AnyUser, "requests", a.pushRulesOfScope)
		a.route("GET "+rules+"/{scope}/{kind}"+slash, AnyUser, "requests", a.pushRulesOfKind)
	}
	const one = rules + "/{scope}/{kind}/{rule}"
	a.route("GET "+one, AnyUser, "requests", a.pushRule)
	a.route("PUT "+one, Token, "requests", a.pushRulePut)
	a.route("DELETE "+one, Token, "requests", a.pushRuleDelete)
	a.route("GET "+one+"/{what}", AnyUser, "requests", a.pushRulePart)
	a.route("PUT "+one+"/{what}", Token, "requests", a.pushRuleSetPart)
	a.route("GET /_matrix/client/v3/pushers", Token, "requests", a.pushers)
	a.route("POST /_matrix/client/v3/pushers/set", Token, "requests", a.pusherSet)
	if a.Rooms != nil {
		a.route("GET /_matrix/client/v3/notifications", Token, "requests", a.notifications)
	}
	a.advertise("org.matrix.msc3881")
}

// maxNotifications bounds a page of notifications.
const maxNotifications = 100

func (a *API) notifications(r *Request) (any, error) {
	limit, err := r.IntParam("limit", 10, 1, maxNotifications)
	if err != nil {
		return nil, err
	}
	list, next, err := a.Push.Notifications(r.Context(), a.Rooms, r.UserID, r.DeviceID, r.Param("from"), int(limit), slices.Contains(strings.Split(r.Param("only"), ","), "highlight"))
	if err != nil {
		return nil, err
	}
	out := map[string]any{"notifications": list}
	if next != "" {
		out["next_token"] = next
	}
	return out, nil
}

func (a *API) pushRules(r *Request) (any, error) {
	content, _, err := a.Push.RulesJSON(r.Context(), r.UserID)
	return content, err
}

// scope checks the only scope there is.
func (r *Request) pushScope() error {
	if r.PathValue("scope") != "global" {
		return signalling.InvalidParam("the only scope of push rules is global")
	}
	return nil
}

// pushKind gives kind and rule id of the path.
func (r *Request) pushKind() (push.Kind, string, error) {
	if err := r.pushScope(); err != nil {
		return "", "", err
	}
	k, err := push.ParseKind(r.PathValue("kind"))
	return k, r.PathValue("rule"), err
}

func (a *API) pushRulesOfScope(r *Request) (any, error) {
	if err := r.pushScope(); err != nil {
		return nil, err
	}
	return a.Push.Rules(r.Context(), r.UserID)
}

func (a *API) pushRulesOfKind(r *Request) (any, error) {
	k, _, err := r.pushKind()
	if err != nil {
		return nil, err
	}
	rules, err := a.Push.Rules(r.Context(), r.UserID)
	if err != nil {
		return nil, err
	}
	return rules.Of(k), nil
}

func (a *API) pushRule(r *Request) (any, error) {
	if err := r.pushScope(); err != nil {
		return nil, err
	}
	k, err := push.ParseKind(r.PathValue("kind"))
	if err != nil {
		return nil, signalling.NotFound("there is no such kind of push rules, and so no such rule").Because(err)
	}
	id := r.PathValue("rule")
	rules, err := a.Push.Rules(r.Context(), r.UserID)
	if err != nil {
		return nil, err
	}
	if rule := rules.Find(k, id); rule != nil {
		return rule, nil
	}
	return nil, signalling.NotFound("there is no such push rule")
}

func (a *API) pushRulePut(r *Request) (any, error) {
	k, id, err := r.pushKind()
	if err != nil {
		return nil, err
	}
	var body struct {
		Actions    []json.RawMessage `json:"actions"`
		Conditions []json.RawMessage `json:"conditions"`
		Pattern    *string           `json:"pattern"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	rule := push.Rule{ID: id, Actions: body.Actions, Conditions: body.Conditions, Pattern: body.Pattern}
	return nil, a.Push.Put(r.Context(), r.UserID, k, rule, r.Param("before"), r.Param("after"))
}

func (a *API) pushRuleDelete(r *Request) (any, error) {
	k, id, err := r.pushKind()
	if err != nil {
		return nil, err
	}
	return nil, a.Push.Delete(r.Context(), r.UserID, k, id)
}

func noSuchPart() error {
	return signalling.InvalidParam("of a push rule, enabled and actions can be asked for")
}

func (a *API) pushRulePart(r *Request) (any, error) {
	v, err := a.pushRule(r)
	if err != nil {
		return nil, err
	}
	rule := v.(*push.Rule)
	switch r.PathValue("what") {
	case "enabled":
		return map[string]bool{"enabled": rule.Enabled}, nil
	case "actions":
		return map[string][]json.RawMessage{"actions": rule.Actions}, nil
	}
	return nil, noSuchPart()
}

func (a *API) pushRuleSetPart(r *Request) (any, error) {
	k, id, err := r.pushKind()
	if err != nil {
		return nil, err
	}
	switch r.PathValue("what") {
	case "enabled":
		var body struct {
			Enabled *bool `json:"enabled"`
		}
		if err := r.Decode(&body); err != nil {
			return nil, err
		}
		if body.Enabled == nil {
			return nil, signalling.MissingParam("enabled is missing")
		}
		return nil, a.Push.Enable(r.Context(), r.UserID, k, id, *body.Enabled)
	case "actions":
		var body struct {
			Actions []json.RawMessage `json:"actions"`
		}
		if err := r.Decode(&body); err != nil {
			return nil, err
		}
		return nil, a.Push.SetActions(r.Context(), r.UserID, k, id, body.Actions)
	}
	return nil, noSuchPart()
}

func (a *API) pushers(r *Request) (any, error) {
	list, err := a.Push.PushersJSON(r.Context(), r.UserID)
	return map[string]json.RawMessage{"pushers": list}, err
}

func (a *API) pusherSet(r *Request) (any, error) {
	var body struct {
		push.Pusher
		Kind   json.RawMessage `json:"kind"` // null deletes, missing is an error
		Append bool            `json:"append"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	switch {
	case body.Kind == nil:
		return nil, signalling.MissingParam("kind is missing")
	case string(body.Kind) == "null":
		return nil, a.Push.DeletePusher(r.Context(), r.UserID, body.Pusher)
	}
	if err := json.Unmarshal(body.Kind, &body.Pusher.Kind); err != nil {
		return nil, signalling.BadJSON("kind must be a string or null")
	}
	return nil, a.Push.SetPusher(r.Context(), r.UserID, r.DeviceID, body.Pusher, !body.Append)
}
