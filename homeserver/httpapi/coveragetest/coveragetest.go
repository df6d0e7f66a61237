// SPDX-License-Identifier: Apache-2.0

// Package coveragetest is what the tests of the two HTTP APIs have in common that write down which endpoints are served and tested:
// when a run saw all tests, what an answer was, which patterns an API has, and whether the file says what the run found.
package coveragetest

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"net/http"
	"os"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// Main runs the tests and then, if all of them ran and passed, check: for TestMain. With skipAlso a run that left tests aside counts.
func Main(m *testing.M, skipAlso bool, check func() error) {
	code := m.Run()
	given := func(name string) bool { return flag.Lookup(name).Value.String() != "" }
	if code == 0 && !given("test.run") && !given("test.list") && (skipAlso || !given("test.skip")) {
		if err := check(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// Answer passes an answer on and keeps its status.
type Answer struct {
	http.ResponseWriter
	status int
}

// Status is the status of the answer: 200 where the handler named none.
func (a *Answer) Status() int { return cmp.Or(a.status, http.StatusOK) }

func (a *Answer) WriteHeader(status int) {
	a.status = status
	a.ResponseWriter.WriteHeader(status)
}

func (a *Answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// Patterns lists the patterns that an API serves, in order: its metrics know them, by the histogram of this name.
func Patterns(r *prometheus.Registry, histogram string) (all []string, err error) {
	families, err := r.Gather()
	for _, f := range families {
		if f.GetName() != histogram {
			continue
		}
		for _, m := range f.GetMetric() {
			all = append(all, m.GetLabel()[0].GetValue())
		}
	}
	slices.Sort(all)
	return all, err
}

// Compare is an error unless the file holds what was found; with update it is written instead.
func Compare(file string, found []byte, update bool) error {
	if update {
		return os.WriteFile(file, found, 0o644)
	}
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if !bytes.Equal(old, found) {
		return fmt.Errorf("%s is not what the tests found; `go generate` in the folder of these tests writes it anew", file)
	}
	return nil
}
