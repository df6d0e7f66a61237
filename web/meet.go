// SPDX-License-Identifier: Apache-2.0

package web

import (
	"fmt"
	"net/url"
	"path"
	"strings"
)

// The page of meetings has a policy of its own: others may show it in a frame if the operator says so, it shows no frames itself, and
// its media session runs at the server's public address, which need not be the one that it was opened at. The %s are the origins
// of sessions (each with a blank before it), and who may frame the page.
const meetingPolicy = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; connect-src 'self' blob:%s; " +
	"img-src 'self' blob: data:; media-src 'self' blob: mediastream:; font-src 'self'; worker-src 'self' blob:; manifest-src 'self'; " +
	"frame-src 'none'; frame-ancestors %s; base-uri 'none'; form-action 'self'; object-src 'none'"

// reserved are the first segments of paths that name no meeting: the client's own, and what servers are asked for.
var reserved = map[string]bool{
	"": true, "admin": true, "assets": true, "doctor": true, "index": true, "login": true, "meet": true, "register": true, "room": true, "rooms": true,
	"settings": true, "user": true, "users": true, "home": true, "client": true, "libs": true, "static": true, "health": true, "metrics": true,
}

// isMeeting tells paths of meetings: /meet/<name>, where a name may hold a tenant as Jitsi's do, and /<name>, one segment that is
// neither reserved nor a file's name. target is a request's path, percent-decoded.
func isMeeting(target string) bool {
	if rest, ok := strings.CutPrefix(target, "/meet/"); ok {
		return strings.Trim(rest, "/") != ""
	}
	name := strings.TrimSuffix(strings.TrimPrefix(target, "/"), "/")
	return !strings.Contains(name, "/") && !reserved[strings.ToLower(name)] && path.Ext(name) == "" && !strings.HasPrefix(name, "_") && !strings.HasPrefix(name, ".")
}

// policyOfMeetings is the Content-Security-Policy of the meeting page.
func policyOfMeetings(o Options) string {
	sessions := ""
	if at := origin(o.PublicURL); at != "" {
		sessions = " " + at + " " + strings.Replace(at, "http", "ws", 1)
	}
	frames := []string{"'self'"}
	for _, from := range o.EmbedFrom {
		if from == "*" {
			// Pages of files and of apps have other schemes than * names.
			frames = []string{"*", "file:", "app:"}
			break
		}
		if at := ancestor(from); at != "" {
			frames = append(frames, at)
		}
	}
	return fmt.Sprintf(meetingPolicy, sessions, strings.Join(frames, " "))
}

// ancestor is an operator's word for who may frame the page as the policy has it: an origin, which may be https://*.example.org; ""
// for what would be another directive.
func ancestor(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme == "" || strings.ContainsAny(text, " ;,'\"") {
		return ""
	}
	return u.Scheme + "://" + u.Host
}
