// SPDX-License-Identifier: Apache-2.0

// Package preview fetches web pages for people who were sent a link to them, and says what the pages say of themselves (OpenGraph).
//
// Strangers choose the URLs, so a fetch is bounded in time, size and redirects, and goes to public addresses only: the check is made
// on the address that is connected to. A page is asked for once an hour, however many people look at the link.
package preview

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"image"
	_ "image/gif"  // so that sizes of pictures are known
	_ "image/jpeg" // the same
	_ "image/png"  // the same
	"io"
	"iter"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"github.com/trunkboard/trunkboard/homeserver/media"
	"github.com/trunkboard/trunkboard/homeserver/outside"
	"github.com/trunkboard/trunkboard/signalling"
)

const (
	maxURL      = 2048
	maxPage     = 1 << 20
	maxPicture  = 10 << 20
	maxText     = 1000 // bytes of one property
	maxCached   = 1000
	maxParallel = 8
	fresh       = time.Hour
	stale       = time.Minute // for pages that could not be had
	patience    = 15 * time.Second
)

// Service makes previews.
type Service struct {
	client *http.Client
	media  *media.Service
	clock  signalling.Clock
	owner  string // whose uploads the pictures are
	slots  chan struct{}
	ask    singleflight.Group
	kept   *lru.Cache[string, answer]
}

type answer struct {
	body  json.RawMessage
	err   error
	until time.Time
}

// New makes the service; allow lists ranges that may be fetched from although they are not public. Pictures are stored as uploads of
// owner.
func New(m *media.Service, owner string, allow []netip.Prefix, clock signalling.Clock) *Service {
	dial := &net.Dialer{Timeout: 5 * time.Second, Control: outside.Guard{Allow: allow}.Control}
	s := &Service{media: m, clock: clock, owner: owner, slots: make(chan struct{}, maxParallel)}
	s.kept, _ = lru.New[string, answer](maxCached)
	s.client = &http.Client{
		Timeout: patience,
		Transport: &http.Transport{
			DialContext: dial.DialContext, TLSHandshakeTimeout: 5 * time.Second, ResponseHeaderTimeout: 10 * time.Second,
			MaxResponseHeaderBytes: 64 << 10, DisableKeepAlives: true, MaxConnsPerHost: 4,
		},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) >= 5 {
				return errors.New("preview: too many redirects")
			}
			_, err := check(r.URL.String())
			return err
		},
	}
	return s
}

// check reads a URL that may be fetched.
func check(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || len(text) > maxURL || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || u.User != nil {
		return nil, signalling.InvalidParam("url must be of http or https, and at most %d bytes", maxURL)
	}
	u.Fragment, u.RawFragment = "", ""
	return u, nil
}

// errGone is what a stranger hears of a page that cannot be had, whatever the reason: the reasons would tell of our network.
func errGone(cause error) error {
	return signalling.Refuse(http.StatusBadGateway, "M_UNKNOWN", "there is no preview of that page").Because(cause)
}

// Preview gives what a page says of itself, a JSON object of OpenGraph properties. Errors: M_INVALID_PARAM, 502 M_UNKNOWN.
func (s *Service) Preview(ctx context.Context, text string) (json.RawMessage, error) {
	u, err := check(text)
	if err != nil {
		return nil, err
	}
	key := u.String()
	if a, ok := s.kept.Get(key); ok && s.clock.Now().Before(a.until) {
		return a.body, a.err
	}
	c := s.ask.DoChan(key, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*patience)
		defer cancel()
		select {
		case s.slots <- struct{}{}:
			defer func() { <-s.slots }()
		case <-ctx.Done():
			return nil, errGone(ctx.Err())
		}
		a := answer{until: s.clock.Now().Add(fresh)}
		if a.body, a.err = s.make(ctx, u); a.err != nil {
			a.until = s.clock.Now().Add(stale)
		}
		s.kept.Add(key, a)
		return a.body, a.err
	})
	select {
	case r := <-c:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.(json.RawMessage), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *Service) get(ctx context.Context, u *url.URL, most int64) (body []byte, typ string, at *url.URL, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, "", nil, err
	}
	r.Header.Set("User-Agent", "Trunkboard (link preview)")
	r.Header.Set("Accept", "text/html,application/xhtml+xml,image/*;q=0.8")
	res, err := s.client.Do(r)
	if err != nil {
		return nil, "", nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, "", nil, fmt.Errorf("preview: %s answers %d", u.Host, res.StatusCode)
	}
	typ, _, _ = mime.ParseMediaType(res.Header.Get("Content-Type"))
	body, err = io.ReadAll(io.LimitReader(res.Body, most+1))
	return body, typ, res.Request.URL, err
}

func (s *Service) make(ctx context.Context, u *url.URL) (json.RawMessage, error) {
	body, typ, at, err := s.get(ctx, u, maxPicture)
	if err != nil {
		return nil, errGone(err)
	}
	og := map[string]any{}
	switch {
	case strings.HasPrefix(typ, "image/"):
		if err := s.picture(ctx, og, body, typ); err != nil {
			return nil, errGone(err)
		}
	case typ == "text/html" || typ == "application/xhtml+xml":
		properties(og, body[:min(len(body), maxPage)])
		if src, ok := og["og:image"].(string); ok {
			delete(og, "og:image")
			if ref, err := at.Parse(src); err == nil {
				if ref, err = check(ref.String()); err == nil {
					if body, typ, _, err := s.get(ctx, ref, maxPicture); err == nil {
						_ = s.picture(ctx, og, body, typ) // a page without its picture is a preview too
					}
				}
			}
		}
	}
	return json.Marshal(og)
}

// picture stores a picture and adds what is known of it.
func (s *Service) picture(ctx context.Context, og map[string]any, body []byte, typ string) error {
	if len(body) > maxPicture {
		return errors.New("preview: the picture is too large")
	}
	c, format, err := image.DecodeConfig(bytes.NewReader(body))
	if err != nil {
		return err
	}
	uri, err := s.media.Upload(ctx, s.owner, media.Incoming{Body: bytes.NewReader(body), Length: int64(len(body)), ContentType: "image/" + format})
	if err != nil {
		return err
	}
	og["og:image"], og["og:image:type"], og["matrix:image:size"] = uri, "image/"+format, len(body)
	og["og:image:width"], og["og:image:height"] = c.Width, c.Height
	return nil
}

var (
	attributes = regexp.MustCompile(`(?s)([a-zA-Z:_-]+)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))`)
	blanks     = regexp.MustCompile(`\s+`)
)

const maxTag = 8 << 10 // bytes of a tag that is looked at

// tags walks through the titles of a page, with the text of each, and its meta tags, with what stands in each. It looks at every
// byte a bounded number of times: what is not closed ends the walk.
func tags(page []byte) iter.Seq2[string, []byte] {
	lower := bytes.ToLower(page)
	if len(lower) != len(page) {
		lower = page // a letter that has no small form of its size: capitals are not found then
	}
	return func(yield func(string, []byte) bool) {
		for at := 0; ; {
			i := bytes.IndexByte(lower[at:], '<')
			if i < 0 {
				return
			}
			at += i
			rest := lower[at:]
			if bytes.HasPrefix(rest, []byte("<!--")) {
				end := bytes.Index(rest, []byte("-->"))
				if end < 0 {
					return
				}
				at += end + 3
				continue
			}
			name := ""
			for _, n := range []string{"script", "style", "title", "meta"} {
				if after := 1 + len(n); len(rest) > after && string(rest[1:after]) == n && strings.IndexByte(" \t\r\n\f/>", rest[after]) >= 0 {
					name = n
				}
			}
			if name == "" {
				at++
				continue
			}
			open := bytes.IndexByte(rest, '>')
			if open < 0 {
				return
			}
			if name == "meta" {
				if open <= maxTag && !yield(name, page[at:at+open+1]) {
					return
				}
				at += open + 1
				continue
			}
			end := bytes.Index(rest[open:], []byte("</"+name))
			if end < 0 {
				return
			}
			if name == "title" && !yield(name, page[at+open+1:at+open+end]) {
				return
			}
			at += open + end + 2
		}
	}
}

// properties reads the OpenGraph properties of a page, and its title and description where it has none.
func properties(og map[string]any, page []byte) {
	var title, description string
	for name, inner := range tags(bytes.ToValidUTF8(page, nil)) {
		switch name {
		case "title":
			if title == "" {
				title = clean(string(inner))
			}
		case "meta":
			tag := inner
			var name, content string
			for _, a := range attributes.FindAllSubmatch(tag, -1) {
				value := clean(string(a[2]) + string(a[3]) + string(a[4]))
				switch strings.ToLower(string(a[1])) {
				case "property", "name":
					name = strings.ToLower(value)
				case "content":
					content = value
				}
			}
			if content == "" {
				continue
			}
			if name == "description" && description == "" {
				description = content
			}
			if strings.HasPrefix(name, "og:") && og[name] == nil && len(og) < 30 && len(name) < 64 && !strings.HasPrefix(name, "og:image:") {
				og[name] = content
			}
		}
	}
	if og["og:title"] == nil && title != "" {
		og["og:title"] = title
	}
	if og["og:description"] == nil && description != "" {
		og["og:description"] = description
	}
}

func clean(s string) string {
	s = strings.TrimSpace(blanks.ReplaceAllString(html.UnescapeString(s), " "))
	s = strings.ReplaceAll(s, "\x00", "")
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + "…"
	}
	return s
}
