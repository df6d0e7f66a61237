// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"crypto/sha256"
	"encoding/base64"
	"html/template"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/homeserver/httpapi"
	"github.com/trunkboard/trunkboard/signalling"
)

// The page behind the link in a mail. Programs that look at links for their readers only GET it, so that proves nothing: a person
// presses the button, which POSTs. The page runs no script, loads nothing, tells nobody where it came from, and after the button the
// browser stands at an address without the token.

const pageStyle = `:root{color-scheme:light dark}body{font:1.1rem/1.5 system-ui,sans-serif;max-width:32rem;margin:0 auto;padding:2rem 1.25rem}` +
	`h1{font-size:1.5rem;line-height:1.25}button{font:inherit;font-weight:600;width:100%;padding:.9rem;border:0;border-radius:.6rem;background:#0b6e4f;color:#fff}` +
	`button:focus-visible{outline:3px solid #7fd6b8;outline-offset:2px}p{overflow-wrap:anywhere}`

var pages = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1"><meta name="robots" content="noindex"><title>{{.Title}}</title><style>` + pageStyle + `</style></head>
<body><main><h1>{{.Title}}</h1><p>{{.Text}}</p>{{if .Token}}<form method="post" action="` + emailPage + `"><input type="hidden" name="sid" value="{{.SID}}"><input type="hidden" name="token" value="{{.Token}}"><button>{{.Button}}</button></form><p>If you did not ask for this, close this page.</p>{{end}}</main></body></html>
`))

// page is what stands on it.
type page struct {
	Title, Text, Button string
	SID, Token          string
}

var pageDone = page{Title: "Confirmed", Text: "That is all. You can close this page and go on in your app."}

func pagePolicy() string {
	sum := sha256.Sum256([]byte(pageStyle))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
}

// page answers with a page.
func (r *Request) page(status int, p page) (any, error) {
	var b strings.Builder
	if err := pages.Execute(&b, p); err != nil {
		return nil, err
	}
	w := r.Writer()
	pageHeader(w.Header())
	w.WriteHeader(status)
	_, _ = io.WriteString(w, b.String())
	return Written{Status: status}, nil
}

func pageHeader(h http.Header) {
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", pagePolicy())
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Frame-Options", "DENY")
	for _, cors := range []string{"Access-Control-Allow-Origin", "Access-Control-Allow-Methods", "Access-Control-Allow-Headers", "Access-Control-Expose-Headers", "Access-Control-Max-Age"} {
		h.Del(cors) // nothing here is for other pages
	}
}

// pageError answers a person with what an app would get as JSON.
func (r *Request) pageError(err error) (any, error) {
	e := signalling.AsError(err)
	if e.Status >= http.StatusInternalServerError {
		return nil, err
	}
	return r.page(e.Status, page{Title: "This link does not work", Text: "It may be too old, or not whole. Ask for a new mail in your app."})
}

func (a *API) showEmailLink(r *Request) (any, error) {
	sid, token := r.Param("sid"), r.Param("token")
	e, err := a.Accounts.EmailSession(r.Context(), sid, token)
	if err != nil {
		return r.pageError(err)
	}
	p := page{Title: "Is this your e-mail address?", Text: e.Address + " is to be used for an account at " + a.Config.ServerName + ".", Button: "Yes, it is mine", SID: sid, Token: token}
	if e.Purpose == accounts.EmailReset {
		p.Title, p.Button = "Set a new password?", "Yes, I asked for this"
		p.Text = "A new password was asked for, for the account at " + a.Config.ServerName + " that has the address " + e.Address + ". Whoever asked can set it after you confirm this."
	}
	return r.page(http.StatusOK, p)
}

func (a *API) followEmailLink(r *Request) (any, error) {
	body, err := r.ReadBody(4096)
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(body))
	if err != nil || !httpapi.SafeText(form.Get("sid")) || !httpapi.SafeText(form.Get("token")) {
		return r.pageError(signalling.InvalidParam("the form is broken"))
	}
	e, err := a.Accounts.ConfirmEmail(r.Context(), form.Get("sid"), form.Get("token"))
	if err != nil {
		return r.pageError(err)
	}
	next := e.NextLink
	if next == "" {
		next = emailPage + "/done"
	}
	w := r.Writer()
	pageHeader(w.Header())
	w.Header().Set("Location", next)
	w.WriteHeader(http.StatusSeeOther)
	return Written{Status: http.StatusSeeOther}, nil
}
