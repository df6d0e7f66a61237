// SPDX-License-Identifier: Apache-2.0

package fedapi

import (
	"bytes"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trunkboard/trunkboard/homeserver/e2ee"
	"github.com/trunkboard/trunkboard/homeserver/httpapi/coveragetest"
	"github.com/trunkboard/trunkboard/homeserver/media"
	"github.com/trunkboard/trunkboard/signalling/focus"
)

// COVERAGE-FEDERATION.md says of every endpoint of the server-server API whether it is served and whether a test has called it with success,
// as COVERAGE.md does for clients. A run of all tests fails when one is not, and when the file is not what the run found; `go generate`
// writes it anew.
//
//go:generate go test -count=1 . -update

const (
	coverageFile = "../COVERAGE-FEDERATION.md"
	clientFile   = "../COVERAGE.md"
	specFile     = "testdata/spec-v1.19.tsv"
)

var update = flag.Bool("update", false, "write ../COVERAGE-FEDERATION.md anew")

// called holds the patterns of ours that tests called with success.
var called = struct {
	sync.Mutex
	patterns map[string]bool
}{patterns: map[string]bool{}}

// recorded is an API whose successful answers count as tested.
func recorded(a *API) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, hr *http.Request) {
		s := &coveragetest.Answer{ResponseWriter: w}
		a.ServeHTTP(s, hr)
		if s.Status() < 400 {
			pattern := a.frame.Pattern(hr)
			called.Lock()
			called.patterns[pattern] = true
			called.Unlock()
		}
	})
}

func TestMain(m *testing.M) {
	flag.Parse()
	coveragetest.Main(m, false, coverage)
}

// everything is an API with every service, for its routes: no request reaches them.
func everything() (*API, []string, error) {
	r := prometheus.NewRegistry()
	a := New(Deps{Metrics: r, E2EE: &e2ee.Service{}, Media: &media.Service{}, Focus: &focus.Service{}})
	patterns, err := coveragetest.Patterns(r, "trunkboard_fedapi_request_seconds")
	return a, patterns, err
}

var placeholder = regexp.MustCompile(`\{[^}]*\}`)

// elsewhere are routes of ours whose success is shown by tests of other packages.
func elsewhere() map[string]string {
	const token = "/rtc/livekit/get_token"
	return map[string]string{
		"POST " + federationV1 + token: "cmd/trunkboard", "POST /_matrix/federation/unstable/io.element.msc4195" + token: "cmd/trunkboard",
	}
}

func coverage() error {
	a, patterns, err := everything()
	if err != nil {
		return err
	}
	spec, err := os.ReadFile(specFile)
	if err != nil {
		return err
	}
	clients, err := os.ReadFile(clientFile)
	if err != nil {
		return err
	}
	var problems []string
	var table bytes.Buffer
	inSpec := map[string]bool{}
	all, served := 0, 0
	for line := range strings.Lines(string(spec)) {
		f := append(strings.Split(strings.TrimRight(line, "\n"), "\t"), "")
		if strings.HasPrefix(line, "#") {
			continue
		}
		module, name, at := f[0], f[1]+" "+f[2], f[3]
		all++
		what := ""
		switch {
		case at != "":
			what = "yes, by `" + at + "`"
			if !strings.Contains(string(clients), "| `"+name+"` | yes | yes |") {
				what = ""
				problems = append(problems, name+" is not served and tested, says "+clientFile)
			}
		case strings.HasSuffix(f[2], "/{queryType}"):
			what = "yes: `directory` and `profile` are known, others are refused"
		default:
			pattern := a.frame.Pattern(httptest.NewRequest(f[1], placeholder.ReplaceAllString(f[2], "x"), nil))
			inSpec[pattern] = true
			switch {
			case pattern == "" || pattern == "/":
				problems = append(problems, name+" is not served")
			case !called.patterns[pattern]:
				problems = append(problems, name+" is served, but no test has called it with success")
			default:
				what = "yes"
			}
		}
		if what != "" {
			served++
		}
		fmt.Fprintf(&table, "| %s | `%s` | %s |\n", module, name, what)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "# What of the server-server API is served\n\nWritten by `make generate` from the list of the endpoints of Matrix v1.19 (`fedapi/%s`), the router, and what the tests of\n"+
		"`homeserver/fedapi` called with success; a test fails when it is not up to date. Of %d endpoints %d are served, each of them tested. The EDUs are in\n"+
		"`federation/edus`, all six of the specification in both directions, and a test there compares.\n\n| module | endpoint | served and tested |\n|---|---|---|\n", specFile, all, served)
	b.Write(table.Bytes())
	b.WriteString("\n## Not in v1.19\n\nWhat older servers still ask for, and proposals.\n\n| endpoint | tested |\n|---|---|\n")
	for _, p := range patterns {
		if inSpec[p] {
			continue
		}
		where := "yes"
		if at := elsewhere()[p]; at != "" {
			where = "in `" + at + "`"
		} else if !called.patterns[p] {
			problems = append(problems, p+" is served, but no test has called it with success")
		}
		fmt.Fprintf(&b, "| `%s` | %s |\n", p, where)
	}
	if problems != nil {
		return fmt.Errorf("COVERAGE:\n%s", strings.Join(problems, "\n"))
	}
	return coveragetest.Compare(coverageFile, b.Bytes(), *update)
}
