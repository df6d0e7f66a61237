// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/trunkboard/trunkboard/signalling"
)

func TestRefusalsOfOtherServersAreToldAsTheyAre(t *testing.T) {
	for body, want := range map[string]struct {
		status int
		code   string
	}{
		`{"errcode":"M_FORBIDDEN","error":"no"}`:                        {403, "M_FORBIDDEN"},
		`{"errcode":"ORG.MATRIX.MSC4155.INVITE_BLOCKED","error":"no"}`:  {403, "ORG.MATRIX.MSC4155.INVITE_BLOCKED"},
		`{"errcode":"<script>","error":"no"}`:                           {502, "M_UNKNOWN"},
		`{"errcode":"M_` + strings.Repeat("X", 100) + `","error":"no"}`: {502, "M_UNKNOWN"},
		`{"errcode":"","error":"no"}`:                                   {502, "M_UNKNOWN"},
		`<html>a proxy</html>`:                                          {502, "M_UNKNOWN"},
	} {
		err := refusal("there.org", &http.Response{StatusCode: 403, Body: io.NopCloser(strings.NewReader(body))})
		e := signalling.AsError(err)
		var u *Unreachable
		if e.Status != want.status || e.Code != want.code || errors.As(err, &u) != (want.status == 502) {
			t.Errorf("%s: %d %s", body, e.Status, e.Code)
		}
	}
}

func TestAServerThatIsNotThereIsNamedAndWhatItWasAskedIsNot(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	there := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	c := NewUnsigned("here.org", Config{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}, nil, signalling.SystemClock{})
	defer c.Close()
	_, err = c.Do(t.Context(), Ask{Server: there, Path: "/_matrix/federation/v1/openid/userinfo?access_token=secret"})
	var u *Unreachable
	if !errors.As(err, &u) || u.Server != there || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "refused") {
		t.Errorf("%v", err)
	}
}
