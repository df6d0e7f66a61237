// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/media"
	"github.com/trunkboard/trunkboard/signalling"
)

// routesMedia: "Content repository". The paths without authentication are deprecated since v1.11 and still asked for by e-mail
// notifications, bridges and old clients.
func (a *API) routesMedia() {
	if a.Media == nil {
		return
	}
	a.route("POST /_matrix/media/v1/create", Token, "uploads", a.mediaCreate)
	a.route("PUT /_matrix/media/v3/upload/{server}/{media}", Token, "uploads", a.mediaFill)
	a.route("GET /_matrix/client/v1/media/config", AnyUser, "requests", a.mediaConfig)
	a.route("GET /_matrix/client/v1/media/download/{server}/{media}", AnyUser, "requests", a.mediaDownload)
	a.route("GET /_matrix/client/v1/media/download/{server}/{media}/{name}", AnyUser, "requests", a.mediaDownload)
	a.route("GET /_matrix/client/v1/media/thumbnail/{server}/{media}", AnyUser, "requests", a.mediaThumbnail)
	for _, old := range []string{"v3", "v1", "r0"} {
		base := "/_matrix/media/" + old
		a.route("POST "+base+"/upload", Token, "uploads", a.mediaUpload)
		a.route("GET "+base+"/config", AnyUser, "requests", a.mediaConfig)
		a.route("GET "+base+"/download/{server}/{media}", Open, "requests", a.mediaDownload)
		a.route("GET "+base+"/download/{server}/{media}/{name}", Open, "requests", a.mediaDownload)
		a.route("GET "+base+"/thumbnail/{server}/{media}", Open, "requests", a.mediaThumbnail)
	}
}

func (a *API) mediaConfig(*Request) (any, error) {
	return map[string]int64{"m.upload.size": a.Media.MaxUpload()}, nil
}

func (a *API) mediaUpload(r *Request) (any, error) {
	uri, err := a.Media.Upload(r.Context(), r.UserID, r.incoming())
	if err != nil {
		return nil, r.hangUp(err)
	}
	return map[string]string{"content_uri": uri}, nil
}

func (a *API) mediaCreate(r *Request) (any, error) {
	uri, expires, err := a.Media.Create(r.Context(), r.UserID)
	if err != nil {
		return nil, err
	}
	return map[string]any{"content_uri": uri, "unused_expires_at": expires.UnixMilli()}, nil
}

func (a *API) mediaFill(r *Request) (any, error) {
	return nil, r.hangUp(a.Media.Fill(r.Context(), r.UserID, r.PathValue("server"), r.PathValue("media"), r.incoming()))
}

func (r *Request) incoming() media.Incoming {
	return media.Incoming{
		Body: &unhurried{body: r.Body, rc: r.Controller(), started: time.Now()}, Length: r.ContentLength,
		ContentType: r.Header.Get("Content-Type"), FileName: r.Param("filename"),
	}
}

// hangUp makes a refused upload the last request of its connection: the rest of the body is not worth reading.
func (r *Request) hangUp(err error) error {
	if err != nil && r.ContentLength != 0 {
		r.AnswerHeader().Set("Connection", "close")
	}
	return err
}

// Bodies of uploads, and answers with content, may take long, but not for ever: a client must keep up slowest bytes per second on
// average after the first half minute.
const (
	slowest = 4 << 10
	grace   = 30 * time.Second
)

func allowance(bytes int64) time.Duration {
	return grace + time.Duration(bytes/slowest)*time.Second
}

// unhurried is a body whose reader is cut off when the client is slower than slowest.
type unhurried struct {
	body    io.Reader
	rc      *http.ResponseController
	started time.Time
	read    int64
}

func (u *unhurried) Read(p []byte) (n int, err error) {
	if derr := u.rc.SetReadDeadline(u.started.Add(allowance(u.read))); derr == nil {
		defer func() {
			if err != nil { // the connection goes on to its next request
				_ = u.rc.SetReadDeadline(time.Time{})
			}
		}()
	}
	n, err = u.body.Read(p)
	u.read += int64(n)
	return n, err
}

// wait is how long the client lets us wait for content that was announced only.
func (r *Request) mediaWait() (time.Duration, error) {
	ms, err := r.IntParam("timeout_ms", 20_000, 0, 60_000)
	return time.Duration(ms) * time.Millisecond, err
}

func (a *API) mediaDownload(r *Request) (any, error) {
	wait, err := r.mediaWait()
	if err != nil {
		return nil, err
	}
	name := r.PathValue("name")
	if !media.ValidName(name) {
		return nil, signalling.InvalidParam("not a file name")
	}
	c, err := a.Media.Open(r.Context(), r.PathValue("server"), r.PathValue("media"), wait)
	if err != nil {
		return nil, err
	}
	defer c.File.Close()
	if name != "" {
		c.Name = name
	}
	return r.sendContent(c, inlineType(c.Type))
}

func (a *API) mediaThumbnail(r *Request) (any, error) {
	want, err := media.AskedThumb(r)
	if err != nil {
		return nil, err
	}
	wait, err := r.mediaWait()
	if err != nil {
		return nil, err
	}
	c, err := a.Media.Thumbnail(r.Context(), r.PathValue("server"), r.PathValue("media"), want, wait)
	if err != nil {
		return nil, err
	}
	defer c.File.Close()
	return r.sendContent(c, true)
}

// sendContent answers with a file, or with the range of it that was asked for. Whatever it is, a browser that shows it runs no
// script of it, guesses no other type, and treats it as a page of nobody.
func (r *Request) sendContent(c *media.Content, inline bool) (any, error) {
	h := r.AnswerHeader()
	h.Set("Content-Type", c.Type)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; style-src 'unsafe-inline'; object-src 'self';")
	h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	h.Set("Cache-Control", "private, max-age=31536000, immutable") // the content of a media id never changes
	h.Set("ETag", `"`+c.Tag+`"`)
	disposition := "attachment"
	if inline {
		disposition = "inline"
	}
	var params map[string]string
	if c.Name != "" {
		params = map[string]string{"filename": c.Name}
	}
	h.Set("Content-Disposition", mime.FormatMediaType(disposition, params))
	w := &statusWriter{ResponseWriter: r.Writer()}
	rc := r.Controller()
	if rc.SetWriteDeadline(time.Now().Add(allowance(c.Size))) == nil {
		defer func() { _ = rc.SetWriteDeadline(time.Time{}) }()
	}
	http.ServeContent(w, r.Request, "", c.Modified, c.File)
	return Written{Status: w.status}, nil
}

// statusWriter remembers the status, and keeps the way to sendfile open.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// ReadFrom lets the connection copy the file by itself.
func (w *statusWriter) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(w.ResponseWriter, r)
}

// inlineType says that a browser may show content of this type in place ("Serving inline content").
func inlineType(contentType string) bool {
	t, _, err := mime.ParseMediaType(contentType) // in lower case
	if err != nil {
		return false
	}
	switch t {
	case "text/css", "text/plain", "text/csv", "application/json", "application/ld+json":
		return true
	}
	kind, sub, _ := strings.Cut(t, "/")
	switch kind {
	case "image":
		return slices.Contains([]string{"jpeg", "gif", "png", "apng", "webp", "avif"}, sub)
	case "video":
		return slices.Contains([]string{"mp4", "webm", "ogg", "quicktime"}, sub)
	case "audio":
		return slices.Contains([]string{"mp4", "webm", "aac", "mpeg", "ogg", "wave", "wav", "x-wav", "x-pn-wav", "flac", "x-flac"}, sub)
	}
	return false
}
