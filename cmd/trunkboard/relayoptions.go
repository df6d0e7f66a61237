// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/trunkboard/trunkboard/configs"
	"github.com/trunkboard/trunkboard/turn"
)

// relayOptions reads turn.options into the relay's configuration: what few installations need, each a name and its values, with spaces
// between. The names and meanings are in configs/trunkboard.yaml. What is not the relay's own it gives back.
func relayOptions(cfg *turn.Config, options []string) (more beside, err error) {
	for _, o := range options {
		words := strings.Fields(o)
		switch {
		case len(words) == 2 && words[0] == "external":
			more.stunServer = words[1]
		case len(words) == 1 && words[0] == "status":
			more.status = true
		default:
			if err := relayOption(cfg, words); err != nil {
				return beside{}, fmt.Errorf("turn.options: %q: %w", o, err)
			}
		}
	}
	return more, nil
}

// beside is what options say of the relay's surroundings.
type beside struct {
	stunServer string // to ask for the external address; empty: none
	status     bool   // the Redis of redis.url is told of sessions
}

func relayOption(cfg *turn.Config, words []string) error {
	if len(words) == 0 {
		return errors.New("is empty")
	}
	name, values := words[0], words[1:]
	want := func(least, most int) error {
		if len(values) < least || len(values) > most {
			return fmt.Errorf("%d values; want %d to %d", len(values), least, most)
		}
		return nil
	}
	switch name {
	case "tcp_relays":
		cfg.TCPRelays = true
		return want(0, 0)
	case "discovery":
		return errors.Join(want(2, 2), each(values, netip.ParseAddrPort, &cfg.Discovery))
	case "alternate":
		return errors.Join(want(1, 64), each(values, netip.ParseAddrPort, &cfg.Alternates))
	case "proxy":
		return errors.Join(want(1, 64), each(values, netip.ParsePrefix, &cfg.TrustedProxies))
	case "bandwidth":
		return errors.Join(want(1, 1), bandwidth(values, &cfg.Bandwidth))
	case "user_bandwidth":
		return errors.Join(want(1, 1), bandwidth(values, &cfg.UserBandwidth))
	case "session_bandwidth":
		return errors.Join(want(1, 1), bandwidth(values, &cfg.SessionBandwidth))
	case "oauth":
		if err := want(2, 2); err != nil {
			return err
		}
		keys, err := oauthKeys(values[1])
		cfg.OAuth = turn.OAuth{Server: values[0], Keys: keys}
		return err
	case "realm":
		if err := want(1, 64); err != nil {
			return err
		}
		r := turn.Realm{Name: values[0]}
		for _, v := range values[1:] {
			if err := realmOption(&r, v); err != nil {
				return err
			}
		}
		cfg.Realms = append(cfg.Realms, r)
		return nil
	}
	return errors.New("no such option; there are external, tcp_relays, discovery, alternate, proxy, bandwidth, user_bandwidth, session_bandwidth, oauth, realm, status")
}

// oauthKeys reads the keys shared with an authorisation server: a file, for they are secrets, of lines of a kid and its key in base64.
func oauthKeys(file string) (map[string][]byte, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	keys := make(map[string][]byte)
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		if len(words) != 2 {
			return nil, fmt.Errorf("%s: want lines of a kid and a key", file)
		}
		key, err := base64.StdEncoding.DecodeString(words[1])
		if err != nil {
			return nil, fmt.Errorf("%s: the key of %s: %w", file, words[0], err)
		}
		keys[words[0]] = key
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%s: no key", file)
	}
	return keys, nil
}

func realmOption(r *turn.Realm, text string) (err error) {
	name, value, ok := strings.Cut(text, "=")
	if !ok || value == "" {
		return fmt.Errorf("%q: want name=value", text)
	}
	switch name {
	case "origin":
		r.Origins = append(r.Origins, value)
	case "allocations":
		r.TotalQuota, err = strconv.Atoi(value)
	case "user_allocations":
		r.UserQuota, err = strconv.Atoi(value)
	case "bandwidth":
		err = bandwidth([]string{value}, &r.Bandwidth)
	case "user_bandwidth":
		err = bandwidth([]string{value}, &r.UserBandwidth)
	case "session_bandwidth":
		err = bandwidth([]string{value}, &r.SessionBandwidth)
	default:
		err = fmt.Errorf("%q: a realm has origin, allocations, user_allocations, bandwidth, user_bandwidth, session_bandwidth", name)
	}
	return err
}

func each[T any](values []string, parse func(string) (T, error), into *[]T) error {
	for _, v := range values {
		x, err := parse(v)
		if err != nil {
			return err
		}
		*into = append(*into, x)
	}
	return nil
}

// bandwidth reads a size, a second.
func bandwidth(values []string, into *int64) error {
	var s configs.Size
	for _, v := range values {
		if err := s.UnmarshalText([]byte(v)); err != nil {
			return err
		}
		*into = int64(s)
	}
	return nil
}
