// SPDX-License-Identifier: Apache-2.0

package web

import (
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"strings"
)

// ElementCallPath is where a folder with Element Call's embedded build is served, if the operator has put one into the data folder.
const ElementCallPath = "/element-call/"

// Options is what the application is told about this server, at /config.json.
type Options struct {
	// ElementCall is where the embedded build of Element Call is: ElementCallPath, or an absolute URL; "" if there is none. Group calls
	// run in a frame from there.
	ElementCall string
	// EmbedFrom is whose pages may show the meeting page in a frame: origins such as https://wiki.example.org, or "*" for everybody's.
	// The page's own origin always may.
	EmbedFrom []string
	// PublicURL is where clients reach this server, and so where media sessions are; "" if it is where the page came from.
	PublicURL string
}

// origin is the origin of an absolute URL, "" for a path of this server.
func origin(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

// Folder serves static files that were not made by us, such as Element Call's: their own scripts decide what they may load, but nobody
// else may put them into a frame. It lists no folders and follows no names that begin with a dot.
func Folder(files fs.FS) http.Handler {
	server := http.FileServerFS(visible{files})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "frame-ancestors 'self'; object-src 'none'; base-uri 'self'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-cache")
		if strings.HasPrefix(strings.TrimPrefix(r.URL.Path, "/"), "assets/") {
			h.Set("Cache-Control", "public, max-age=31536000, immutable") // the names hold a hash of the content
		}
		if t := contentType(r.URL.Path); path.Ext(r.URL.Path) != "" {
			h.Set("Content-Type", t)
		}
		server.ServeHTTP(w, r)
	})
}

// visible hides folders' listings and names that begin with a dot.
type visible struct{ fs.FS }

// Open implements fs.FS.
func (v visible) Open(name string) (fs.File, error) {
	for part := range strings.SplitSeq(name, "/") {
		if strings.HasPrefix(part, ".") && part != "." {
			return nil, fs.ErrNotExist
		}
	}
	f, err := v.FS.Open(name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		index, missing := v.FS.Open(path.Join(name, "index.html"))
		if missing != nil {
			_ = f.Close()
			return nil, fs.ErrNotExist
		}
		_ = index.Close()
	}
	return f, err
}
