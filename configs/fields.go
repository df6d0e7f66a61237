// SPDX-License-Identifier: Apache-2.0

package configs

import (
	"encoding"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// field is one setting: its dotted key and the place in a Config that it fills.
type field struct {
	key    string
	secret string // "", "text" (all of it) or "url" (the password in it)
	value  reflect.Value
}

// fields lists the settings of c in the order of the struct.
func (c *Config) fields() []field { return appendFields(nil, "", reflect.ValueOf(c).Elem()) }

func appendFields(out []field, prefix string, v reflect.Value) []field {
	for i := range v.NumField() {
		t := v.Type().Field(i)
		key := prefix + t.Tag.Get("yaml")
		if isSection(t.Type) {
			out = appendFields(out, key+".", v.Field(i))
		} else {
			out = append(out, field{key: key, secret: t.Tag.Get("secret"), value: v.Field(i)})
		}
	}
	return out
}

// isSection reports whether t holds settings rather than being one.
func isSection(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && !reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// setNode sets v from a YAML scalar or list.
func setNode(v reflect.Value, n *yaml.Node) error {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	isList := v.Kind() == reflect.Slice
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		if isList || v.Kind() == reflect.String {
			v.SetZero()
			return nil
		}
		return errors.New("has no value; give one or remove the line")
	case n.Kind == yaml.ScalarNode:
		return setText(v, n.Value)
	case n.Kind == yaml.SequenceNode && isList:
		list := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
		for i, e := range n.Content {
			if e.Kind != yaml.ScalarNode {
				return errors.New("want a list of plain values")
			}
			if err := setText(list.Index(i), e.Value); err != nil {
				return err
			}
		}
		v.Set(list)
		return nil
	}
	if isList {
		return errors.New("want a list")
	}
	return errors.New("want a single value")
}

// setText sets v from text; lists are separated by commas.
func setText(v reflect.Value, text string) error {
	switch p := v.Addr().Interface().(type) {
	case *time.Duration:
		d, err := time.ParseDuration(text)
		if err != nil || d < 0 {
			return fmt.Errorf("want a duration such as 500ms, 20s, 5m or 12h, not %q", text)
		}
		*p = d
		return nil
	case *netip.Prefix:
		if a, err := netip.ParseAddr(text); err == nil {
			*p = netip.PrefixFrom(a, a.BitLen())
			return nil
		}
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return fmt.Errorf("want an address or a range such as 10.0.0.0/8, not %q", text)
		}
		*p = prefix.Masked()
		return nil
	case encoding.TextUnmarshaler:
		return p.UnmarshalText([]byte(text))
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("want true or false, not %q", text)
		}
		v.SetBool(b)
	case reflect.Int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("want a whole number, not %q", text)
		}
		v.SetInt(int64(n))
	case reflect.Slice:
		var words []string
		for w := range strings.SplitSeq(text, ",") {
			if w = strings.TrimSpace(w); w != "" {
				words = append(words, w)
			}
		}
		list := reflect.MakeSlice(v.Type(), len(words), len(words))
		for i, w := range words {
			if err := setText(list.Index(i), w); err != nil {
				return err
			}
		}
		v.Set(list)
	default:
		panic("configs: no way to read a " + v.Type().String()) // a new field type without its reader; a test walks them all
	}
	return nil
}

// Effective is c as YAML that Load reads, with secrets masked.
func (c *Config) Effective() (string, error) {
	root := &yaml.Node{Kind: yaml.MappingNode}
	for _, f := range c.fields() {
		at := root
		words := strings.Split(f.key, ".")
		for _, section := range words[:len(words)-1] {
			at = child(at, section)
		}
		n, err := valueNode(f)
		if err != nil {
			return "", fmt.Errorf("%s: %w", f.key, err)
		}
		at.Content = append(at.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: words[len(words)-1]}, n)
	}
	out, err := yaml.Dump(root)
	return string(out), err
}

// child is the section name of n, made at the end when missing.
func child(n *yaml.Node, name string) *yaml.Node {
	for i := 0; i < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i+1]
		}
	}
	c := &yaml.Node{Kind: yaml.MappingNode}
	n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: name}, c)
	return c
}

const mask = "********"

func valueNode(f field) (*yaml.Node, error) {
	if f.value.Kind() == reflect.Slice {
		list := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		for i := range f.value.Len() {
			text, err := getText(f.value.Index(i))
			if err != nil {
				return nil, err
			}
			if f.secret == "text" {
				text = mask
			}
			list.Content = append(list.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text})
		}
		return list, nil
	}
	text, err := getText(f.value)
	switch {
	case err != nil:
		return nil, err
	case f.secret == "text" && text != "":
		text = mask
	case f.secret == "url":
		text = maskURL(text)
	}
	n := &yaml.Node{Kind: yaml.ScalarNode, Value: text}
	if f.value.Kind() == reflect.String {
		n.Tag = "!!str"
	}
	return n, nil
}

// maskURL hides the password of a URL, whether it stands before the host or among the query's values.
func maskURL(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return mask // it may hold a secret in a place that we cannot see
	}
	if _, has := u.User.Password(); has {
		u.User = url.UserPassword(u.User.Username(), mask)
	}
	if q := u.Query(); q.Has("password") {
		q.Set("password", mask)
		u.RawQuery = q.Encode()
	}
	return strings.ReplaceAll(u.String(), url.QueryEscape(mask), mask)
}

func getText(v reflect.Value) (string, error) {
	if d, ok := v.Interface().(time.Duration); ok {
		return shortDuration(d), nil
	}
	if m, ok := v.Interface().(encoding.TextMarshaler); ok {
		text, err := m.MarshalText()
		return string(text), err
	}
	return fmt.Sprint(v.Interface()), nil
}

// shortDuration writes 12h rather than 12h0m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
