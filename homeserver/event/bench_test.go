// SPDX-License-Identifier: Apache-2.0

package event

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	gmsl "github.com/matrix-org/gomatrixserverlib"
	"github.com/matrix-org/gomatrixserverlib/spec"
)

func benchState(b *testing.B) (*world, worldState, Proto) {
	w := newWorld(b, DefaultVersion)
	return w, worldState{w, w.after[w.tip()]}, Proto{RoomID: w.room, Sender: "@bob:b.org", Type: "m.room.message", Content: json.RawMessage(`{"msgtype":"m.text","body":"an ordinary message of an ordinary length, as people write them"}`)}
}

func BenchmarkBuild(b *testing.B) {
	w, st, p := benchState(b)
	prev, s, now := []string{w.tip()}, signer("b.org"), time.UnixMilli(1700000000000)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Build(w.v, p, prev, 9, st, s, now); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBuildByTheLibrary(b *testing.B) {
	w, _, p := benchState(b)
	prev, s, now := []string{w.tip()}, signer("b.org"), time.UnixMilli(1700000000000)
	b.ReportAllocs()
	for b.Loop() {
		eb := gmsl.MustGetRoomVersion("12").NewEventBuilder()
		eb.SenderID, eb.RoomID, eb.Type, eb.Content, eb.Depth, eb.PrevEvents, eb.AuthEvents = p.Sender, p.RoomID, p.Type, spec.RawJSON(p.Content), 9, prev, prev
		if _, err := eb.Build(now, spec.ServerName(s.Server), gmsl.KeyID(s.KeyID), s.Key); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAuthorise(b *testing.B) {
	w, st, p := benchState(b)
	e := build(b, w.v, p, []string{w.tip()}, 9, st)
	b.ReportAllocs()
	for b.Loop() {
		if err := Authorise(e, st); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	w, st, p := benchState(b)
	raw := build(b, w.v, p, []string{w.tip()}, 9, st).JSON()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(w.v, raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	w, st, p := benchState(b)
	e := build(b, w.v, p, []string{w.tip()}, 9, st)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Load(w.v, e.ID(), e.JSON(), false); err != nil {
			b.Fatal(err)
		}
	}
}

// twoForks makes a room that splits in two after the base, n state events on either side: members come and go on both, power levels
// move on one, a moderator bans on it people who are active on the other, name and topic are set on both.
func twoForks(t testing.TB, v Version, n int) (w *world, a, b string) {
	w = newWorld(t, v)
	last := w.tip()
	for i := range 50 {
		u := fmt.Sprintf("@u%d:c.org", i)
		last = w.must([]string{last}, u, "m.room.member", &u, `{"membership":"join"}`).ID()
	}
	a, b = last, last
	try := func(tip *string, sender, typ string, key *string, content string) {
		if e, err := w.send([]string{*tip}, sender, typ, key, content); err == nil {
			*tip = e.ID()
		}
	}
	levels := func(i int) string {
		alice := `"@alice:a.org":100,`
		if v.CreateIsRoomID() {
			alice = ""
		}
		return fmt.Sprintf(`{"users":{%s"@bob:b.org":50,"@mod:b.org":50,"@u%d:c.org":10},"state_default":50,"events":{"m.room.topic":0,"m.room.name":0}}`, alice, i%50)
	}
	for i := range n {
		u := fmt.Sprintf("@u%d:c.org", i%50)
		switch i % 10 {
		case 0:
			try(&a, "@alice:a.org", "m.room.power_levels", str(""), levels(i/10))
		case 1:
			try(&a, "@alice:a.org", "m.room.topic", str(""), fmt.Sprintf(`{"topic":"a%d"}`, i))
		case 2:
			try(&a, "@bob:b.org", "m.room.name", str(""), fmt.Sprintf(`{"name":"a%d"}`, i))
		case 3:
			banned := fmt.Sprintf("@u%d:c.org", i/10%25)
			try(&a, "@mod:b.org", "m.room.member", &banned, `{"membership":"ban"}`)
		default:
			who := fmt.Sprintf("@a%d:d.org", i)
			try(&a, who, "m.room.member", &who, `{"membership":"join"}`)
		}
		switch i % 10 {
		case 0:
			try(&b, "@carol:c.org", "m.room.topic", str(""), fmt.Sprintf(`{"topic":"b%d"}`, i))
		case 1:
			try(&b, "@dave:d.org", "m.room.name", str(""), fmt.Sprintf(`{"name":"b%d"}`, i))
		case 2:
			try(&b, u, "m.room.member", &u, `{"membership":"leave"}`)
		case 3, 4, 5:
			try(&b, u, "m.room.member", &u, fmt.Sprintf(`{"membership":"join","displayname":"b%d"}`, i))
		default:
			who := fmt.Sprintf("@b%d:d.org", i)
			try(&b, who, "m.room.member", &who, `{"membership":"join"}`)
		}
	}
	return w, a, b
}

// BenchmarkResolveTwoForks resolves two forks of 1,000 state events each; the goal is 100 ms.
func BenchmarkResolveTwoForks(b *testing.B) {
	for _, v := range []Version{"1", "10", "12"} {
		b.Run("v"+string(v), func(b *testing.B) {
			w, x, y := twoForks(b, v, 1000)
			states := []map[Key]string{w.after[x], w.after[y]}
			b.ReportAllocs()
			for b.Loop() {
				w.resolve(states)
			}
		})
	}
}
