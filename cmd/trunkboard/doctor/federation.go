// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
)

// federation looks for the server as other servers do (spec, server-server API, "Resolving server names").
func (e *examination) federation(ctx context.Context) (out []Finding) {
	if e.ServerName == "" || e.Local != nil && e.Local.Trial {
		return nil
	}
	f := Finding{Check: "federation", Verdict: Good}
	at, how, err := e.federationAddress(ctx)
	if err != nil {
		f.Verdict, f.Text = Warning, err.Error()
		f.Next = fmt.Sprintf(`Have https://%s/.well-known/matrix/server answer {"m.server":"HOST:PORT"}, or none at all.`, e.ServerName)
		return append(out, f)
	}
	a, err := e.get(ctx, "https://"+at+"/_matrix/key/v2/server", "")
	var key struct {
		ServerName string `json:"server_name"`
	}
	switch {
	case err != nil:
		f.Verdict, f.Text = Warning, fmt.Sprintf("other servers look for this one at %s (%s) and do not reach it: %v", at, how, err)
		f.Next = "Open that port in the firewall with a certificate for the name, or lead them to an open one by /.well-known/matrix/server. Calls within this server work without."
	case a.status != http.StatusOK || json.Unmarshal(a.body, &key) != nil:
		f.Verdict, f.Text = Warning, fmt.Sprintf("%s answers %d to a question for its signing keys", at, a.status)
		f.Next = "Is it this server's federation that listens there?"
	case key.ServerName != e.ServerName:
		f.Verdict, f.Text = Broken, fmt.Sprintf("%s says that it is %q, not %q", at, key.ServerName, e.ServerName)
		f.Next = "Correct server_name, or the address that /.well-known/matrix/server or DNS leads to."
	default:
		f.Text = fmt.Sprintf("reached at %s (%s)", at, how)
	}
	return append(out, f)
}

// federationAddress is where other servers connect to, and by which step of the specification.
func (e *examination) federationAddress(ctx context.Context) (address, how string, err error) {
	if host, _, err := net.SplitHostPort(e.ServerName); err == nil && host != "" {
		return e.ServerName, "the port in its name", nil
	}
	a, err := e.get(ctx, "https://"+e.ServerName+"/.well-known/matrix/server", "")
	if err == nil && a.status == http.StatusOK {
		var found struct {
			Server string `json:"m.server"`
		}
		if json.Unmarshal(a.body, &found) != nil || found.Server == "" {
			return "", "", errors.New("https://" + e.ServerName + "/.well-known/matrix/server is there, but names no m.server")
		}
		if _, _, err := net.SplitHostPort(found.Server); err != nil {
			found.Server = net.JoinHostPort(found.Server, "8448")
		}
		return found.Server, "its well-known file", nil
	}
	if _, records, err := net.DefaultResolver.LookupSRV(ctx, "matrix-fed", "tcp", e.ServerName); err == nil && len(records) > 0 {
		return net.JoinHostPort(strings.TrimSuffix(records[0].Target, "."), fmt.Sprint(records[0].Port)), "an SRV record", nil
	}
	return net.JoinHostPort(e.ServerName, "8448"), "the usual port", nil
}
