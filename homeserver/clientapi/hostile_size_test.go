// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/gif"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
)

// soon fails when f takes longer than a hostile request may hold a server up, on a machine that is busy with other tests too.
func (s *siege) soon(what string, f func()) {
	s.t.Helper()
	started := time.Now()
	f()
	if d := time.Since(started); d > 5*time.Second {
		s.t.Errorf("%s took %v", what, d)
	}
}

// upload gives "SERVER/ID" of what mallory uploads.
func (s *siege) upload(contentType, name, body string) string {
	s.t.Helper()
	res, b := ask(s.t.(*testing.T), "POST", s.url+"/_matrix/media/v3/upload?filename="+url.QueryEscape(name), s.mallory, contentType, body)
	uri := gjson.Get(b, "content_uri").Str
	if res.StatusCode != 200 || uri == "" {
		s.t.Fatalf("upload: %d %s", res.StatusCode, b)
	}
	return strings.TrimPrefix(uri, "mxc://")
}

// hugePNG is a PNG of a few bytes that says it has w x h pixels.
func hugePNG(w, h uint32) string {
	var b bytes.Buffer
	b.WriteString("\x89PNG\r\n\x1a\n")
	chunk := func(kind string, data []byte) {
		_ = binary.Write(&b, binary.BigEndian, uint32(len(data)))
		body := append([]byte(kind), data...)
		b.Write(body)
		_ = binary.Write(&b, binary.BigEndian, crc32.ChecksumIEEE(body))
	}
	head := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, w), h)
	chunk("IHDR", append(head, 8, 6, 0, 0, 0))
	chunk("IDAT", []byte("x\x9cc\x00\x00\x00\x01\x00\x01"))
	chunk("IEND", nil)
	return b.String()
}

// attacksBySize are C24 to C29, C32 to C35 and C38 of the catalogue.
func attacksBySize() []attack {
	return []attack{
		{"C24 a filter of a hundred thousand entries is refused, and the largest that is taken is quick", func(s *siege) {
			many := func(n int) string {
				return `{"room":{"timeline":{"not_senders":["@a:b"` + strings.Repeat(`,"@a*:b"`, n) + `]}}}`
			}
			s.soon("a large filter", func() {
				s.do("POST", "/v3/user/@mallory:test/filter", s.mallory, many(100_000)).refused(413, "M_TOO_LARGE")
				s.do("GET", "/v3/sync?filter="+url.QueryEscape(many(12_000)), s.mallory, nil).oneOf("M_TOO_LARGE", "M_INVALID_PARAM")
				a := s.do("POST", "/v3/user/@mallory:test/filter", s.mallory, many(5_000))
				if a.status == 200 {
					s.do("GET", "/v3/sync?filter="+a.str("filter_id"), s.mallory, nil).ok()
				} else {
					a.oneOf("M_TOO_LARGE", "M_INVALID_PARAM", "M_BAD_JSON")
				}
			})
		}},
		{"C25 a place in the stream that the server did not give is refused or means nothing", func(s *siege) {
			token := s.do("GET", "/v3/sync", s.mallory, nil).ok().str("next_batch")
			for _, since := range []string{"-1", "x", "s", "s-1", "s_-1", token + "x", token + token, token[:1], "s99999999999999999999999999", strings.Repeat("9", 5000), " ", "😀", token + "_0_0_0_0_0_0_0"} {
				s.do("GET", "/v3/sync?since="+url.QueryEscape(since), s.mallory, nil).refused(400, "M_INVALID_PARAM")
			}
			var forged strings.Builder // the same, in the far future
			for _, c := range token {
				if c >= '0' && c <= '9' {
					c = '8'
				}
				forged.WriteRune(c)
			}
			for _, since := range []string{forged.String(), strings.ReplaceAll(forged.String(), "8", "88888888")} {
				if a := s.do("GET", "/v3/sync?since="+url.QueryEscape(since), s.mallory, nil); strings.Contains(a.body, s.room) || a.status >= 400 && a.str("errcode") != "M_INVALID_PARAM" {
					s.t.Errorf("%s: %d %s", since, a.status, a.body)
				}
			}
			for _, pos := range []string{"x", "-1", "999999", "1/1", strings.Repeat("9", 5000)} {
				s.do("POST", "/unstable/org.matrix.simplified_msc3575/sync?pos="+pos, s.mallory, `{}`).oneOf("M_UNKNOWN_POS", "M_INVALID_PARAM")
			}
		}},
		{"C26 no pattern of a push rule takes long to match", func(s *siege) {
			room := s.newRoom(s.mallory, `{"preset":"public_chat"}`)
			s.do("POST", "/v3/join/"+esc(room), s.bob, `{}`).ok()
			for i, pattern := range []string{strings.Repeat("*a", 200) + "b", strings.Repeat("a*", 250), strings.Repeat("?", 500), strings.Repeat("*", 500), "[" + strings.Repeat("a", 100) + "*(.*)+$"} {
				s.do("PUT", fmt.Sprintf("/v3/pushrules/global/content/g%d", i), s.bob, map[string]any{"actions": []string{"notify"}, "pattern": pattern}).ok()
				s.do("PUT", fmt.Sprintf("/v3/pushrules/global/override/g%d", i), s.bob, map[string]any{"actions": []string{}, "conditions": []any{map[string]any{"kind": "event_match", "key": "content.body", "pattern": pattern}}}).ok()
			}
			s.soon("a message for hostile push rules", func() {
				id := s.do("PUT", "/v3/rooms/"+esc(room)+"/send/m.room.message/glob", s.mallory, map[string]any{"msgtype": "m.text", "body": strings.Repeat("a", 60_000)}).ok().str("event_id")
				if a := s.do("GET", "/v3/sync", s.bob, nil).ok(); !strings.Contains(a.body, id) {
					s.t.Error("bob does not have the message")
				}
			})
		}},
		{"C27 push rules have an end, and a place after the last one", func(s *siege) {
			token := s.person("ruler")
			put := func(id, query string) answer {
				return s.do("PUT", "/v3/pushrules/global/override/"+id+query, token, `{"actions":[]}`)
			}
			put("r0", "").ok()
			n, last := 1, answer{}
			for last = put("r1", "?after=r0"); last.status == 200 && n < 10_000; n++ {
				last = put(fmt.Sprint("r", n+1), fmt.Sprint("?after=r", n))
			}
			if last.status < 400 || last.status >= 500 || last.str("errcode") == "" || n > 1000 {
				s.t.Errorf("%d rules, then %d %s", n, last.status, last.body)
			}
			put("r0", fmt.Sprint("?after=r", n-1)).ok()
			put("r0", "?after=nothing").refused(400, "M_UNKNOWN")
			put("r0", "?before=.m.rule.master").oneOf("M_UNKNOWN", "M_INVALID_PARAM")
			put("r0", "?after=r0").oneOf("M_UNKNOWN", "M_INVALID_PARAM")
			s.do("GET", "/v3/pushrules/", token, nil).ok()
		}},
		{"C28 nothing of ten megabytes is kept", func(s *siege) {
			big := strings.Repeat("A", 10<<20)
			room := "/v3/rooms/" + esc(s.newRoom(s.mallory, `{"preset":"private_chat"}`))
			for _, x := range [][3]string{{"PUT", "/v3/user/@mallory:test/account_data/x", "a"}, {"PUT", "/v3/profile/@mallory:test/displayname", "displayname"}, {"PUT", "/v3/devices/MALLORY", "display_name"}, {"PUT", room + "/state/m.room.name", "name"},
				{"PUT", room + "/send/m.room.message/big", "body"}, {"POST", "/v3/createRoom", "topic"}, {"PUT", "/v3/sendToDevice/x/big", "messages"}, {"POST", "/v3/keys/upload", "device_keys"}, {"POST", "/v3/search", "search_term"}, {"POST", "/v3/login", "password"}} {
				res, b := ask(s.t.(*testing.T), x[0], s.url+"/_matrix/client"+x[1], s.mallory, "application/json", `{"`+x[2]+`":"`+big+`"}`)
				if res.StatusCode != 413 || gjson.Get(b, "errcode").Str != "M_TOO_LARGE" {
					s.t.Errorf("%s: %d %.200s", x[1], res.StatusCode, b)
				}
			}
			s.do("PUT", "/v3/profile/@mallory:test/displayname", s.mallory, map[string]any{"displayname": strings.Repeat("A", 100_000)}).oneOf("M_TOO_LARGE", "M_INVALID_PARAM", "M_PROFILE_TOO_LARGE", "M_BAD_JSON")
			s.do("PUT", "/v3/devices/MALLORY", s.mallory, map[string]any{"display_name": strings.Repeat("A", 100_000)}).oneOf("M_TOO_LARGE", "M_INVALID_PARAM", "M_BAD_JSON")
			s.do("PUT", room+"/send/m.room.message/big", s.mallory, map[string]any{"body": big[:66_000]}).refused(413, "M_TOO_LARGE")
			s.do("PUT", room+"/state/m.room.name", s.mallory, map[string]any{"name": big[:66_000]}).refused(413, "M_TOO_LARGE")
		}},
		{"C29 hundreds of slow writers, slow readers and idle syncs leave the others alone", func(s *siege) {
			since := s.do("GET", "/v3/sync", s.mallory, nil).ok().str("next_batch")
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			head := " HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer " + s.mallory + "\r\n"
			for i := range 600 {
				conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
				if err != nil {
					s.t.Fatal(err)
				}
				defer conn.Close()
				text := "GET /_matrix/client/v3/sync?timeout=60000&since=" + url.QueryEscape(since) + head + "\r\n"
				switch i % 3 {
				case 1: // a body that never comes
					text = "PUT /_matrix/client/v3/user/@mallory:test/account_data/slow" + head + "Content-Length: 200000\r\n\r\n{"
				case 2: // half a head
					text = "GET /_matrix/client/v3/sync" + head
				}
				if _, err := io.WriteString(conn, text); err != nil {
					s.t.Fatal(err)
				}
			}
			s.soon("a request beside them", func() { s.unaffected() })
			runtime.GC()
			runtime.ReadMemStats(&after)
			if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 150<<20 {
				s.t.Errorf("600 idle connections take %d MiB", grown>>20)
			}
		}},
		{"C32 no path leads out of the media store", func(s *siege) {
			for _, id := range []string{"../../../../etc/passwd", "..%2f..%2f..%2fetc%2fpasswd", "%2e%2e%2f%2e%2e%2fetc", "..", ".", "a%00", "%00", "a%2fb", `a%5cb`, "%252e%252e", "~root", strings.Repeat("a", 5000), "%ff"} {
				for _, base := range []string{"/_matrix/client/v1/media/download/", "/_matrix/client/v1/media/thumbnail/", "/_matrix/media/v3/download/"} {
					for _, path := range []string{base + "test/" + id, base + id + "/x", base + "test/" + id + "/name"} {
						a := s.do("GET", path+"?width=1&height=1", s.mallory, nil)
						if a.status < 400 || strings.Contains(a.body, "root:") {
							s.t.Errorf("%s: %d %s", path, a.status, a.body)
						}
					}
				}
			}
			for _, name := range []string{"../../x", "a/b", `..\..\x`, "\u202egpj.exe", `a"b`, "a\r\nSet-Cookie: x=y"} {
				res, b := ask(s.t.(*testing.T), "POST", s.url+"/_matrix/media/v3/upload?filename="+url.QueryEscape(name), s.mallory, "text/plain", "x")
				if res.StatusCode >= 500 {
					s.t.Errorf("%q: %d %s", name, res.StatusCode, b)
				}
				if res.StatusCode == 200 {
					res, _ := ask(s.t.(*testing.T), "GET", s.url+"/_matrix/client/v1/media/download/"+strings.TrimPrefix(gjson.Get(b, "content_uri").Str, "mxc://"), s.mallory, "", "")
					_, params, err := mime.ParseMediaType(res.Header.Get("Content-Disposition"))
					if err != nil || params["filename"] != name || res.Header.Get("Set-Cookie") != "" {
						s.t.Errorf("%q is given as %q: %v", name, res.Header.Get("Content-Disposition"), err)
					}
				}
			}
		}},
		{"C33 a picture that grows when it is read is not read", func(s *siege) {
			frames := &gif.GIF{}
			for range 5000 {
				frames.Image = append(frames.Image, image.NewPaletted(image.Rect(0, 0, 8, 8), color.Palette{color.Black, color.White}))
				frames.Delay = append(frames.Delay, 1)
			}
			var moving bytes.Buffer
			if err := gif.EncodeAll(&moving, frames); err != nil {
				s.t.Fatal(err)
			}
			for what, body := range map[string]string{
				"a PNG of 65,535 x 65,535":     hugePNG(65535, 65535),
				"a PNG of 2^31-1 x 2^31-1":     hugePNG(1<<31-1, 1<<31-1),
				"a PNG of 0 x 0":               hugePNG(0, 0),
				"a PNG of 2^31-1 x 1":          hugePNG(1<<31-1, 1),
				"a GIF of 65,535 x 65,535":     "GIF89a\xff\xff\xff\xff\x80\x00\x00\x00\x00\x00\xff\xff\xff,\x00\x00\x00\x00\xff\xff\xff\xff\x00\x02\x02\x44\x01\x00;",
				"a GIF with 5,000 frames":      moving.String(),
				"a lossless WebP of 16k x 16k": "RIFF\x20\x00\x00\x00WEBPVP8L\x14\x00\x00\x00\x2f\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
				"a WebP of 2^24 x 2^24":        "RIFF\x20\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x10\x00\x00\x00\xff\xff\xff\xff\xff\xffVP8 \x00\x00\x00\x00",
				"a TIFF":                       "II*\x00\x08\x00\x00\x00\x02\x00\x00\x01\x03\x00\x01\x00\x00\x00\xff\xff\x00\x00\x01\x01\x03\x00\x01\x00\x00\x00\xff\xff\x00\x00",
				"a BMP":                        "BM\x00\x00\x00\x00\x00\x00\x00\x006\x00\x00\x00(\x00\x00\x00\xff\xff\x00\x00\xff\xff\x00\x00\x01\x00\x18\x00",
				"an SVG with entities":         `<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><svg xmlns="http://www.w3.org/2000/svg"><text>&b;</text></svg>`,
				"a JPEG that is cut":           "\xff\xd8\xff\xc0\x00\x11\x08\xff\xff\xff\xff\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01",
			} {
				for _, typ := range []string{"image/png", "image/jpeg", "text/html"} {
					at := s.upload(typ, "a", body)
					s.soon(what, func() {
						for _, more := range []string{"&animated=true", "&method=crop", ""} {
							a := s.do("GET", "/_matrix/client/v1/media/thumbnail/"+at+"?width=64&height=64"+more, s.mallory, nil)
							if a.status >= 400 {
								a.oneOf("M_UNKNOWN", "M_TOO_LARGE", "M_NOT_FOUND", "M_INVALID_PARAM")
							}
						}
					})
				}
			}
		}},
		{"C34 an upload over the limit is cut, whatever it says of itself", func(s *siege) {
			for _, typ := range []string{"multipart/form-data; boundary=" + strings.Repeat("x", 5000), "multipart/mixed", "", "x", "application/x-www-form-urlencoded", "a/b; c=\"\\\xff", strings.Repeat("a", 10_000)} {
				for _, n := range []int{1<<20 + 1, 8 << 20} {
					for _, chunked := range []bool{false, true} {
						var body io.Reader = bytes.NewReader(make([]byte, n))
						if chunked {
							body = io.MultiReader(body)
						}
						req, err := http.NewRequestWithContext(s.t.(*testing.T).Context(), "POST", s.url+"/_matrix/media/v3/upload", body)
						if err != nil {
							s.t.Fatal(err)
						}
						req.Header.Set("Authorization", "Bearer "+s.mallory)
						req.Header["Content-Type"] = []string{typ}
						res, err := http.DefaultClient.Do(req)
						if err != nil {
							continue // the connection was cut while the body was on its way, which is an answer too
						}
						b, _ := io.ReadAll(res.Body)
						res.Body.Close()
						if res.StatusCode != 413 && res.StatusCode != 400 {
							s.t.Errorf("%.30q %d chunked %v: %d %s", typ, n, chunked, res.StatusCode, b)
						}
					}
				}
			}
		}},
		{"C35 no type in any writing makes a browser run what was uploaded", func(s *siege) {
			const script = `<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>`
			for _, typ := range []string{"text/html", "TEXT/HTML", "text/html;charset=utf-8", "text/html ; x=y", "image/svg+xml", "Image/SVG+xml", "image/svg+xml; charset=x", "application/xhtml+xml", "text/xml", "application/javascript", "text/plain, text/html", "image/png, text/html", "", " ", "/", "text/html;"} {
				at := s.upload(typ, `x".html`, script)
				for _, base := range []string{"/_matrix/client/v1/media/download/", "/_matrix/media/v3/download/"} {
					res, _ := ask(s.t.(*testing.T), "GET", s.url+base+at, s.mallory, "", "")
					h := res.Header
					if !strings.HasPrefix(h.Get("Content-Disposition"), "attachment") || !strings.Contains(h.Get("Content-Security-Policy"), "sandbox") || !strings.Contains(h.Get("Content-Security-Policy"), "script-src 'none'") || h.Get("X-Content-Type-Options") != "nosniff" {
						s.t.Errorf("%q: %d %v", typ, res.StatusCode, h)
					}
				}
			}
		}},
		{"C38 no answer of the API is a page", func(s *siege) {
			const script = "<script>alert(1)</script>"
			for _, path := range []string{"/_matrix/client/v3/" + url.PathEscape(script), "/_matrix/client/v3/sync?since=" + url.QueryEscape(script), "/_matrix/client/v3/profile/" + url.PathEscape(script), "/_matrix/client/v3/directory/room/" + url.PathEscape("#"+script+":test"),
				"/_matrix/media/v3/download/test/" + url.PathEscape(script), "/_matrix/client/v3/login/sso/redirect?redirectUrl=javascript:alert(1)", "/_matrix/client/v3/auth/m.login.recaptcha/fallback/web?session=" + url.QueryEscape(script), "/_matrix/static/", "/_synapse/" + url.PathEscape(script)} {
				res, b := ask(s.t.(*testing.T), "GET", s.url+path, s.mallory, "", "", "Accept", "text/html")
				if res.StatusCode < 400 || res.StatusCode >= 500 || !strings.HasPrefix(res.Header.Get("Content-Type"), "application/json") || res.Header.Get("X-Content-Type-Options") != "nosniff" || res.Header.Get("Location") != "" {
					s.t.Errorf("%s: %d %v %s", path, res.StatusCode, res.Header, b)
				}
			}
		}},
	}
}

// C31 of the catalogue.
func TestHostileTransactionIsDoneOnceAcrossARestart(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		s := newSiege(t, st)
		room := s.newRoom(s.mallory, `{"preset":"private_chat"}`)
		path := "/v3/rooms/" + esc(room) + "/send/m.room.message/once"
		first := s.do("PUT", path, s.mallory, `{"body":"1"}`).ok().str("event_id")
		s.wire(st)
		if again := s.do("PUT", path, s.mallory, `{"body":"1"}`).ok().str("event_id"); again != first {
			t.Errorf("%s became %s", first, again)
		}
		if n := strings.Count(s.do("GET", "/v3/rooms/"+esc(room)+"/messages?dir=b", s.mallory, nil).ok().body, `"m.room.message"`); n != 1 {
			t.Errorf("%d messages", n)
		}
		s.unaffected()
	})
}
