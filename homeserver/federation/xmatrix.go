// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/signalling"
)

// signed is what the signature of a request covers ("Request Authentication").
type signedRequest struct {
	Method      string          `json:"method"`
	URI         string          `json:"uri"`
	Origin      string          `json:"origin"`
	Destination string          `json:"destination"`
	Content     json.RawMessage `json:"content,omitempty"`
}

// signRequest gives the Authorization header of a request.
func signRequest(s event.Signer, a Ask) (string, error) {
	raw, err := json.Marshal(signedRequest{a.Method, a.Path, s.Server, a.Server, a.Body})
	if err != nil {
		return "", signalling.BadJSON("the body is not JSON").Because(err)
	}
	whole, err := event.SignJSON(s, raw)
	if err != nil {
		return "", err
	}
	sig := gjson.ParseBytes(whole).Get("signatures").Map()[s.Server].Map()[s.KeyID].Str
	return `X-Matrix origin="` + s.Server + `",destination="` + a.Server + `",key="` + s.KeyID + `",sig="` + sig + `"`, nil
}

const (
	maxHeaders    = 5    // Authorization headers of one request: a server may sign with several keys
	maxAuthHeader = 4096 // bytes of one
)

func unauthorised(format string, args ...any) *signalling.Error {
	return signalling.Refuse(http.StatusUnauthorized, "M_UNAUTHORIZED", format, args...)
}

// xmatrix is one Authorization header.
type xmatrix struct{ origin, destination, key, sig string }

// parseXMatrix reads an Authorization header: auth-params of RFC 9110 section 11.4, names in any case, values quoted or not, each name
// once; what is not known is passed over.
func parseXMatrix(h string) (x xmatrix, err error) {
	const scheme = "X-Matrix"
	refuse := unauthorised("the Authorization header is not one of scheme X-Matrix")
	if len(h) > maxAuthHeader || len(h) <= len(scheme) || !strings.EqualFold(h[:len(scheme)], scheme) || h[len(scheme)] != ' ' && h[len(scheme)] != '\t' {
		return x, refuse
	}
	rest := h[len(scheme):]
	seen := map[string]bool{}
	for {
		rest = strings.TrimLeft(rest, " \t,")
		if rest == "" {
			break
		}
		name, after, ok := strings.Cut(rest, "=")
		name = strings.ToLower(strings.TrimRight(name, " \t"))
		if !ok || name == "" || strings.ContainsAny(name, " \t,\"") || seen[name] {
			return x, refuse
		}
		seen[name] = true
		var value string
		if value, rest, ok = authValue(strings.TrimLeft(after, " \t")); !ok {
			return x, refuse
		}
		switch name {
		case "origin":
			x.origin = value
		case "destination":
			x.destination = value
		case "key":
			x.key = value
		case "sig", "signature":
			if x.sig != "" {
				return x, refuse
			}
			x.sig = value
		}
	}
	if x.origin == "" || x.key == "" || x.sig == "" {
		return x, unauthorised("the Authorization header must name origin, key and sig")
	}
	return x, nil
}

// authValue takes a token or a quoted string from the front of s. Servers of before v1.3 leave values with colons unquoted, so a bare
// value goes to the next comma.
func authValue(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		value, rest, _ = strings.Cut(s, ",")
		value = strings.TrimRight(value, " \t")
		return value, rest, value != "" && !strings.ContainsAny(value, "\" \t")
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			rest = strings.TrimLeft(s[i+1:], " \t")
			return b.String(), rest, rest == "" || rest[0] == ','
		case '\\':
			if i++; i >= len(s) {
				return "", "", false
			}
		}
		b.WriteByte(s[i])
	}
	return "", "", false
}

// Authenticate finds out which server sent a request, from its Authorization headers. uri is the request target as it was sent, body
// the whole body, nil without one. Errors: 401 M_UNAUTHORIZED, M_FORBIDDEN for a server that is not spoken with.
func (s *Service) Authenticate(ctx context.Context, headers []string, method, uri string, body []byte) (origin string, err error) {
	if len(headers) == 0 {
		return "", unauthorised("this endpoint needs a request signed by a server")
	}
	if len(headers) > maxHeaders {
		return "", unauthorised("more than %d Authorization headers", maxHeaders)
	}
	for i, h := range headers {
		x, err := parseXMatrix(h)
		if err != nil {
			return "", err
		}
		if i > 0 && x.origin != origin {
			return "", unauthorised("the Authorization headers name different servers")
		}
		origin = x.origin
	}
	for _, h := range headers {
		x, _ := parseXMatrix(h)
		if err = s.checkRequest(ctx, x, method, uri, body); err == nil {
			return origin, nil
		}
	}
	return "", err
}

func (s *Service) checkRequest(ctx context.Context, x xmatrix, method, uri string, body []byte) error {
	if x.destination != "" && x.destination != s.server {
		return unauthorised("this request is for %s; this server is %s", x.destination, s.server)
	}
	if x.origin == s.server {
		return unauthorised("this server does not ask itself")
	}
	if err := s.Permits(x.origin); err != nil {
		return err
	}
	var content json.RawMessage
	if len(body) > 0 {
		if err := event.CheckJSON(body); err != nil {
			return err
		}
		content = body
	}
	raw, err := json.Marshal(signedRequest{method, uri, x.origin, s.server, content})
	if err != nil {
		return signalling.NotJSON("the body is not JSON").Because(err)
	}
	raw = append(raw[:len(raw)-1], `,"signatures":{`...)
	raw = append(append(raw, event.AppendString(nil, x.origin)...), ":{"...)
	raw = append(append(raw, event.AppendString(nil, x.key)...), ':')
	raw = append(append(raw, event.AppendString(nil, x.sig)...), "}}}"...)
	return s.Keys.VerifyRequest(ctx, x.origin, x.key, raw)
}
