// SPDX-License-Identifier: Apache-2.0

package configs

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// MeetingOptions is what meetings.options says.
type MeetingOptions struct {
	Create    string // users, anyone, jwt, nobody; "" where nothing is said
	Issuers   []Issuer
	EmbedFrom []string // origins, or "*"
}

// Issuer makes tokens (JWT) for meetings.
type Issuer struct {
	AppID           string
	Secret, KeyFile string // one of the two
	Audience        string // "" for any
}

// ParseMeetings reads meetings.options. Its errors show no secret.
func ParseMeetings(options []string) (m MeetingOptions, err error) {
	for _, o := range options {
		words := strings.Fields(o)
		if len(words) < 2 {
			return m, errors.New("an option is a name and its values: create, jwt or embed")
		}
		switch name, values := words[0], words[1:]; name {
		case "create":
			if len(values) != 1 || !slices.Contains([]string{"users", "anyone", "jwt", "nobody"}, values[0]) || m.Create != "" {
				return m, errors.New("create: write it once, with users, anyone, jwt or nobody")
			}
			m.Create = values[0]
		case "jwt":
			i, err := parseIssuer(values)
			if err != nil {
				return m, err
			}
			m.Issuers = append(m.Issuers, i)
		case "embed":
			for _, v := range values {
				if !isOrigin(v) {
					return m, fmt.Errorf("embed: %q is no origin such as https://wiki.example.org, nor *", v)
				}
			}
			m.EmbedFrom = append(m.EmbedFrom, values...)
		default:
			return m, fmt.Errorf("there is no option %q: create, jwt or embed", name)
		}
	}
	if m.Create == "jwt" && len(m.Issuers) == 0 {
		return m, errors.New("create jwt needs an issuer: jwt my_app secret=…")
	}
	return m, nil
}

// isOrigin: what stands in a browser's policy must not end one directive and begin another.
func isOrigin(s string) bool {
	if s == "*" {
		return true
	}
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && s == u.Scheme+"://"+u.Host && !strings.ContainsAny(s, ` ;,'"`)
}

// parseIssuer reads the values of a jwt option.
func parseIssuer(words []string) (i Issuer, err error) {
	if strings.Contains(words[0], "=") {
		return i, errors.New("jwt: the issuer's app id comes first")
	}
	i.AppID = words[0]
	for _, w := range words[1:] {
		switch name, value, _ := strings.Cut(w, "="); name {
		case "secret":
			i.Secret = value
		case "key_file":
			i.KeyFile = value
		case "audience":
			i.Audience = value
		default:
			return i, fmt.Errorf("jwt %s: what follows is secret=, key_file= or audience=", i.AppID)
		}
	}
	if (i.Secret == "") == (i.KeyFile == "") {
		return i, fmt.Errorf("jwt %s: give either secret= or key_file=", i.AppID)
	}
	if i.Secret != "" && len(i.Secret) < 16 {
		return i, fmt.Errorf("jwt %s: a secret has at least 16 characters", i.AppID)
	}
	return i, nil
}
