// SPDX-License-Identifier: Apache-2.0

// Package attacktest checks that every row of a catalogue of attacks is held by tests that are there.
package attacktest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Catalogue says what a part of the project was attacked with.
type Catalogue struct {
	// Rows has for each attack the tests that hold it: "folder: what stands in one of its test files", a function or the name of a case.
	// Folders are those of the repository, which is the parent of the folder whose test runs.
	Rows map[string][]string
	// NotHere are the rows about what there is not, and why.
	NotHere map[string]string
}

// Check fails the test for each of these rows, given by how it begins, that stands not exactly once in the catalogue, and for each row that
// names no test, or one that is not there. Files called rows_test.go do not count: the catalogue itself names every test.
func (c Catalogue) Check(t testing.TB, rows ...string) {
	t.Helper()
	for _, row := range rows {
		found := 0
		for name := range c.Rows {
			if strings.HasPrefix(name, row) {
				found++
			}
		}
		for name := range c.NotHere {
			if strings.HasPrefix(name, row) {
				found++
			}
		}
		if found != 1 {
			t.Errorf("%s: %d rows", row, found)
		}
	}
	texts := make(map[string]string)
	for row, tests := range c.Rows {
		if len(tests) == 0 {
			t.Errorf("%s: no test", row)
		}
		for _, test := range tests {
			folder, what, _ := strings.Cut(test, ": ")
			text, ok := texts[folder]
			if !ok {
				text = testsIn(t, folder)
				texts[folder] = text
			}
			if strings.HasPrefix(what, "Test") || strings.HasPrefix(what, "Fuzz") {
				what = "\nfunc " + what + "("
			}
			if what == "" || !strings.Contains(text, what) {
				t.Errorf("%s: %q is in no test of %s", row, strings.TrimSpace(what), folder)
			}
		}
	}
}

// testsIn is the text of all tests of a folder.
func testsIn(t testing.TB, folder string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", filepath.FromSlash(folder), "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, file := range files {
		if filepath.Base(file) == "rows_test.go" {
			continue
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text.Write(b)
	}
	return text.String()
}
