// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/media"
	"github.com/trunkboard/trunkboard/signalling"
)

const mediaTime = 4 * time.Minute

// FetchMedia implements media.Remote: the authenticated endpoint of today first, the open one of before v1.11 where a server does not
// know it.
func (s *Service) FetchMedia(ctx context.Context, server, id string, limit int64, wait time.Duration, take func(media.Incoming) error) error {
	q := "?timeout_ms=" + strconv.FormatInt(wait.Milliseconds(), 10)
	err := s.Client.Stream(ctx, Ask{Server: server, Path: "/_matrix/federation/v1/media/download/" + url.PathEscape(id) + q, Timeout: mediaTime}, func(r *http.Response) error {
		return readMultipart(r, limit, take)
	})
	if err == nil || signalling.AsError(err).Code != "M_UNRECOGNIZED" {
		return err
	}
	return s.Client.Stream(ctx, Ask{Server: server, Path: "/_matrix/media/v3/download/" + url.PathEscape(server) + "/" + url.PathEscape(id) + q + "&allow_remote=false", Timeout: mediaTime, plain: true}, func(r *http.Response) error {
		return take(incoming(http.Header(r.Header), r.Body, r.ContentLength, limit))
	})
}

// readMultipart takes apart multipart/mixed: a JSON object, and the content.
func readMultipart(r *http.Response, limit int64, take func(media.Incoming) error) error {
	typ, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || typ != "multipart/mixed" || params["boundary"] == "" {
		return fmt.Errorf("content of type %q where multipart/mixed should be", typ)
	}
	parts := multipart.NewReader(r.Body, params["boundary"])
	meta, err := parts.NextRawPart()
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, io.LimitReader(meta, smallAnswer)); err != nil {
		return err
	}
	content, err := parts.NextRawPart()
	if err != nil {
		return err
	}
	if content.Header.Get("Location") != "" {
		return errors.New("the content is said to be elsewhere; this server does not follow")
	}
	return take(incoming(http.Header(content.Header), content, -1, limit))
}

// incoming is content as the other server describes it.
func incoming(h http.Header, body io.Reader, length, limit int64) media.Incoming {
	in := media.Incoming{Body: io.LimitReader(body, limit+1), Length: length, ContentType: h.Get("Content-Type")}
	if _, params, err := mime.ParseMediaType(h.Get("Content-Disposition")); err == nil {
		in.FileName = params["filename"]
	}
	if strings.TrimSpace(in.ContentType) == "" {
		in.ContentType = "application/octet-stream"
	}
	return in
}
