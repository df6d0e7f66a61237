// SPDX-License-Identifier: Apache-2.0

package configs

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// Beside is what sfu.homeserver says.
type Beside struct {
	URL        string            // of the client API, without a slash at the end; "" where the homeserver is of this process
	Token      string            // of an administrator there; "" for none
	FullAccess map[string]string // servers whose users have the rights of its own: the URL of the client API by name
	Everybody  bool              // the users of all servers have them
}

// ParseBeside reads sfu.homeserver. Its errors show no secret.
func ParseBeside(options []string) (b Beside, err error) {
	b.FullAccess = map[string]string{}
	for i, o := range options {
		if i == 0 {
			if b.URL, err = apiURL(o); err != nil {
				return b, err
			}
			continue
		}
		words := strings.Fields(o)
		switch {
		case len(words) == 2 && words[0] == "token" && b.Token == "":
			b.Token = words[1]
		case len(words) == 2 && words[0] == "full_access" && words[1] == "*":
			b.Everybody = true
		case len(words) == 2 && words[0] == "full_access":
			name, at, _ := strings.Cut(words[1], "=")
			if name == "" {
				return b, errors.New("full_access: write a server's name and the URL of its client API, such as example.org=https://matrix.example.org, or *")
			}
			if b.FullAccess[name], err = apiURL(at); err != nil {
				return b, fmt.Errorf("full_access %s: %w", name, err)
			}
		default:
			return b, errors.New("after the URL come: token and its value, once, and full_access and a server or *")
		}
	}
	return b, nil
}

func apiURL(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", errors.New("write the URL of a homeserver's client API, such as https://matrix.example.org")
	}
	return strings.TrimSuffix(s, "/"), nil
}
