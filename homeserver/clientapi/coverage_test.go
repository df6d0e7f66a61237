// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trunkboard/trunkboard/homeserver/httpapi/coveragetest"
	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/presence"
)

// COVERAGE.md says of every endpoint of the specification whether it is served and whether a test calls it. Served is what the router
// says; tested is what was answered with success while the tests of this package ran, those of hostile input left aside: they call
// every route there is. A run of all tests fails when a served route is not tested, when an endpoint that is not served gives no
// reason, and when the file is not what the run found. `go generate` writes it anew.
//
//go:generate go test -count=1 -skip "Hostile|Fuzz" . -update

const (
	coverageFile = "../COVERAGE.md"
	specFile     = "testdata/spec-v1.19.tsv"
)

var update = flag.Bool("update", false, "write ../COVERAGE.md anew")

// called holds what tests called with success: methods and paths of the specification, and patterns of ours.
var called = struct {
	sync.Mutex
	paths, patterns map[string]bool
	refused         map[string]bool // status, method and path
	spec            *http.ServeMux
}{paths: map[string]bool{}, patterns: map[string]bool{}, refused: map[string]bool{}}

func TestMain(m *testing.M) {
	flag.Parse()
	rows, err := specRows()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	called.spec = specMux(rows)
	coveragetest.Main(m, *update, func() error { return coverage(rows) })
}

// specRow is an endpoint of the specification.
type specRow struct {
	module, method, path, since string
	deprecated                  bool
	variant                     string // which of two that share a path
	reason                      string // why it is not served
}

func (r specRow) name() string { return r.method + " " + r.path }

func specRows() (rows []specRow, err error) {
	b, err := os.ReadFile(specFile)
	for line := range strings.Lines(string(b)) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := append(strings.Split(line, "\t"), make([]string, 7)...)
		rows = append(rows, specRow{module: f[0], method: f[1], path: f[2], since: f[3], deprecated: f[4] != "", variant: f[5], reason: f[6]})
	}
	return rows, err
}

// specMux finds the endpoint that a request is for.
func specMux(rows []specRow) *http.ServeMux {
	mux, known := http.NewServeMux(), map[string]bool{}
	for _, r := range rows {
		pattern := r.name()
		if strings.HasSuffix(pattern, "/") {
			pattern += "{$}"
		}
		if !known[pattern] {
			known[pattern] = true
			mux.HandleFunc(pattern, func(http.ResponseWriter, *http.Request) {})
		}
	}
	return mux
}

// recorded is an API whose successful answers count as tested, but those to hostile input.
func recorded(t testing.TB, a *API) http.Handler {
	if leftAside.MatchString(t.Name()) {
		return a
	}
	return http.HandlerFunc(func(w http.ResponseWriter, hr *http.Request) {
		s := &coveragetest.Answer{ResponseWriter: w}
		a.ServeHTTP(s, hr)
		if hr.Method == http.MethodOptions {
			return
		}
		now := current(hr)
		pattern := a.frame.Pattern(now)
		_, path := called.spec.Handler(now)
		called.Lock()
		defer called.Unlock()
		if path = strings.TrimSuffix(path, "{$}"); s.Status() >= 400 {
			called.refused[fmt.Sprint(s.Status(), " ", path)] = pattern != "/"
			return
		}
		called.patterns[pattern], called.paths[path] = true, true
	})
}

// everything is an API with every service, for its routes: no request reaches them.
func everything() (*API, []string, error) {
	r := prometheus.NewRegistry()
	d := Deps{Config: Config{ServerName: "test"}, ICE: siegeRelay{}, Metrics: r, Presence: presence.NewMem(presence.Config{}, signalling.SystemClock{})}
	v := reflect.ValueOf(&d).Elem()
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() == reflect.Pointer && f.IsNil() {
			f.Set(reflect.New(f.Type().Elem()))
		}
	}
	a := New(d)
	patterns, err := patternsIn(r)
	return a, patterns, err
}

// leftAside are the tests that call whatever there is.
var leftAside = regexp.MustCompile("Hostile|Fuzz")

var placeholder = regexp.MustCompile(`\{[^}]*\}`)

// refusal is what an endpoint answers that has nothing to give.
type refusal struct {
	status int
	why    string
}

// onlyRefused are endpoints that have nothing to give here: a test must have been refused with that status.
func onlyRefused() map[string]refusal {
	none, noSMS, noIdentity := refusal{404, "no third-party network is connected"}, refusal{400, "no text messages are sent"}, refusal{400, "no identity server is asked"}
	const c = "/_matrix/client/v3/"
	return map[string]refusal{
		"GET " + c + "thirdparty/location": none, "GET " + c + "thirdparty/location/{protocol}": none, "GET " + c + "thirdparty/protocol/{protocol}": none,
		"GET " + c + "thirdparty/user": none, "GET " + c + "thirdparty/user/{protocol}": none,
		"POST " + c + "account/3pid/msisdn/requestToken": noSMS, "POST " + c + "account/password/msisdn/requestToken": noSMS, "POST " + c + "register/msisdn/requestToken": noSMS,
		"POST " + c + "account/3pid": noIdentity, "POST " + c + "account/3pid/bind": noIdentity,
	}
}

// coverage compares what was found with the file, or writes it.
func coverage(rows []specRow) error {
	a, patterns, err := everything()
	if err != nil {
		return err
	}
	refusals := onlyRefused()
	var problems []string
	var b bytes.Buffer
	b.WriteString("# What of the client-server API is served\n\n")
	type tally struct{ all, served, tested int }
	var sum tally
	modules := map[string]*tally{}
	var table bytes.Buffer
	module, inSpec := "", map[string]bool{}
	for _, r := range rows {
		if r.module != module {
			module = r.module
			modules[module] = &tally{}
			fmt.Fprintf(&table, "\n## %s\n\n| endpoint | since | served | tested |\n|---|---|---|---|\n", module)
		}
		n := modules[module]
		req := httptest.NewRequest(r.method, placeholder.ReplaceAllString(r.path, "x"), nil)
		pattern := a.frame.Pattern(req)
		served := pattern != "" && pattern != "/" && !(r.variant != "" && r.reason != "")
		if served {
			inSpec[pattern] = true
		}
		tested := called.paths[r.name()]
		name := "`" + r.name() + "`"
		if r.variant != "" {
			name += " " + r.variant
		}
		if r.deprecated {
			name += " (deprecated)"
		}
		what, mark := "yes", "yes"
		switch {
		case !served && r.reason == "":
			problems = append(problems, fmt.Sprintf("%s is not served, and the last column of %s does not say why", r.name(), specFile))
		case !served:
			what, mark = "no: "+r.reason, ""
		case !tested && refusals[r.name()].status != 0 && called.refused[fmt.Sprint(refusals[r.name()].status, " ", r.name())]:
			what = "refused: " + refusals[r.name()].why
		case !tested:
			problems = append(problems, fmt.Sprintf("%s is served, but no test has called it with success", r.name()))
		}
		n.all, sum.all = n.all+1, sum.all+1
		if served {
			n.served, sum.served = n.served+1, sum.served+1
		}
		if served && mark != "" {
			n.tested, sum.tested = n.tested+1, sum.tested+1
		}
		fmt.Fprintf(&table, "| %s | %s | %s | %s |\n", name, cmp.Or(r.since, "1.0"), what, mark)
	}
	fmt.Fprintf(&b, "Written by `make generate` from the list of the endpoints of Matrix v1.19 (`clientapi/%s`), the router, and what the tests of\n"+
		"`homeserver/clientapi` called with success; a test fails when it is not up to date. Of %d endpoints %d are served, each of them tested.\n", specFile, sum.all, sum.served)
	if sum.tested != sum.served {
		problems = append(problems, fmt.Sprintf("%d of %d served endpoints are tested", sum.tested, sum.served))
	}
	b.WriteString("\n| module | endpoints | served |\n|---|---|---|\n")
	names := []string{}
	for m := range modules {
		names = append(names, m)
	}
	slices.Sort(names)
	for _, m := range names {
		fmt.Fprintf(&b, "| %s | %d | %d |\n", m, modules[m].all, modules[m].served)
	}
	b.Write(table.Bytes())
	b.WriteString("\n## Not in v1.19\n\nProposals that clients use already, other servers' admin API, and our own.\n\n| endpoint | served | tested |\n|---|---|---|\n")
	for _, p := range patterns {
		if inSpec[p] {
			continue
		}
		if !called.patterns[p] {
			problems = append(problems, fmt.Sprintf("%s is served, but no test has called it with success", p))
		}
		fmt.Fprintf(&b, "| `%s` | yes | yes |\n", p)
	}
	if problems != nil {
		return fmt.Errorf("COVERAGE:\n%s\nAn API of a test counts when it is served through recorded", strings.Join(problems, "\n"))
	}
	return coveragetest.Compare(coverageFile, b.Bytes(), *update)
}
