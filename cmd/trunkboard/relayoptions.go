// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/trunkboard/trunkboard/configs"
	"github.com/trunkboard/trunkboard/turn"
)

// relayOptions reads turn.options into the relay's configuration: what few installations need, each a name and its values, with spaces
// between. The names and meanings are in configs/trunkboard.yaml.
func relayOptions(cfg *turn.Config, options []string) error {
	for _, o := range options {
		if err := relayOption(cfg, strings.Fields(o)); err != nil {
			return fmt.Errorf("turn.options: %q: %w", o, err)
		}
	}
	return nil
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
	return errors.New("no such option; there are tcp_relays, discovery, alternate, proxy, bandwidth, user_bandwidth, realm")
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
	default:
		err = fmt.Errorf("%q: a realm has origin, allocations, user_allocations, bandwidth, user_bandwidth", name)
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
