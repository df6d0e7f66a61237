// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/homeserver/httpapi/coveragetest"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
)

const loginAuth = `{"type":"m.login.password","session":"x","identifier":{"type":"m.id.user","user":"mallory"},"user":"mallory","password":"wrong"}`

// goodBodies has a body of every field that a route reads, by method and path without the prefix of the client API. A test fails
// when a route that takes a body is not here.
func goodBodies() map[string]string {
	key := `{"first_message_index":1,"forwarded_count":0,"is_verified":true,"session_data":{"a":"b"}}`
	backup := `{"algorithm":"m.megolm_backup.v1.curve25519-aes-sha2","auth_data":{"public_key":"x"},"version":"1"}`
	signed := `{"user_id":"@mallory:test","usage":["master"],"keys":{"ed25519:x":"x"},"signatures":{"@mallory:test":{"ed25519:x":"x"}}}`
	device := `{"user_id":"@mallory:test","device_id":"MALLORY","algorithms":["m.olm.v1.curve25519-aes-sha2"],"keys":{"ed25519:MALLORY":"x","curve25519:MALLORY":"y"},"signatures":{"@mallory:test":{"ed25519:MALLORY":"z"}}}`
	upload := `{"device_keys":` + device + `,"one_time_keys":{"signed_curve25519:A":{"key":"k","signatures":{"@mallory:test":{"ed25519:MALLORY":"z"}}}},"fallback_keys":{"signed_curve25519:F":{"key":"k","fallback":true,"signatures":{"@mallory:test":{"ed25519:MALLORY":"z"}}}}}`
	filter := `{"event_fields":["content.body"],"event_format":"client","presence":{"limit":1,"senders":["@a:test"],"not_senders":["b"],"types":["c*"],"not_types":["d"]},"account_data":{"limit":1,"types":["x"]},"room":{"rooms":["!a:test"],"not_rooms":["!b:test"],"include_leave":true,"timeline":{"limit":5,"types":["m.*"],"not_types":["x"],"senders":["@a:test"],"contains_url":true,"lazy_load_members":true,"include_redundant_members":true,"unread_thread_notifications":true},"state":{"types":["m.room.name"]},"ephemeral":{"limit":1},"account_data":{"limit":1}}}`
	sliding := `{"pos":"","timeout":0,"conn_id":"c","txn_id":"t","set_presence":"online","lists":{"all":{"ranges":[[0,10]],"range":[0,10],"timeline_limit":1,"required_state":[["m.room.name",""]],"filters":{"is_dm":false,"spaces":["!a:test"],"is_encrypted":false,"is_invite":false,"room_types":[null,"m.space"],"not_room_types":["x"],"tags":["t"],"not_tags":["u"]},"include_heroes":true}},"room_subscriptions":{"!x:test":{"timeline_limit":1,"required_state":[["*","*"]]}},"extensions":{"to_device":{"enabled":true,"since":"1","limit":5},"e2ee":{"enabled":true},"account_data":{"enabled":true,"lists":["all"],"rooms":["*"]},"receipts":{"enabled":true,"lists":["*"]},"typing":{"enabled":true}}}`
	call := `{"call_id":"c","version":"1","party_id":"p","lifetime":60000,"offer":{"type":"offer","sdp":"v=0"},"invitee":"@x:test"}`
	member := `{"user_id":"@bob:test","reason":"r","medium":"email","address":"a@b","id_server":"s"}`
	return map[string]string{
		"POST /register":                       `{"username":"somebody","password":"long enough","device_id":"D","initial_device_display_name":"n","inhibit_login":true,"refresh_token":true,"auth":{"type":"m.login.dummy","session":"x"}}`,
		"POST /account/password":               `{"new_password":"long enough","logout_devices":false,"auth":` + loginAuth + `}`,
		"POST /account/deactivate":             `{"erase":false,"auth":` + loginAuth + `}`,
		"POST /_synapse/admin/v1/register":     `{"nonce":"n","username":"u","displayname":"d","password":"p","admin":false,"user_type":"bot","mac":"00","inhibit_login":true}`,
		"POST /room_keys/version":              backup,
		"PUT /room_keys/version/{version}":     backup,
		"PUT /room_keys/keys":                  `{"rooms":{"!r:test":{"sessions":{"s":` + key + `}}}}`,
		"PUT /room_keys/keys/{room}":           `{"sessions":{"s":` + key + `}}`,
		"PUT /room_keys/keys/{room}/{session}": key,
		"PUT /unstable/org.matrix.msc4140/rooms/{room}/delayed_event/{type}/{txn}": `{"delay_ms":86400000,"state_key":"k","content":{"a":"b"}}`,
		"POST /unstable/org.matrix.msc4140/delayed_events/{id}":                    `{"action":"cancel"}`,
		"POST /unstable/org.matrix.msc4140/delayed_events/{id}/cancel":             `{}`,
		"POST /unstable/org.matrix.msc4140/delayed_events/{id}/restart":            `{}`,
		"POST /unstable/org.matrix.msc4140/delayed_events/{id}/send":               `{}`,
		"PUT /devices/{deviceID}":                                                `{"display_name":"n"}`,
		"POST /delete_devices":                                                   `{"devices":["OTHER"],"auth":` + loginAuth + `}`,
		"DELETE /devices/{deviceID}":                                             `{"auth":` + loginAuth + `}`,
		"PUT /directory/room/{alias}":                                            `{"room_id":"!x:test"}`,
		"PUT /directory/list/room/{room}":                                        `{"visibility":"public"}`,
		"POST /publicRooms":                                                      `{"limit":5,"since":"1","server":"test","filter":{"generic_search_term":"x","room_types":[null,"m.space"]},"include_all_networks":false}`,
		"PUT /rooms/{room}/send/{type}/{txn}":                                    call,
		"PUT /rooms/{room}/redact/{event}/{txn}":                                 `{"reason":"r"}`,
		"PUT /rooms/{room}/state/{type}":                                         `{"name":"n","users":{"@mallory:test":100},"users_default":0,"events":{"m.room.name":50},"ban":50,"notifications":{"room":50},"membership":"join","join_rule":"public","allow":[{"type":"m.room_membership","room_id":"!x:test"}],"alias":"#a:test","alt_aliases":["#b:test"]}`,
		"PUT /rooms/{room}/state/{type}/{$}":                                     `{"history_visibility":"shared","pinned":["$x"],"url":"mxc://test/x","deny":["*"],"allow":["*"],"allow_ip_literals":false,"guest_access":"can_join"}`,
		"PUT /rooms/{room}/state/{type}/{key}":                                   `{"membership":"join","displayname":"d","avatar_url":"mxc://a/b","reason":"r","is_direct":true,"third_party_invite":{"display_name":"d","signed":{"mxid":"@a:test","token":"t"}},"join_authorised_via_users_server":"@a:test"}`,
		"POST /keys/upload":                                                      upload,
		"POST /keys/upload/{device}":                                             upload,
		"POST /keys/query":                                                       `{"timeout":10,"device_keys":{"@alice:test":["ALICE"],"@mallory:test":[]}}`,
		"POST /keys/claim":                                                       `{"timeout":10,"one_time_keys":{"@alice:test":{"ALICE":"signed_curve25519"}}}`,
		"POST /keys/signatures/upload":                                           `{"@mallory:test":{"MALLORY":` + device + `},"@alice:test":{"x":` + signed + `}}`,
		"POST /keys/device_signing/upload":                                       `{"master_key":` + signed + `,"self_signing_key":` + signed + `,"user_signing_key":` + signed + `,"auth":` + loginAuth + `}`,
		"POST /login":                                                            `{"type":"m.login.password","identifier":{"type":"m.id.user","user":"mallory"},"user":"mallory","password":"wrong","device_id":"D","initial_device_display_name":"n","refresh_token":true,"token":"t","address":"a","medium":"email"}`,
		"POST /_matrix/client/v1/login/get_token":                                `{"auth":` + loginAuth + `}`,
		"PUT /_matrix/client/v1/admin/lock/{userID}":                             `{"locked":false}`,
		"PUT /_matrix/client/v1/admin/suspend/{userID}":                          `{"suspended":false}`,
		"POST /register/email/requestToken":                                      `{"client_secret":"s","email":"a@b.example","send_attempt":1,"next_link":"https://x","id_server":"i","id_access_token":"t"}`,
		"POST /account/password/email/requestToken":                              `{"client_secret":"s","email":"a@b.example","send_attempt":1,"next_link":"https://x"}`,
		"POST /account/3pid/email/requestToken":                                  `{"client_secret":"s","email":"a@b.example","send_attempt":1,"next_link":"https://x"}`,
		"POST /register/msisdn/requestToken":                                     `{"client_secret":"s","country":"GB","phone_number":"1","send_attempt":1}`,
		"POST /account/password/msisdn/requestToken":                             `{"client_secret":"s","country":"GB","phone_number":"1","send_attempt":1}`,
		"POST /account/3pid/msisdn/requestToken":                                 `{"client_secret":"s","country":"GB","phone_number":"1","send_attempt":1}`,
		"POST /account/3pid":                                                     `{"three_pid_creds":{"client_secret":"s","id_server":"i","id_access_token":"t","sid":"x"}}`,
		"POST /account/3pid/bind":                                                `{"client_secret":"s","id_server":"i","id_access_token":"t","sid":"x"}`,
		"POST /account/3pid/add":                                                 `{"client_secret":"s","sid":"x","auth":` + loginAuth + `}`,
		"POST /account/3pid/delete":                                              `{"medium":"email","address":"a@b.example"}`,
		"POST /account/3pid/unbind":                                              `{"medium":"email","address":"a@b.example"}`,
		"POST /_trunkboard/client/email":                                         `{"sid":"x","token":"y"}`,
		"PUT /unstable/org.matrix.msc3814.v1/dehydrated_device":                  `{"device_id":"DRY","device_data":{"algorithm":"m.dehydration.v2","x":"y"},"initial_device_display_name":"n","device_keys":` + strings.ReplaceAll(device, "MALLORY", "DRY") + `,"one_time_keys":{},"fallback_keys":{}}`,
		"POST /unstable/org.matrix.msc3814.v1/dehydrated_device/{device}/events": `{"next_batch":"0"}`,
		"POST /refresh":                                                          `{"refresh_token":"x"}`,
		"POST /logout":                                                           `{"all":true}`,
		"POST /logout/all":                                                       `{"all":true}`,
		"POST /_matrix/media/v1/create":                                          `{"unused":1}`,
		"PUT /_matrix/media/v3/upload/{server}/{media}":                          `{"not":"json only"}`,
		"POST /_matrix/media/v3/upload":                                          `{"not":"json only"}`,
		"POST /_synapse/admin/v1/send_server_notice":                             `{"user_id":"@mallory:test","type":"m.room.message","state_key":"k","content":{"msgtype":"m.text","body":"b"}}`,
		"PUT /_synapse/admin/v1/send_server_notice/{txn}":                        `{"user_id":"@mallory:test","type":"m.room.message","content":{"msgtype":"m.text","body":"b"}}`,
		"POST /user_directory/search":                                            `{"search_term":"a","limit":5}`,
		"PUT /presence/{user}/status":                                            `{"presence":"online","status_msg":"m"}`,
		"PUT /profile/{userID}/{field}":                                          `{"displayname":"d","avatar_url":"mxc://a/b","m.tz":"Europe/Berlin"}`,
		"PUT /pushrules/{scope}/{kind}/{rule}":                                   `{"actions":["notify",{"set_tweak":"sound","value":"default"}],"conditions":[{"kind":"event_match","key":"type","pattern":"x"},{"kind":"room_member_count","is":"2"},{"kind":"event_property_is","key":"a","value":1}],"pattern":"p"}`,
		"PUT /pushrules/{scope}/{kind}/{rule}/{what}":                            `{"enabled":true,"actions":["notify"]}`,
		"POST /pushers/set":                                                      `{"pushkey":"k","kind":"http","app_id":"a","app_display_name":"n","device_display_name":"d","profile_tag":"t","lang":"en","append":false,"enabled":true,"device_id":"D","data":{"url":"https://push.example/_matrix/push/v1/notify","format":"event_id_only"}}`,
		"POST /createRoom":                                                       `{"visibility":"private","room_alias_name":"fuzzed","name":"n","topic":"t","invite":["@bob:test"],"invite_3pid":[{"id_server":"s","id_access_token":"t","medium":"email","address":"a"}],"room_version":"12","creation_content":{"type":"m.space","additional_creators":["@bob:test"],"m.federate":false},"initial_state":[{"type":"m.room.topic","state_key":"","content":{"topic":"t"}}],"preset":"private_chat","is_direct":true,"power_level_content_override":{"users":{"@bob:test":50},"events_default":0,"ban":50}}`,
		"POST /join/{room}":                                                      `{"reason":"r","third_party_signed":{"mxid":"@a:test","sender":"@b:test","token":"t","signatures":{"s":{"k":"v"}}}}`,
		"POST /knock/{room}":                                                     `{"reason":"r"}`,
		"POST /rooms/{room}/join":                                                `{"reason":"r"}`,
		"POST /rooms/{room}/leave":                                               `{"reason":"r"}`,
		"POST /rooms/{room}/upgrade":                                             `{"new_version":"12","additional_creators":["@bob:test"]}`,
		"POST /rooms/{room}/forget":                                              `{"x":1}`,
		"POST /rooms/{room}/invite":                                              member,
		"POST /rooms/{room}/kick":                                                member,
		"POST /rooms/{room}/ban":                                                 member,
		"POST /rooms/{room}/unban":                                               member,
		"POST /search":                                                           `{"search_categories":{"room_events":{"search_term":"x","keys":["content.body"],"filter":{"rooms":["!x:test"],"limit":5,"senders":["@a:test"],"types":["m.room.message"]},"order_by":"recent","include_state":true,"event_context":{"before_limit":1,"after_limit":1,"include_profile":true},"groupings":{"group_by":[{"key":"room_id"}]}}}}`,
		"POST /unstable/org.matrix.simplified_msc3575/sync":                      sliding,
		"POST /_matrix/client/v4/sync":                                           sliding,
		"PUT /rooms/{room}/typing/{user}":                                        `{"typing":true,"timeout":1000}`,
		"POST /rooms/{room}/receipt/{kind}/{event}":                              `{"thread_id":"main"}`,
		"POST /rooms/{room}/read_markers":                                        `{"m.fully_read":"$x","m.read":"$x","m.read.private":"$x"}`,
		"POST /rooms/{room}/report":                                              `{"reason":"r","score":-100}`,
		"POST /rooms/{room}/report/{event}":                                      `{"reason":"r","score":-100}`,
		"POST /users/{user}/report":                                              `{"reason":"r"}`,
		"POST /user/{userID}/openid/request_token":                               `{"x":1}`,
		"PUT /unstable/io.element.msc4306/rooms/{room}/thread/{event}/subscription": `{"automatic":"$x"}`,
		"PUT /sendToDevice/{type}/{txn}":                                            `{"messages":{"@mallory:test":{"*":{"a":"b"},"MALLORY":{"c":"d"}}}}`,
		"POST /user/{userID}/filter":                                                filter,
		"PUT /user/{userID}/account_data/{type}":                                    `{"ignored_users":{"@bob:test":{}},"a":{"b":["c"]}}`,
		"PUT /user/{userID}/rooms/{roomID}/account_data/{type}":                     `{"a":{"b":["c"]}}`,
		"PUT /user/{userID}/rooms/{roomID}/tags/{tag}":                              `{"order":0.5}`,

		"POST /_matrix/client/v1/rtc/livekit/get_token":                        `{"server_name":"test","url":"ws://localhost:8008/livekit/sfu","room_id":"!x:test","slot_id":"m.call#ROOM","member_id":"m","member":{"id":"m","claimed_device_id":"MALLORY"}}`,
		"POST /_matrix/client/v1/rtc/livekit/delegate_delayed_leave":           `{"server_name":"test","url":"ws://localhost:8008/livekit/sfu","room_id":"!x:test","slot_id":"m.call#ROOM","member_id":"m","member":{"id":"m","claimed_device_id":"MALLORY"},"delay_id":"d"}`,
		"POST /unstable/io.element.msc4195/rtc/livekit/get_token":              `{"server_name":"test","url":"ws://localhost:8008/livekit/sfu","room_id":"!x:test","slot_id":"m.call#ROOM","member_id":"m","member":{"id":"m","claimed_device_id":"MALLORY"}}`,
		"POST /unstable/io.element.msc4195/rtc/livekit/delegate_delayed_leave": `{"server_name":"test","url":"ws://localhost:8008/livekit/sfu","room_id":"!x:test","slot_id":"m.call#ROOM","member_id":"m","member":{"id":"m","claimed_device_id":"MALLORY"},"delay_id":"d"}`,
	}
}

// bodyKey is a route without the prefix that most have.
func bodyKey(pattern string) string {
	for _, v := range []string{"/_matrix/client/v3/", "/_matrix/client/unstable/"} {
		if m, rest, ok := strings.Cut(pattern, " "+v); ok {
			if strings.HasSuffix(v, "unstable/") {
				rest = "unstable/" + rest
			}
			return m + " /" + rest
		}
	}
	return pattern
}

// routes are all patterns that the API serves.
func (s *siege) routes() []string {
	s.t.Helper()
	all, err := patternsIn(s.registry)
	if err != nil {
		s.t.Fatal(err)
	}
	return all
}

// patternsIn lists the patterns that an API with these metrics serves: its metrics know them.
func patternsIn(r *prometheus.Registry) (all []string, err error) {
	return coveragetest.Patterns(r, "trunkboard_clientapi_request_seconds")
}

var pathParam = regexp.MustCompile(`\{[A-Za-z]+\}|\{\$\}`)

// fuzzer sends what mallory makes of good requests.
type fuzzer struct {
	*siege
	token, room, event string
	admin              string // token of an administrator, for the routes that let nobody else in
	seen               map[int]int
	failed             int
}

func newFuzzer(s *siege) *fuzzer {
	f := &fuzzer{siege: s, token: s.mallory, seen: map[int]int{}}
	root, err := s.acc.Create(s.t.(*testing.T).Context(), accounts.NewUser{Localpart: "root", Password: pw, Admin: true, Login: &accounts.Login{}})
	if err != nil {
		s.t.Fatal(err)
	}
	f.admin = root.AccessToken
	f.renew()
	return f
}

// renew makes the room in which mallory plays, and logs her in again if she has logged herself out.
func (f *fuzzer) renew() {
	f.t.Helper()
	if f.do("GET", "/v3/account/whoami", f.token, nil).status != 200 {
		f.token = f.login("mallory", pw, map[string]any{"device_id": "MALLORY"}).ok().str("access_token")
	}
	f.room = f.newRoom(f.token, `{"preset":"public_chat"}`)
	f.event = f.do("PUT", "/v3/rooms/"+esc(f.room)+"/send/m.room.message/fuzz", f.token, `{"body":"b"}`).ok().str("event_id")
}

// path fills in the parameters of a pattern; the one numbered odd gets value instead.
func (f *fuzzer) path(pattern string, odd int, value string) string {
	_, path, _ := strings.Cut(pattern, " ")
	i := -1
	return pathParam.ReplaceAllStringFunc(path, func(name string) string {
		if name == "{$}" {
			return ""
		}
		if i++; i == odd {
			return url.PathEscape(value)
		}
		switch name {
		case "{room}", "{roomID}":
			return esc(f.room)
		case "{event}":
			return esc(f.event)
		case "{user}", "{userID}":
			return "@mallory:test"
		case "{alias}":
			return esc("#fuzz:test")
		case "{type}":
			switch {
			case strings.Contains(path, "/send/"):
				return "m.call.invite"
			case strings.Contains(path, "{$}"):
				return "m.room.history_visibility"
			case strings.Contains(path, "{key}"):
				return "m.room.member"
			case strings.Contains(path, "/state/"):
				return "m.room.power_levels"
			}
			return "m.ignored_user_list"
		case "{key}":
			return "@mallory:test"
		case "{kind}":
			if strings.Contains(path, "receipt") {
				return "m.read"
			}
			return "override"
		case "{scope}":
			return "global"
		case "{what}":
			return "actions"
		case "{field}":
			return "displayname"
		case "{server}":
			return "test"
		case "{version}":
			return "1"
		}
		return "x1"
	})
}

func (f *fuzzer) send(method, path, body string) {
	f.t.Helper()
	var r io.Reader
	if method != "GET" && method != "HEAD" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(f.t.(*testing.T).Context(), method, f.url+path, r)
	if err != nil {
		f.t.Fatalf("%s %q: %v", method, path, err)
	}
	token := f.token
	if strings.Contains(path, "send_server_notice") {
		token = f.admin
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		f.t.Fatalf("%s %q %.300s: %v", method, path, body, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	f.seen[res.StatusCode]++
	if strings.HasPrefix(path, emailPage) && res.StatusCode < 500 && strings.HasPrefix(res.Header.Get("Content-Type"), "text/html") {
		return // a page for people: it says in words what went wrong
	}
	isJSON := strings.HasPrefix(res.Header.Get("Content-Type"), "application/json")
	var e struct {
		Code  string            `json:"errcode"`
		Flows []json.RawMessage `json:"flows"`
	}
	if isJSON && json.Unmarshal(b, &e) != nil && b[0] == '{' || res.StatusCode >= 500 || res.StatusCode >= 400 && e.Code == "" && e.Flows == nil {
		if f.failed++; f.failed < 40 {
			f.t.Errorf("%s %.200q %.400s: %d %.300s", method, path, body, res.StatusCode, b)
		}
	}
}

// oddities calls use with the body once per value in it, each time with that value replaced by odd.
func oddities(good string, each func(was any) []string, use func(body string)) {
	var root any
	if err := json.Unmarshal([]byte(good), &root); err != nil {
		panic(good + err.Error())
	}
	const mark = "\x01here\x01"
	marked, _ := json.Marshal(mark)
	var walk func(v any, set func(any))
	walk = func(v any, set func(any)) {
		set(mark)
		whole, _ := json.Marshal(root)
		set(v)
		for _, odd := range each(v) {
			use(strings.Replace(string(whole), string(marked), odd, 1))
		}
		switch v := v.(type) {
		case map[string]any:
			for k, x := range v {
				walk(x, func(y any) { v[k] = y })
			}
		case []any:
			for i, x := range v {
				walk(x, func(y any) { v[i] = y })
			}
		}
	}
	walk(root, func(v any) { root = v })
}

func TestHostileBodies(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		s := newSiege(t, st)
		f := newFuzzer(s)
		t.Run("C44 no value of the wrong type makes the server fail, on any route", func(t *testing.T) {
			f.siege = s.within(t)
			bodies := goodBodies()
			used := map[string]bool{}
			for _, pattern := range s.routes() {
				method, _, _ := strings.Cut(pattern, " ")
				good, ok := bodies[bodyKey(pattern)]
				used[bodyKey(pattern)] = true
				if !ok {
					if method == "PUT" || method == "POST" {
						if !strings.Contains(pattern, "/_matrix/media/") {
							t.Errorf("no body is known for %s", pattern)
						}
					}
					continue
				}
				f.renew()
				path := f.path(pattern, -1, "")
				for _, body := range []string{good, "", "{", "[]", "null", `"x"`, "1", `{"a":1,"a":2}`, "{\"a\":\"\xff\"}", `{"a":"\u0000"}`, `{"a":"\ud800"}`, `{"a":1e999}`, strings.Repeat(`{"a":`, 5000) + "1" + strings.Repeat("}", 5000)} {
					f.send(method, path, body)
				}
				oddities(good, func(any) []string {
					return []string{`[]`, `null`, `{}`, `"x"`, `""`, `true`, `-1`, `1.5`, `9007199254740993`, `99999999999999999999999999`, `1e400`, `[[[]]]`, `[null]`, `{"":null}`}
				}, func(body string) { f.send(method, path, body) })
			}
			for k := range bodies {
				if !used[k] {
					t.Errorf("no route is %s", k)
				}
			}
			t.Log("answers by status: ", f.seen)
			f.unaffected()
		})
		s.since, s.n = f.since, f.n
		t.Run("C43 no text is code to the database or breaks it, in any path or body", func(t *testing.T) {
			f.siege = s.within(t)
			clear(f.seen)
			corpus := []string{
				"'; DROP TABLE events; --", `" OR ""="`, "a\x00b", "\\", "%", "\xff\xfe", "99999999999999999999", strings.Repeat("A", 5000), // the few for values in bodies and queries
				"' OR '1'='1", "1) UNION SELECT 1,2,3 --", "\x00", "$1", "?1", "%s%n%x", "_", "*", "\u202e", "../../../etc/passwd", "😀", "\r\nX-Evil: 1", "<script>alert(1)</script>", "-1",
			}
			few := corpus[:8]
			for _, pattern := range s.routes() {
				method, _, _ := strings.Cut(pattern, " ")
				good := goodBodies()[bodyKey(pattern)]
				f.renew()
				for i := range len(pathParam.FindAllString(pattern, -1)) {
					for _, bad := range corpus {
						f.send(method, f.path(pattern, i, bad), good)
					}
				}
				if method == "GET" && !strings.Contains(pattern, "thumbnail") {
					for _, param := range []string{"from", "since", "filter", "dir", "to", "version", "username", "token", "room_id", "limit", "at", "membership", "user_id", "set_presence", "before", "state"} {
						for _, bad := range few {
							f.send(method, f.path(pattern, -1, "")+"?"+param+"="+url.QueryEscape(bad), "")
						}
					}
				}
				if good == "" {
					continue
				}
				f.renew()
				path := f.path(pattern, -1, "")
				oddities(good, func(was any) (odd []string) {
					if _, ok := was.(string); !ok {
						return nil
					}
					for _, bad := range few {
						if b, err := json.Marshal(bad); err == nil {
							odd = append(odd, string(b))
						}
					}
					return append(odd, `"\ud800"`, strconv.QuoteToASCII("\u0001"))
				}, func(body string) { f.send(method, path, body) })
			}
			t.Log("answers by status: ", f.seen)
			f.login("wendy", pw, nil).ok() // the tables are all there
			f.unaffected()
		})
	})
}
