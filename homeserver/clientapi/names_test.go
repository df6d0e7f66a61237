// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"bytes"
	"encoding/json"
	"image"
	"image/png"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/homeserver/media"
	"github.com/trunkboard/trunkboard/homeserver/preview"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/signalling"
)

func TestMediaIsServedUnderItsOldNamesToo(t *testing.T) {
	st := storagetest.Open(t, storagetest.SQLiteURL(t))
	files, err := media.New(media.Config{ServerName: "test", Dir: t.TempDir()}, st, signalling.SystemClock{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte(`<html><head><meta property="og:title" content="A page"></head></html>`))
	}))
	t.Cleanup(page.Close)
	links := preview.New(files, "@_preview:test", []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, signalling.SystemClock{})
	base := frame(t, Deps{Media: files, Preview: links}, func(*API) {})
	var picture bytes.Buffer
	if err := png.Encode(&picture, image.NewGray(image.Rect(0, 0, 200, 100))); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"/_matrix/media/v3", "/_matrix/media/v1", "/_matrix/media/r0"} {
		res, body := ask(t, "POST", base+name+"/upload?filename=p.png", "alice", "image/png", picture.String())
		if res.StatusCode != 200 {
			t.Fatalf("%s: upload: %d %s", name, res.StatusCode, body)
		}
		id := answer{t: t, m: decoded(t, body)}.str("content_uri")[len("mxc://"):]
		for _, path := range []string{"/download/" + id, "/download/" + id + "/other.png"} {
			if res, got := ask(t, "GET", base+name+path, "", "", ""); res.StatusCode != 200 || got != picture.String() {
				t.Errorf("%s%s: %d, %d bytes", name, path, res.StatusCode, len(got))
			}
		}
		if res, got := ask(t, "GET", base+name+"/thumbnail/"+id+"?width=32&height=32&method=scale", "", "", ""); res.StatusCode != 200 || len(got) == 0 || got == picture.String() {
			t.Errorf("%s: thumbnail: %d, %d bytes", name, res.StatusCode, len(got))
		}
		if res, got := ask(t, "GET", base+name+"/config", "alice", "", ""); res.StatusCode != 200 || decoded(t, got)["m.upload.size"] == nil {
			t.Errorf("%s: config: %d %s", name, res.StatusCode, got)
		}
	}
	for _, name := range []string{"/_matrix/client/v1/media", "/_matrix/media/v3", "/_matrix/media/r0"} {
		if res, got := ask(t, "GET", base+name+"/preview_url?url="+url.QueryEscape(page.URL), "alice", "", ""); res.StatusCode != 200 || decoded(t, got)["og:title"] != "A page" {
			t.Errorf("%s: preview: %d %s", name, res.StatusCode, got)
		}
	}
}

func TestRoomsAreListedKnockedAtAndReadWhole(t *testing.T) {
	each(t, func(h *house) {
		id := h.must("alice", "POST", "/createRoom", map[string]any{"preset": "private_chat", "room_alias_name": "den", "initial_state": []any{map[string]any{"type": "m.room.join_rules", "content": map[string]any{"join_rule": "knock"}}}})["room_id"].(string)
		r := "/rooms/" + esc(id)
		if got := h.must("alice", "GET", r+"/aliases", nil)["aliases"]; !cmp.Equal(got, []any{"#den:test"}) {
			h.t.Errorf("aliases: %v", got)
		}
		h.refused("M_FORBIDDEN", "mallory", "PUT", "/directory/list/room/"+esc(id), map[string]any{"visibility": "public"})
		h.must("alice", "PUT", "/directory/list/room/"+esc(id), map[string]any{"visibility": "public"})
		if got := h.must("bob", "GET", "/directory/list/room/"+esc(id), nil)["visibility"]; got != "public" {
			h.t.Errorf("visibility: %v", got)
		}
		if got := h.must("bob", "POST", "/knock/"+esc("#den:test"), map[string]any{"reason": "please"})["room_id"]; got != id {
			h.t.Errorf("knocked at %v", got)
		}
		if got := h.must("bob", "GET", "/joined_rooms", nil)["joined_rooms"]; !cmp.Equal(got, []any{}) {
			h.t.Errorf("bob is in %v", got)
		}
		h.must("alice", "POST", r+"/invite", map[string]any{"user_id": "@bob:test"})
		h.must("bob", "POST", r+"/join", nil)
		if got := h.must("bob", "GET", "/joined_rooms", nil)["joined_rooms"]; !cmp.Equal(got, []any{id}) {
			h.t.Errorf("bob is in %v", got)
		}
		// The empty state key may be left out, or left empty.
		for i, path := range []string{"/state/m.room.topic", "/state/m.room.topic/"} {
			topic := map[string]any{"topic": []string{"first", "second"}[i]}
			h.must("alice", "PUT", r+path, topic)
			for _, again := range []string{"/state/m.room.topic", "/state/m.room.topic/"} {
				if got := h.must("bob", "GET", r+again, nil); got["topic"] != topic["topic"] {
					h.t.Errorf("%s: %v", again, got)
				}
			}
		}
		found := false
		for _, e := range h.must("bob", "GET", r+"/state", nil)["list"].([]any) {
			e := e.(map[string]any)
			found = found || e["type"] == "m.room.topic" && e["content"].(map[string]any)["topic"] == "second"
		}
		if !found {
			h.t.Error("the whole state has no topic")
		}
	})
}

func TestOlderFormsOfEndpointsAnswerAsTheNewOnes(t *testing.T) {
	s := newSiege(t, storagetest.Open(t, storagetest.SQLiteURL(t)))
	room := esc(s.room)
	now, was := s.do("GET", "/v1/room_summary/"+room, s.wendy, nil).ok().body, s.do("GET", "/unstable/im.nheko.summary/rooms/"+room+"/summary", s.wendy, nil).ok().body
	if now != was {
		t.Errorf("summary: %s and %s", now, was)
	}
	now, was = s.do("GET", "/v1/mutual_rooms?user_id=@alice:test", s.wendy, nil).ok().body, s.do("GET", "/unstable/uk.half-shot.msc2666/user/mutual_rooms?user_id=@alice:test", s.wendy, nil).ok().body
	if now != was {
		t.Errorf("mutual rooms: %s and %s", now, was)
	}
	s.do("POST", "/v3/keys/upload/WENDY", s.wendy, `{}`).ok()
	if a := s.do("GET", "/v3/pushrules/global/override", s.wendy, nil).ok(); len(a.body) < 10 {
		t.Error(a.body)
	}
	id := s.do("PUT", "/v3/rooms/"+room+"/send/m.room.message/1?org.matrix.msc4140.delay=60000", s.wendy, `{"body":"x"}`).ok().str("delay_id")
	s.do("POST", "/unstable/org.matrix.msc4140/delayed_events/"+id, "", `{"action":"restart"}`).ok()
	s.do("POST", "/unstable/org.matrix.msc4140/delayed_events/"+id, "", `{"action":"cancel"}`).ok()
}

func decoded(t *testing.T, body string) (m map[string]any) {
	t.Helper()
	if err := json.Unmarshal([]byte(body), &m); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	return m
}

func TestWhatSomebodyWasNotifiedOfIsListed(t *testing.T) {
	s := newSiege(t, storagetest.Open(t, storagetest.SQLiteURL(t)))
	s.clock.Advance(time.Since(s.clock.Now())) // push looks 30 days back from now
	room := esc(s.room)
	s.do("PUT", "/v3/rooms/"+room+"/send/m.room.message/1", s.alice, `{"msgtype":"m.text","body":"one"}`).ok()
	id := s.do("PUT", "/v3/rooms/"+room+"/send/m.room.message/2", s.alice, `{"msgtype":"m.text","body":"two"}`).ok().str("event_id")
	list := s.do("GET", "/v3/notifications?limit=1", s.wendy, nil).ok().m["notifications"].([]any)
	if len(list) != 1 {
		t.Fatalf("%d notifications", len(list))
	}
	n := list[0].(map[string]any)
	if e := n["event"].(map[string]any); e["event_id"] != id || n["room_id"] != s.room || n["read"] != false {
		t.Errorf("the newest is %v", n)
	}
	s.do("GET", "/v3/notifications?limit=x", s.wendy, nil).refused(400, "M_INVALID_PARAM")
	s.do("GET", "/v3/notifications", "", nil).refused(401, "M_MISSING_TOKEN")
}
