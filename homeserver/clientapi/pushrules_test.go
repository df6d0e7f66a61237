// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/push"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/signalling"
)

func pushAPI(t *testing.T, s *storage.Store) string {
	t.Helper()
	return frame(t, Deps{Push: push.New(s, signalling.SystemClock{}, slog.New(slog.DiscardHandler))}, func(*API) {})
}

func TestPushRulesOverHTTP(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, s *storage.Store) {
		base := pushAPI(t, s)
		const rules = "/_matrix/client/v3/pushrules/"
		for _, c := range []struct{ method, path, body, key, want string }{
			{"GET", rules, "", "global.underride.0.rule_id", ".m.rule.call"},
			{"GET", strings.TrimSuffix(rules, "/"), "", "global.override.0.rule_id", ".m.rule.master"},
			{"GET", rules + "global/", "", "override.0.enabled", "false"},
			{"PUT", rules + "global/room/%21foo:example.com", `{"actions":["notify"]}`, "@this", "{}"},
			{"GET", rules + "global/room/%21foo:example.com", "", "@this", `{"rule_id":"!foo:example.com","default":false,"enabled":true,"actions":["notify"]}`},
			{"PUT", rules + "global/room/!foo:example.com/enabled", `{"enabled":false}`, "@this", "{}"},
			{"GET", rules + "global/room/!foo:example.com/enabled", "", "@this", `{"enabled":false}`},
			{"PUT", rules + "global/room/!foo:example.com/actions", `{"actions":["dont_notify"]}`, "@this", "{}"},
			{"GET", rules + "global/room/!foo:example.com/actions", "", "@this", `{"actions":["dont_notify"]}`},
			{"PUT", rules + "global/content/cake", `{"pattern":"cake*lie","actions":["notify",{"set_tweak":"sound","value":"a.wav"}]}`, "@this", "{}"},
			{"PUT", rules + "global/content/tea?after=cake", `{"pattern":"tea","actions":[]}`, "@this", "{}"},
			{"GET", rules + "global/content/", "", "#.rule_id", `["cake","tea",".m.rule.contains_user_name"]`},
			{"PUT", rules + "global/override/.m.rule.master/enabled", `{"enabled":true}`, "@this", "{}"},
			{"GET", rules, "", "global.override.0.enabled", "true"},
			{"DELETE", rules + "global/content/cake", "", "@this", "{}"},
			{"GET", rules + "global", "", "content.#.rule_id", `["tea",".m.rule.contains_user_name"]`},
		} {
			res, body := ask(t, c.method, base+c.path, "alice", "", c.body)
			if got := gjson.Get(body, c.key).String(); res.StatusCode != 200 || got != c.want {
				t.Errorf("%s %s: %d %s, want %s", c.method, c.path, res.StatusCode, got, c.want)
			}
		}
		for what, c := range map[string]struct {
			method, path, body string
			status             int
			code               string
		}{
			"scope":                {"GET", "device/", "", 400, "M_INVALID_PARAM"},
			"kind":                 {"GET", "global/unknown/", "", 400, "M_INVALID_PARAM"},
			"rule of unknown kind": {"GET", "global/unknown/x", "", 404, "M_NOT_FOUND"},
			"put of unknown kind":  {"PUT", "global/unknown/x", `{"actions":[]}`, 400, "M_INVALID_PARAM"},
			"part":                 {"GET", "global/override/.m.rule.master/colour", "", 400, "M_INVALID_PARAM"},
			"rule":                 {"GET", "global/override/none", "", 404, "M_NOT_FOUND"},
			"rule of another kind": {"GET", "global/override/tea", "", 404, "M_NOT_FOUND"},
			"delete":               {"DELETE", "global/override/none", "", 404, "M_NOT_FOUND"},
			"reserved":             {"PUT", "global/override/.mine", `{"actions":[]}`, 400, "M_INVALID_PARAM"},
			"slash":                {"PUT", "global/override/a%2Fb", `{"actions":[]}`, 400, "M_INVALID_PARAM"},
			"no actions":           {"PUT", "global/override/x", `{}`, 400, "M_MISSING_PARAM"},
			"actions as text":      {"PUT", "global/override/x", `{"actions":"notify"}`, 400, "M_BAD_JSON"},
			"before nobody":        {"PUT", "global/override/x?before=y", `{"actions":[]}`, 400, "M_UNKNOWN"},
			"no JSON":              {"PUT", "global/override/x", `{`, 400, "M_NOT_JSON"},
			"enabled by text":      {"PUT", "global/content/tea/enabled", `{"enabled":"yes"}`, 400, "M_BAD_JSON"},
			"enabled by nothing":   {"PUT", "global/content/tea/enabled", `{}`, 400, "M_MISSING_PARAM"},
			"NUL":                  {"PUT", "global/content/x", `{"pattern":"a\u0000b","actions":[]}`, 400, "M_BAD_JSON"},
		} {
			res, body := ask(t, c.method, base+rules+c.path, "alice", "", c.body)
			wantError(t, what, res.StatusCode, body, c.status, c.code)
		}
		res, body := ask(t, "GET", base+rules, "", "", "")
		wantError(t, "no token", res.StatusCode, body, 401, "M_MISSING_TOKEN")
	})
}

func TestPushersOverHTTP(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, s *storage.Store) {
		base := pushAPI(t, s)
		const set, get = "/_matrix/client/v3/pushers/set", "/_matrix/client/v3/pushers"
		pusher := `{"pushkey":"k","kind":"http","app_id":"a","app_display_name":"A","device_display_name":"D","lang":"en","data":{"url":"https://gw.test/_matrix/push/v1/notify","format":"event_id_only","x":[1]}}`
		list := func(user string) string {
			t.Helper()
			res, body := ask(t, "GET", base+get, user, "", "")
			if res.StatusCode != 200 {
				t.Fatalf("%d %s", res.StatusCode, body)
			}
			return body
		}
		must := func(user, body string) {
			t.Helper()
			if res, b := ask(t, "POST", base+set, user, "", body); res.StatusCode != 200 || b != "{}" {
				t.Fatalf("%d %s", res.StatusCode, b)
			}
		}
		must("alice", pusher)
		must("alice", pusher)
		shown := func(enabled string) string {
			return `{"pushers":[` + pusher[:len(pusher)-1] + `,"enabled":` + enabled + `,"org.matrix.msc3881.enabled":` + enabled + `,"device_id":"A","org.matrix.msc3881.device_id":"A"}]}`
		}
		if got, want := list("alice"), shown("true"); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		for _, field := range []string{"enabled", "org.matrix.msc3881.enabled"} {
			must("alice", strings.Replace(pusher, `{`, `{"`+field+`":false,"device_id":"another",`, 1))
			if got, want := list("alice"), shown("false"); got != want {
				t.Errorf("%s: got  %s\nwant %s", field, got, want)
			}
			must("alice", pusher)
			if got, want := list("alice"), shown("true"); got != want {
				t.Errorf("%s: got  %s\nwant %s", field, got, want)
			}
		}
		must("root", strings.Replace(pusher, `{`, `{"append":true,`, 1))
		if list("alice") == `{"pushers":[]}` {
			t.Error("append removed another user's pusher")
		}
		must("root", pusher)
		if got := list("alice"); got != `{"pushers":[]}` {
			t.Errorf("the device changed hands: %s", got)
		}
		must("root", `{"pushkey":"k","app_id":"a","kind":null}`)
		must("root", `{"pushkey":"k","app_id":"a","kind":null}`)
		if got := list("root"); got != `{"pushers":[]}` {
			t.Errorf("deleted: %s", got)
		}
		for what, c := range map[string][3]string{
			"no kind":      {`"kind":"http",`, ``, "M_MISSING_PARAM"},
			"other kind":   {`"kind":"http"`, `"kind":"pigeon"`, "M_INVALID_PARAM"},
			"kind as list": {`"kind":"http"`, `"kind":[]`, "M_BAD_JSON"},
			"no app":       {`"app_id":"a"`, `"app_id":""`, "M_MISSING_PARAM"},
			"long app":     {`"app_id":"a"`, `"app_id":"` + strings.Repeat("a", 65) + `"`, "M_INVALID_PARAM"},
			"long key":     {`"pushkey":"k"`, `"pushkey":"` + strings.Repeat("a", 513) + `"`, "M_INVALID_PARAM"},
			"no lang":      {`"lang":"en",`, ``, "M_MISSING_PARAM"},
			"other path":   {`/_matrix/push/v1/notify`, `/admin`, "M_INVALID_PARAM"},
			"other scheme": {`https://`, `file://`, "M_INVALID_PARAM"},
			"plain HTTP":   {`https://`, `http://`, "M_INVALID_PARAM"},
			"with a name":  {`https://`, `https://u:p@`, "M_INVALID_PARAM"},
			"no url":       {`"url":`, `"uri":`, "M_MISSING_PARAM"},
			"url as list":  {`"https://gw.test/_matrix/push/v1/notify"`, `[]`, "M_BAD_JSON"},
		} {
			res, body := ask(t, "POST", base+set, "alice", "", strings.Replace(pusher, c[0], c[1], 1))
			wantError(t, what, res.StatusCode, body, 400, c[2])
		}
	})
}
