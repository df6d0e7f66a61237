// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"errors"
	"io"
	"net/http"
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
