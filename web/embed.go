// SPDX-License-Identifier: Apache-2.0

// Package web serves the browser side of Trunkboard out of the binary: the client at / is a single-page application, meetings
// and the doctor are pages of their own; all built by Vite from web/app into web/dist and embedded from there.
//
//	/assets/<name>-<hash>.js    the content never changes under its name: cached for a year
//	any other file              asked again each time, answered 304 by its ETag
//	/doctor                     doctor.html, whether calls work from this browser
//	/licences.txt               what of others is in this binary (cmd/licences)
//	/external_api.js            the script by which pages of others show meetings of this server
//	/meet/<name>, /<name>       meet.html, the page of a meeting
//	any other path              index.html: the application reads the path itself
package web

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"
)

// dist is what `make web` built; a checkout holds only an empty .keep there, so that the package compiles before that.
//
//go:embed all:dist
var dist embed.FS

// The policy that browsers hold the application to: code, styles and connections from this server only; WebAssembly for the
// end-to-end encryption; pictures and media also from memory, where decrypted attachments live. %s is whose frames may be shown besides.
const contentSecurityPolicy = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; connect-src 'self' blob:; " +
	"img-src 'self' blob: data:; media-src 'self' blob: mediastream:; font-src 'self'; worker-src 'self' blob:; manifest-src 'self'; " +
	"frame-src 'self'%s; frame-ancestors 'self'; base-uri 'none'; form-action 'self'; object-src 'none'"

// Handler serves the application embedded in this binary, or says how to build it when it is not there.
func Handler(o Options) (http.Handler, error) {
	built, err := fs.Sub(dist, "dist")
	if err != nil {
		return nil, err
	}
	return serve(built, o)
}

// Licences is what this binary contains of others, each with its licence; "" where `make build` did not make it.
func Licences() string {
	text, err := dist.ReadFile("dist/licences.txt")
	if err != nil {
		return ""
	}
	return string(text)
}

// asset is one file, ready to send.
type asset struct {
	name    string
	kind    string        // Content-Type
	plain   func() form   // read at the first request: a server that nobody opens in a browser has no memory to spare for it
	smaller func() []byte // gzip, made at the first request that takes it; nil when it saves nothing
}

// form is the bytes of a file and their ETag, without its last quote.
type form struct {
	body []byte
	tag  string
}

type app struct {
	files       map[string]*asset
	config      []byte // of /config.json
	policy      string
	meetings    string // the policy of their page
	permissions string
}

// serve makes a handler of files.
func serve(files fs.FS, o Options) (http.Handler, error) {
	config, err := json.Marshal(map[string]string{"element_call": o.ElementCall})
	if err != nil {
		return nil, err
	}
	a := &app{files: map[string]*asset{}, config: config, meetings: policyOfMeetings(o), policy: fmt.Sprintf(contentSecurityPolicy, ""), permissions: fmt.Sprintf(permissionsPolicy, "", "", "")}
	if other := origin(o.ElementCall); other != "" {
		quoted := ` "` + other + `"`
		a.policy, a.permissions = fmt.Sprintf(contentSecurityPolicy, " "+other), fmt.Sprintf(permissionsPolicy, quoted, quoted, quoted)
	}
	err = fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasPrefix(path.Base(name), ".") {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		a.files[name] = newAsset(files, name, info.Size())
		return nil
	})
	if err != nil {
		return nil, err
	}
	if a.files["index.html"] == nil {
		return http.HandlerFunc(a.notBuilt), nil
	}
	return a, nil
}

func newAsset(files fs.FS, name string, size int64) *asset {
	f := &asset{name: name, kind: contentType(name)}
	f.plain = sync.OnceValue(func() form {
		content, err := fs.ReadFile(files, name)
		if err != nil {
			panic(err) // it was in the listing; the embedded files do not fail
		}
		sum := sha256.Sum256(content)
		return form{content, `"` + base64.RawURLEncoding.EncodeToString(sum[:12])}
	})
	if compressible(f.kind) && size > 1024 {
		f.smaller = sync.OnceValue(func() []byte {
			var b bytes.Buffer
			w, _ := gzip.NewWriterLevel(&b, gzip.BestCompression) // fails for unknown levels only
			w.Write(f.plain().body)                               // a bytes.Buffer takes everything
			w.Close()
			return b.Bytes()
		})
	}
	return f
}

// contentType does not ask the machine's own tables, which differ from one to the next.
func contentType(name string) string {
	switch path.Ext(name) {
	case ".html":
		return "text/html; charset=utf-8"
	case ".js", ".mjs":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".json", ".map", ".webmanifest":
		return "application/json"
	case ".svg":
		return "image/svg+xml"
	case ".txt":
		return "text/plain; charset=utf-8"
	case ".wasm":
		return "application/wasm"
	case ".woff2":
		return "font/woff2"
	case ".mp3":
		return "audio/mpeg"
	case ".ogg":
		return "audio/ogg"
	}
	if t := mime.TypeByExtension(path.Ext(name)); t != "" {
		return t
	}
	return "application/octet-stream"
}

func compressible(kind string) bool {
	return strings.HasPrefix(kind, "text/") || kind == "application/json" || kind == "application/wasm" || kind == "image/svg+xml"
}

// ServeHTTP answers GET and HEAD.
func (a *app) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "only GET and HEAD are answered here", http.StatusMethodNotAllowed)
		return
	}
	a.secure(w.Header())
	if r.URL.Path == "/config.json" {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-cache")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(a.config))
		return
	}
	name := strings.TrimPrefix(path.Clean(r.URL.Path), "/")
	if script, is := scriptForOthers(name); is {
		name = script
		openToOthers(w.Header())
	}
	f := a.files[name]
	if f == nil {
		f = a.files[name+".html"] // /doctor is a page of its own
	}
	if f == nil {
		if path.Ext(r.URL.Path) != "" && !strings.HasPrefix(r.URL.Path, "/meet/") {
			http.Error(w, "no such file", http.StatusNotFound)
			return
		}
		f = a.files["index.html"]
		if meet := a.files["meet.html"]; meet != nil && isMeeting(r.URL.Path) {
			f = meet
		}
	}
	if f.name == "meet.html" {
		w.Header().Set("Content-Security-Policy", a.meetings)
	}
	f.send(w, r)
}

func (f *asset) send(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", f.kind)
	h.Set("Cache-Control", "no-cache")
	if strings.HasPrefix(f.name, "assets/") {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	plain := f.plain()
	body, tag := plain.body, plain.tag+`"`
	if f.smaller != nil {
		h.Set("Vary", "Accept-Encoding")
		if acceptsGzip(r) {
			body, tag = f.smaller(), plain.tag+`-gzip"`
			h.Set("Content-Encoding", "gzip")
		}
	}
	h.Set("ETag", tag)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body)) // answers If-None-Match and ranges
}

// acceptsGzip: a range counts bytes of the plain form, so it gets that one.
func acceptsGzip(r *http.Request) bool {
	if r.Header.Get("Range") != "" {
		return false
	}
	for part := range strings.SplitSeq(r.Header.Get("Accept-Encoding"), ",") {
		coding, weight, _ := strings.Cut(strings.TrimSpace(part), ";")
		if coding == "gzip" && strings.TrimSpace(weight) != "q=0" {
			return true
		}
	}
	return false
}

// Which origins may use what; each %s stands for the one of group calls, if that is another.
const permissionsPolicy = "camera=(self%s), microphone=(self%s), display-capture=(self%s), geolocation=(), payment=(), usb=()"

// secure sets the headers that go with every answer.
func (a *app) secure(h http.Header) {
	h.Set("Content-Security-Policy", a.policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Permissions-Policy", a.permissions)
}

func (a *app) notBuilt(w http.ResponseWriter, _ *http.Request) {
	a.secure(w.Header())
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(http.StatusNotFound)
	io.WriteString(w, "<!doctype html><title>Trunkboard</title><h1>Trunkboard is running</h1>"+
		"<p>This binary was built without the web client. Run <code>make build</code> and start it again; the Matrix API works meanwhile.</p>")
}
