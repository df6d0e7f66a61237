// SPDX-License-Identifier: Apache-2.0

package event

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	gmsl "github.com/matrix-org/gomatrixserverlib"
	"github.com/matrix-org/gomatrixserverlib/spec"
	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/signalling"
)

// signer is the key of a test server, the same in every run.
func signer(server string) Signer {
	return Signer{Server: server, KeyID: "ed25519:a_test", Key: ed25519.NewKeyFromSeed(bytes.Repeat([]byte(server[:1]), ed25519.SeedSize))}
}

func str(s string) *string { return &s }

// corpus are events of many shapes, for tests that compare two implementations.
func corpus(v Version) (out []Proto) {
	room := "!room:example.org"
	if v.CreateIsRoomID() {
		room = "!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM"
	}
	alice := "@alice:example.org"
	add := func(typ string, key *string, content string) {
		out = append(out, Proto{RoomID: room, Sender: alice, Type: typ, StateKey: key, Content: json.RawMessage(content)})
	}
	create := Proto{RoomID: room, Sender: alice, Type: "m.room.create", StateKey: str(""), Content: json.RawMessage(`{"room_version":"` + string(v) + `","creator":"@alice:example.org","m.federate":true,"x":{"y":[1]}}`)}
	if v.CreateIsRoomID() {
		create.RoomID = ""
	}
	out = append(out, create)
	add("m.room.message", nil, `{"body":"hi","msgtype":"m.text"}`)
	add("m.room.message", nil, ` { "z" : [ 1 , -2, {"b":null,"a":true} ] , "body" : "\u00e9\ud83d\ude00 <b>&amp;\u2028 \\ \" \/ \u0007\u001f\n\t\b\f\r" } `)
	add("m.room.message", nil, `{}`)
	add("m.room.member", &alice, `{"membership":"join","displayname":"Alice","avatar_url":"mxc://x/y","join_authorised_via_users_server":"@bob:example.org"}`)
	add("m.room.member", str("@bob:other"), `{"membership":"ban","reason":"no"}`)
	add("m.room.power_levels", str(""), `{"users":{"@alice:example.org":100},"users_default":0,"events":{"m.room.name":50},"ban":50,"kick":50,"redact":50,"invite":0,"state_default":50,"events_default":0,"notifications":{"room":50}}`)
	add("m.room.join_rules", str(""), `{"join_rule":"restricted","allow":[{"type":"m.room_membership","room_id":"!x:y"}],"extra":1}`)
	add("m.room.history_visibility", str(""), `{"history_visibility":"shared","extra":1}`)
	add("m.room.aliases", str("example.org"), `{"aliases":["#a:example.org"],"extra":1}`)
	add("m.room.name", str(""), `{"name":"`+strings.Repeat("x", 3000)+`"}`)
	add("m.room.redaction", nil, `{"reason":"oops","redacts":"$x"}`)
	add("org.example.\"quoted\"\\type", str("key with \"quotes\" and é"), `{"big":9007199254740991,"small":-9007199254740991,"zero":0}`)
	return out
}

func build(t testing.TB, v Version, p Proto, prev []string, depth int64, st State) *Event {
	t.Helper()
	e, err := Build(v, p, prev, depth, st, signer(ServerOf(p.Sender)), time.UnixMilli(1700000000000+depth))
	if err != nil {
		t.Fatalf("v%s %s: %v", v, p.Type, err)
	}
	return e
}

// ids makes references that both implementations accept.
func ids(v Version, names ...string) (out []string) {
	for _, n := range names {
		if v.n() <= 2 {
			out = append(out, "$"+n+":example.org")
		} else {
			out = append(out, "$"+strings.Repeat(n, 43)[:43])
		}
	}
	return out
}

func TestBuiltEventsAreBitForBitThoseOfTheLibrary(t *testing.T) {
	s := signer("example.org")
	for _, v := range Versions()[2:] {
		for i, p := range corpus(v) {
			prev := ids(v, "a", "b")
			if p.Type == "m.room.create" {
				prev = []string{}
			}
			ours := build(t, v, p, prev, int64(i+1), EventsState{})
			impl := gmsl.MustGetRoomVersion(gmsl.RoomVersion(v))
			b := impl.NewEventBuilder()
			b.SenderID, b.RoomID, b.Type, b.StateKey, b.Content = p.Sender, p.RoomID, p.Type, p.StateKey, spec.RawJSON(p.Content)
			b.Depth, b.PrevEvents, b.AuthEvents = int64(i+1), prev, []string{}
			theirs, err := b.Build(time.UnixMilli(ours.OriginTS()), spec.ServerName(s.Server), gmsl.KeyID(s.KeyID), s.Key)
			if err != nil {
				t.Fatalf("v%s %s: library: %v", v, p.Type, err)
			}
			if !bytes.Equal(ours.JSON(), theirs.JSON()) || ours.ID() != theirs.EventID() || ours.RoomID() != theirs.RoomID().String() {
				t.Errorf("v%s %s:\n ours   %s %s\n theirs %s %s", v, p.Type, ours.ID(), ours.JSON(), theirs.EventID(), theirs.JSON())
			}
		}
	}
}

func TestEventsAreReadAsTheLibraryReadsThem(t *testing.T) {
	for _, v := range Versions() {
		impl := gmsl.MustGetRoomVersion(gmsl.RoomVersion(v))
		for i, p := range corpus(v) {
			prev := ids(v, "a", "b")
			if p.Type == "m.room.create" {
				prev = nil
			}
			e := build(t, v, p, prev, int64(i+1), EventsState{})
			// As it is, with keys that do not belong to it, and with content that somebody changed on the way.
			for _, raw := range []string{
				string(e.JSON()),
				`{"unsigned":{"age":1},"age_ts":5,` + string(e.JSON()[1:]),
				strings.Replace(string(e.JSON()), `"content":{`, `"content":{"!":1,`, 1),
			} {
				if strings.Contains(raw, `"!":1,}`) {
					continue
				}
				ours, err := Parse(v, []byte(raw))
				if err != nil {
					t.Fatalf("v%s %s: %v", v, p.Type, err)
				}
				theirs, err := impl.NewEventFromUntrustedJSON([]byte(raw))
				if err != nil {
					t.Fatalf("v%s %s: library: %v", v, p.Type, err)
				}
				if !bytes.Equal(ours.JSON(), theirs.JSON()) || ours.ID() != theirs.EventID() || ours.Redacted() != theirs.Redacted() {
					t.Errorf("v%s %s:\n ours   %v %s %s\n theirs %v %s %s", v, p.Type, ours.Redacted(), ours.ID(), ours.JSON(), theirs.Redacted(), theirs.EventID(), theirs.JSON())
				}
				// Redaction, and what is signed.
				red, err := ours.Redact()
				if err != nil {
					t.Fatal(err)
				}
				want, err := impl.RedactEventJSON(ours.JSON())
				if err == nil {
					want, err = gmsl.CanonicalJSON(want)
				}
				if err != nil || !bytes.Equal(red.JSON(), want) {
					t.Errorf("v%s %s redacted:\n ours   %s\n theirs %s %v", v, p.Type, red.JSON(), want, err)
				}
				if strings.Contains(raw, `"!":1`) && p.Type == "m.room.create" && v.n() >= 11 {
					continue // all of its content is signed, and it was changed
				}
				key := signer("example.org").Key.Public().(ed25519.PublicKey)
				if err := gmsl.VerifyJSON("example.org", "ed25519:a_test", key, want); err != nil {
					t.Errorf("v%s %s: library finds our signature wrong: %v", v, p.Type, err)
				}
				if err := red.VerifySignature("example.org", "ed25519:a_test", key); err != nil {
					t.Errorf("v%s %s: %v", v, p.Type, err)
				}
			}
		}
	}
}

func TestASecondSignatureStandsBesideTheFirst(t *testing.T) {
	for _, v := range []Version{"1", "3", "10", "12"} {
		e := build(t, v, corpus(v)[5], ids(v, "a"), 7, EventsState{})
		other := signer("other")
		both, err := e.Sign(other)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []Signer{signer("example.org"), other} {
			if err := both.VerifySignature(s.Server, s.KeyID, s.Key.Public().(ed25519.PublicKey)); err != nil {
				t.Errorf("v%s: %v", v, err)
			}
		}
		// One that was made elsewhere, and is brought by itself.
		sig, err := base64.RawStdEncoding.DecodeString(gjson.GetBytes(both.JSON(), "signatures.other.ed25519:a_test").Str)
		if err != nil {
			t.Fatal(err)
		}
		if added, err := e.WithSignature(other.Server, other.KeyID, sig); err != nil || string(added.JSON()) != string(both.JSON()) || added.ID() != e.ID() {
			t.Errorf("v%s: %s, %v", v, added.JSON(), err)
		}
		if err := both.VerifySignature("example.org", "ed25519:a_test", other.Key.Public().(ed25519.PublicKey)); err == nil {
			t.Errorf("v%s: the wrong key verifies", v)
		}
		if again, err := Parse(v, both.JSON()); err != nil || again.ID() != e.ID() || again.Redacted() {
			t.Errorf("v%s: the signed event is not the same event: %v", v, err)
		}
	}
}

func TestSignedJSONIsThatOfTheLibrary(t *testing.T) {
	s := signer("example.org")
	raw := []byte(`{"b":[1,2],"a":"é","signatures":{"x":{"ed25519:1":"AAAA"}},"unsigned":{"n":1}}`)
	ours, err := SignJSON(s, raw)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := gmsl.SignJSON(s.Server, gmsl.KeyID(s.KeyID), s.Key, raw)
	if err != nil || !bytes.Equal(ours, theirs) {
		t.Errorf("ours %s\ntheirs %s %v", ours, theirs, err)
	}
	key := s.Key.Public().(ed25519.PublicKey)
	if err := VerifyJSON(s.Server, s.KeyID, key, theirs); err != nil {
		t.Error(err)
	}
	if VerifyJSON(s.Server, s.KeyID, key, bytes.Replace(theirs, []byte(`[1,2]`), []byte(`[1,3]`), 1)) == nil {
		t.Error("a changed object verifies")
	}
}

// TestThirdPartySignaturesSurviveRedaction: room versions 11 and 12 keep third_party_invite.signed (MSC3821); the library does not, so
// such events would have another id here than anywhere else.
func TestThirdPartySignaturesSurviveRedaction(t *testing.T) {
	for v, want := range map[Version]string{
		"10": `{"membership":"invite"}`,
		"11": `{"membership":"invite","third_party_invite":{"signed":{"mxid":"@b:x","token":"t"}}}`,
		"12": `{"membership":"invite","third_party_invite":{"signed":{"mxid":"@b:x","token":"t"}}}`,
	} {
		p := corpus(v)[4]
		p.Content = json.RawMessage(`{"membership":"invite","third_party_invite":{"display_name":"b","signed":{"mxid":"@b:x","token":"t"}}}`)
		e, err := build(t, v, p, ids(v, "a"), 3, EventsState{}).Redact()
		if err != nil || string(e.Content()) != want {
			t.Errorf("v%s: %s %v", v, e.Content(), err)
		}
	}
}

func code(err error) string {
	if err == nil {
		return ""
	}
	return signalling.AsError(err).Code
}

func TestJSONHasOneMeaningOrNone(t *testing.T) {
	deep := strings.Repeat("[", MaxNesting) + strings.Repeat("]", MaxNesting)
	for raw, want := range map[string]string{
		`{"a":1,"a":2}`:                   "M_BAD_JSON",
		`{"b":1,"a":1,"\u0062":2}`:        "M_BAD_JSON",
		`{"x":{"a":1,"b":0,"a":2}}`:       "M_BAD_JSON",
		`{"a":"\ud800"}`:                  "M_BAD_JSON",
		`{"a":"\udc00\ud800"}`:            "M_BAD_JSON",
		`{"a":"\ud800\u0041"}`:            "M_BAD_JSON",
		deep:                              "",
		"[" + deep + "]":                  "M_BAD_JSON",
		strings.Repeat(`{"a":`, 100000):   "M_BAD_JSON",
		"{\"a\":\"\x00\"}":                "M_NOT_JSON",
		"{\"a\":\"\xff\"}":                "M_NOT_JSON",
		"\ufeff{}":                        "M_NOT_JSON",
		`{"a":01}`:                        "M_NOT_JSON",
		`{"a":-}`:                         "M_NOT_JSON",
		`{"a":1.}`:                        "M_NOT_JSON",
		`{"a":.5}`:                        "M_NOT_JSON",
		`{"a":1e}`:                        "M_NOT_JSON",
		`{"a":+1}`:                        "M_NOT_JSON",
		`{"a":NaN}`:                       "M_NOT_JSON",
		`{"a":1,}`:                        "M_NOT_JSON",
		`[1,]`:                            "M_NOT_JSON",
		`{,}`:                             "M_NOT_JSON",
		`{"a"}`:                           "M_NOT_JSON",
		`{"a":1}{}`:                       "M_NOT_JSON",
		`{"a":"\x"}`:                      "M_NOT_JSON",
		`{"a":"\u12g4"}`:                  "M_NOT_JSON",
		`{"a":"`:                          "M_NOT_JSON",
		`{"a":tru}`:                       "M_NOT_JSON",
		``:                                "M_NOT_JSON",
		`{"a":1.5,"b":-0,"c":1e3,"d":""}`: "",
	} {
		if got := code(CheckJSON([]byte(raw))); got != want {
			t.Errorf("%.60q: %q, want %q", raw, got, want)
		}
	}
}

func TestCanonicalFormIsShortestAndSorted(t *testing.T) {
	for raw, want := range map[string]string{
		`{ "b" : 1 , "a" : [ 1 , 2 ] }`:             `{"a":[1,2],"b":1}`,
		`{"\u65e5":1,"\u672c":2,"a":{"d":1,"c":2}}`: `{"a":{"c":2,"d":1},"日":1,"本":2}`,
		`"\u0001\u001f\u007f\/\u0022\u005c\u0008"`:  "\"\\u0001\\u001f\x7f/\\\"\\\\\\b\"",
		`"\ud83d\ude00"`:                            `"😀"`,
		`-0`:                                        `0`,
		`{"a\"b":1,"a#b":2,"a!b":3}`:                `{"a!b":3,"a\"b":1,"a#b":2}`, // by code point, not by escaped form
		"{\"\\uffff\":1,\"\\ud800\\udc00\":2}":      "{\"\uffff\":1,\"\U00010000\":2}",
		`{"\n":1,"\t":2,"":3}`:                      `{"":3,"\t":2,"\n":1}`,
		`{}`:                                        `{}`,
		` [] `:                                      `[]`,
	} {
		got, err := Canonical([]byte(raw))
		if err != nil || string(got) != want {
			t.Errorf("%s: %s %v, want %s", raw, got, err, want)
		}
		if again, err := Canonical(got); err != nil || !bytes.Equal(again, got) {
			t.Errorf("%s is not stable: %s %v", got, again, err)
		}
	}
}

// withField replaces or, with "", removes one top-level field of an event.
func withField(t testing.TB, raw []byte, key, value string) []byte {
	t.Helper()
	b, first := []byte{'{'}, true
	if value != "" {
		b = appendMember(b, &first, []byte(key), []byte(value))
	}
	members(raw, func(k, v []byte) bool {
		if string(k) != key {
			b = appendMember(b, &first, k, v)
		}
		return true
	})
	return append(b, '}')
}

func TestHostileEventsAreRefused(t *testing.T) {
	for _, v := range []Version{"1", "5", "6", "10", "11", "12"} {
		e := build(t, v, corpus(v)[7], ids(v, "a", "b"), 3, EventsState{})
		long := `"` + strings.Repeat("é", 128) + `"` // 256 bytes, 128 code points, which were counted before v11
		tooLong, short := `"`+strings.Repeat("é", 256)+`"`, ""
		if v.n() >= 11 {
			short = "M_TOO_LARGE"
		}
		list := func(n int) string {
			one, _ := json.Marshal(ids(v, "a")[0])
			if v.n() <= 2 {
				one = []byte(`[` + string(one) + `,{}]`)
			}
			return "[" + strings.TrimSuffix(strings.Repeat(string(one)+",", n), ",") + "]"
		}
		type row struct{ key, value, want string }
		rows := []row{
			{"depth", `9007199254740992`, "M_BAD_JSON"}, {"depth", `9223372036854775807`, "M_BAD_JSON"}, {"depth", `-1`, "M_BAD_JSON"}, {"depth", `"3"`, "M_BAD_JSON"}, {"depth", ``, "M_BAD_JSON"},
			{"depth", `9007199254740991`, ""},
			{"type", `7`, "M_BAD_JSON"}, {"type", `"a\u0000b"`, "M_BAD_JSON"}, {"type", ``, "M_BAD_JSON"}, {"type", long, short}, {"type", tooLong, "M_TOO_LARGE"},
			{"state_key", `null`, "M_BAD_JSON"}, {"state_key", `"\u0000"`, "M_BAD_JSON"}, {"state_key", long, short}, {"state_key", tooLong, "M_TOO_LARGE"},
			{"sender", `"alice"`, "M_BAD_JSON"}, {"sender", `"@alice"`, "M_BAD_JSON"}, {"sender", `"@alice:exa mple"`, "M_BAD_JSON"}, {"sender", `"@` + strings.Repeat("é", 125) + `:x.org"`, "M_TOO_LARGE"}, {"sender", ``, "M_BAD_JSON"},
			{"room_id", `"room"`, "M_BAD_JSON"}, {"room_id", ``, "M_BAD_JSON"}, {"room_id", `5`, "M_BAD_JSON"},
			{"content", `[]`, "M_BAD_JSON"}, {"content", `null`, "M_BAD_JSON"}, {"content", ``, "M_BAD_JSON"}, {"content", `{"a":1,"a":1}`, "M_BAD_JSON"},
			{"prev_events", `{}`, "M_BAD_JSON"}, {"prev_events", `[5]`, "M_BAD_JSON"}, {"prev_events", `["x"]`, "M_BAD_JSON"}, {"prev_events", ``, "M_BAD_JSON"}, {"prev_events", list(20), ""}, {"prev_events", list(21), "M_BAD_JSON"},
			{"auth_events", list(10), ""}, {"auth_events", list(11), "M_BAD_JSON"}, {"auth_events", `null`, "M_BAD_JSON"},
			{"origin_server_ts", `-5`, "M_BAD_JSON"}, {"origin_server_ts", `"5"`, "M_BAD_JSON"},
			{"hashes", ``, ""}, {"hashes", `5`, ""}, {"signatures", ``, ""}, // redacted; unsigned events are refused by their signature
		}
		number := func(value string) {
			want := ""
			if v.n() >= 6 {
				want = "M_BAD_JSON"
			}
			rows = append(rows, row{"content", `{"n":` + value + `}`, want})
		}
		for _, n := range []string{"1.5", "1e3", "-0", "9007199254740992", "-9007199254740992", "0.0", "123456789012345678901234567890"} {
			number(n)
		}
		for _, r := range rows {
			got, err := Parse(v, withField(t, e.JSON(), r.key, r.value))
			if code(err) != r.want {
				t.Errorf("v%s: %s=%.40s: %v, want %q", v, r.key, r.value, err, r.want)
			}
			if err == nil && !got.Redacted() && r.key != "signatures" {
				t.Errorf("v%s: %s=%.40s: the hash should not match", v, r.key, r.value)
			}
		}
	}
}

func TestAnEventMayHaveExactly65536Bytes(t *testing.T) {
	for _, v := range Versions() {
		p := corpus(v)[1]
		size := func(n int) (*Event, error) {
			p.Content = json.RawMessage(fmt.Sprintf(`{"body":"%s"}`, strings.Repeat("x", n)))
			return Build(v, p, ids(v, "a"), 1700000000, EventsState{}, signer("example.org"), time.UnixMilli(1700000000000))
		}
		e, err := size(1000)
		if err != nil {
			t.Fatal(err)
		}
		room := MaxSize - len(e.JSON()) + 1000
		if e, err = size(room); err != nil || len(e.JSON()) != MaxSize {
			t.Fatalf("v%s: %v", v, err)
		}
		if _, err := Parse(v, e.JSON()); err != nil {
			t.Errorf("v%s: %v", v, err)
		}
		if _, err := Parse(v, append([]byte(`{"unsigned":{"age":1234},`), e.JSON()[1:]...)); err != nil {
			t.Errorf("v%s: with unsigned, which does not count: %v", v, err)
		}
		if _, err := size(room + 1); code(err) != "M_TOO_LARGE" {
			t.Errorf("v%s: one byte more: %v", v, err)
		}
		if _, err := Parse(v, bytes.Replace(e.JSON(), []byte(`"body":"x`), []byte(`"body":"xx`), 1)); code(err) != "M_TOO_LARGE" {
			// The hash is wrong now, so what remains is small: both answers are right, but nothing may be kept of the content.
			if red, err := Parse(v, bytes.Replace(e.JSON(), []byte(`"body":"x`), []byte(`"body":"xx`), 1)); err != nil || string(red.Content()) != "{}" {
				t.Errorf("v%s: %v", v, err)
			}
		}
	}
}

func TestContentThatIsNoMatrixEventIsRefused(t *testing.T) {
	for raw, want := range map[string]string{
		`{"a":1.5}`: "M_BAD_JSON", `{"a":1,"a":2}`: "M_BAD_JSON", `[]`: "M_BAD_JSON", `"x"`: "M_BAD_JSON", `{`: "M_NOT_JSON", ``: "M_NOT_JSON",
		`{"a":"` + strings.Repeat("x", 3*MaxSize) + `"}`: "M_TOO_LARGE", `{"a":"` + strings.Repeat("x", MaxSize) + `"}`: "M_TOO_LARGE", `{"a":9007199254740992}`: "M_BAD_JSON",
	} {
		p := corpus("12")[1]
		p.Content = json.RawMessage(raw)
		if _, err := Build("12", p, ids("12", "a"), 2, EventsState{}, signer("example.org"), time.Now()); code(err) != want {
			t.Errorf("%.40s: %v, want %s", raw, err, want)
		}
	}
	for _, p := range []Proto{
		{RoomID: "!a:b", Sender: "@a:b", Type: "x\x00", Content: json.RawMessage(`{}`)},
		{RoomID: "!a:b", Sender: "@a:b", Type: "x", StateKey: str("\xff"), Content: json.RawMessage(`{}`)},
		{RoomID: "!a:b", Sender: "@a:b", Type: "m.room.member", StateKey: str("@a:b"), Content: json.RawMessage(`{}`)},
	} {
		if _, err := Build("11", p, ids("11", "a"), 2, EventsState{}, signer("b.example"), time.Now()); code(err) != "M_BAD_JSON" {
			t.Errorf("%q %v: %v", p.Type, p.StateKey, err)
		}
	}
}

func TestUnknownVersionsAreRefused(t *testing.T) {
	for _, v := range []Version{"", "0", "13", "1.5", ":", "1:", "01", "org.matrix.msc4014", "x"} {
		if v.Known() {
			t.Errorf("version %q is known", v)
		}
		if _, err := Parse(v, []byte(`{}`)); code(err) != "M_UNSUPPORTED_ROOM_VERSION" {
			t.Errorf("version %q: %v", v, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, v := range Versions() {
		for i, p := range corpus(v) {
			prev := ids(v, "a")
			if p.Type == "m.room.create" {
				prev = nil
			}
			f.Add(v.n(), build(f, v, p, prev, int64(i+1), EventsState{}).JSON())
		}
	}
	f.Fuzz(func(t *testing.T, n int, raw []byte) {
		v := Version(fmt.Sprint(n))
		e, err := Parse(v, raw)
		if err != nil {
			if c := code(err); c == "M_UNKNOWN" {
				t.Fatalf("a stranger's event is our failure: %v", err)
			}
			return
		}
		// What was accepted is stable: parsed again it is the same event, and so is its redacted form.
		again, err := Parse(v, e.JSON())
		if err != nil || again.ID() != e.ID() || !bytes.Equal(again.JSON(), e.JSON()) {
			t.Fatalf("%s\nagain %v", e.JSON(), err)
		}
		red, err := e.Redact()
		if err != nil {
			t.Fatal(err)
		}
		if v.n() > 2 {
			if got := eventID(v.n(), referenceHash(red.JSON(), red.Type(), v.n())); got != e.ID() {
				t.Fatalf("redacted it is %s, not %s", got, e.ID())
			}
		}
		if !json.Valid(e.JSON()) || !json.Valid(red.JSON()) || !json.Valid(append(bytes.Clone(e.ClientHead()), '}')) {
			t.Fatal("what we write is not JSON")
		}
		_ = Authorise(e, EventsState{})
		_ = Authorise(e, StateOf(e))
	})
}

func FuzzCheckJSON(f *testing.F) {
	for _, s := range []string{`{"a":[1,2.5,"\ud83d\ude00"],"b":{"c":null}}`, `{"a":1,"a":2}`, `"\u0000"`, `[[[[`, `-0`, `1e999`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		out, err := Canonical(raw)
		if (err == nil) != (CheckJSON(raw) == nil) {
			t.Fatal("CheckJSON and Canonical differ")
		}
		if err != nil {
			return
		}
		if !json.Valid(raw) || !json.Valid(out) {
			t.Fatalf("accepted %q, written as %q", raw, out)
		}
		if again, err := Canonical(out); err != nil || !bytes.Equal(again, out) {
			t.Fatalf("%q is not stable: %q %v", out, again, err)
		}
		var a, b any
		if json.Unmarshal(raw, &a) == nil && json.Unmarshal(out, &b) == nil {
			x, _ := json.Marshal(a)
			y, _ := json.Marshal(b)
			if !bytes.Equal(bytes.ReplaceAll(x, []byte("-0"), []byte("0")), bytes.ReplaceAll(y, []byte("-0"), []byte("0"))) {
				t.Fatalf("%q means something else as %q", raw, out)
			}
		}
	})
}
