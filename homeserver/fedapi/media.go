// SPDX-License-Identifier: Apache-2.0

package fedapi

import (
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/media"
)

// routesMedia: "Content Repository". Only our own content is given out.
func (a *API) routesMedia() {
	if a.Media == nil {
		return
	}
	a.route("GET "+federationV1+"/media/download/{media}", Signed, 0, func(r *Request) (any, error) {
		wait, err := r.IntParam("timeout_ms", 20_000, 0, 60_000)
		if err != nil {
			return nil, err
		}
		c, err := a.Media.Open(r.Context(), a.Federation.Server(), r.PathValue("media"), time.Duration(wait)*time.Millisecond)
		if err != nil {
			return nil, err
		}
		return r.sendContent(c)
	})
	a.route("GET "+federationV1+"/media/thumbnail/{media}", Signed, 0, func(r *Request) (any, error) {
		want, err := media.AskedThumb(r)
		if err != nil {
			return nil, err
		}
		wait, err := r.IntParam("timeout_ms", 20_000, 0, 60_000)
		if err != nil {
			return nil, err
		}
		c, err := a.Media.Thumbnail(r.Context(), a.Federation.Server(), r.PathValue("media"), want, time.Duration(wait)*time.Millisecond)
		if err != nil {
			return nil, err
		}
		return r.sendContent(c)
	})
}

// Answers with content may take long, but not for ever: a server must keep up slowest bytes per second after the first half minute.
const (
	slowest = 4 << 10
	grace   = 30 * time.Second
)

// sendContent answers with multipart/mixed: an empty object, which is for metadata, and the content.
func (r *Request) sendContent(c *media.Content) (any, error) {
	defer c.File.Close()
	w := r.Writer()
	parts := multipart.NewWriter(w)
	w.Header().Set("Content-Type", "multipart/mixed; boundary="+parts.Boundary())
	rc := http.NewResponseController(w)
	if rc.SetWriteDeadline(time.Now().Add(grace+time.Duration(c.Size/slowest)*time.Second)) == nil {
		defer func() { _ = rc.SetWriteDeadline(time.Time{}) }()
	}
	meta, err := parts.CreatePart(textproto.MIMEHeader{"Content-Type": {"application/json"}})
	if err != nil {
		return nil, err
	}
	if _, err := io.WriteString(meta, "{}"); err != nil {
		return Written{}, nil // the server is gone
	}
	var named map[string]string
	if c.Name != "" {
		named = map[string]string{"filename": c.Name}
	}
	h := textproto.MIMEHeader{"Content-Type": {c.Type}, "Content-Length": {fmt.Sprint(c.Size)}, "Content-Disposition": {mime.FormatMediaType("attachment", named)}}
	content, err := parts.CreatePart(h)
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(content, c.File); err != nil {
		return Written{}, nil
	}
	_ = parts.Close()
	return Written{}, nil
}
