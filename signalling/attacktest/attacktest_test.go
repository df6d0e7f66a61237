// SPDX-License-Identifier: Apache-2.0

package attacktest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// complaints keeps what a check has against a catalogue.
type complaints struct {
	testing.TB
	said []string
}

func (c *complaints) Helper() {}
func (c *complaints) Errorf(format string, args ...any) {
	c.said = append(c.said, fmt.Sprintf(format, args...))
}

func TestARowWithoutItsTestIsFound(t *testing.T) {
	sound := Catalogue{Rows: map[string][]string{"A1 one": {"attacktest: TestARowWithoutItsTestIsFound"}, "A2 two": {"attacktest: two"}}, NotHere: map[string]string{"A3 three": "there is none"}}
	none := &complaints{TB: t}
	if sound.Check(none, "A1 ", "A2 ", "A3 "); none.said != nil {
		t.Error(none.said)
	}
	for name, c := range map[string]struct {
		rows map[string][]string
		want string
	}{
		"a row that is missing":          {map[string][]string{}, "A1 : 0 rows"},
		"a row that stands twice":        {map[string][]string{"A1 one": {"attacktest: one"}, "A1 two": {"attacktest: two"}}, "A1 : 2 rows"},
		"a row without a test":           {map[string][]string{"A1 one": nil}, "A1 one: no test"},
		"a test that is not there":       {map[string][]string{"A1 one": {"attacktest: TestNo" + "body"}}, `A1 one: "func TestNobody(" is in no test of attacktest`},
		"the beginning of a test only":   {map[string][]string{"A1 one": {"attacktest: TestARow"}}, `A1 one: "func TestARow(" is in no test of attacktest`},
		"a case that is not there":       {map[string][]string{"A1 one": {"attacktest: xyzzy" + "plugh"}}, "A1 one: \"xyzzy" + "plugh\" is in no test of attacktest"},
		"a folder that is not there":     {map[string][]string{"A1 one": {"nowhere: \"case\""}}, `A1 one: "\"case\"" is in no test of nowhere`},
		"a folder without a test's name": {map[string][]string{"A1 one": {"attacktest"}}, `A1 one: "" is in no test of attacktest`},
	} {
		got := &complaints{TB: t}
		Catalogue{Rows: c.rows}.Check(got, "A1 ")
		if d := cmp.Diff(c.want, strings.Join(got.said, "; ")); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}
