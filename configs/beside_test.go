// SPDX-License-Identifier: Apache-2.0

package configs

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTheHomeserverBesideWhichTheSFUStandsIsOneURLOrMore(t *testing.T) {
	for _, c := range []struct {
		in    []string
		want  Beside
		wrong bool
	}{
		{nil, Beside{}, false},
		{[]string{"https://matrix.example.org/"}, Beside{URL: "https://matrix.example.org"}, false},
		{
			[]string{"http://localhost:8008", "token s3cret", "full_access b.example=https://b.example/", "full_access *"},
			Beside{URL: "http://localhost:8008", Token: "s3cret", FullAccess: map[string]string{"b.example": "https://b.example"}, Everybody: true}, false,
		},
		{[]string{"matrix.example.org"}, Beside{}, true},
		{[]string{"token s3cret"}, Beside{}, true},
		{[]string{"https://a.example", "s3cret"}, Beside{}, true},
		{[]string{"https://a.example", "token s3cret", "token s3cret2"}, Beside{}, true},
		{[]string{"https://a.example", "full_access b.example"}, Beside{}, true},
		{[]string{"https://a.example", "full_access =https://b.example"}, Beside{}, true},
		{[]string{"https://a.example?x"}, Beside{}, true},
	} {
		got, err := ParseBeside(c.in)
		if (err != nil) != c.wrong || err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%v: %v", c.in, err)
		}
		if c.want.FullAccess == nil {
			c.want.FullAccess = map[string]string{}
		}
		if d := cmp.Diff(c.want, got); err == nil && d != "" {
			t.Errorf("%v: %s", c.in, d)
		}
	}
	if _, _, err := Load(nil, nil, []string{"sfu.homeserver=matrix.example.org"}); err == nil || !strings.Contains(err.Error(), "sfu.homeserver") {
		t.Error(err)
	}
	c, _, err := Load(nil, nil, []string{"sfu.homeserver=https://matrix.example.org"})
	if b, _ := ParseBeside(c.SFU.Homeserver); err != nil || b.URL != "https://matrix.example.org" {
		t.Error(c.SFU.Homeserver, err)
	}
}
