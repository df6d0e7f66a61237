// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io/fs"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestEveryPackageStandsInTheMap holds the map of HACKING.md to the tree: each package is named in it, and what it names is there. A line
// is names, two spaces or more, and what they hold; the names of an indented line lie in the folder above it.
func TestEveryPackageStandsInTheMap(t *testing.T) {
	root := os.DirFS("../..")
	text, err := fs.ReadFile(root, "HACKING.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "\n## The map\n")
	_, after, _ = strings.Cut(after, "```\n")
	lines, _, found := strings.Cut(after, "```")
	if !found {
		t.Fatal("HACKING.md has no map")
	}
	onMap := map[string]bool{}
	top := ""
	columns := regexp.MustCompile(`^(  )?(\S+(?: \S+)*)  +\S`)
	for line := range strings.Lines(lines) {
		if strings.HasPrefix(line, "    ") {
			continue // more words about the line above
		}
		m := columns.FindStringSubmatch(line)
		if m == nil {
			t.Errorf("a line of the map without names or without words: %q", line)
			continue
		}
		if m[1] == "" {
			top = m[2]
			onMap[top] = true
			continue
		}
		for _, name := range strings.Fields(m[2]) {
			onMap[path.Join(top, name)] = true
		}
	}
	for name := range onMap {
		if info, err := fs.Stat(root, name); err != nil || !info.IsDir() {
			t.Errorf("the map names %s, which is not there", name)
		}
	}

	missing := map[string]bool{}
	err = fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || d.Name() == "testdata" || name != "." && strings.HasPrefix(d.Name(), ".")):
			return fs.SkipDir
		case !d.IsDir() && strings.HasSuffix(name, ".go") && !onMap[path.Dir(name)]:
			missing[path.Dir(name)] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string(nil), slices.Sorted(maps.Keys(missing))); d != "" {
		t.Errorf("packages that the map of HACKING.md does not name:\n%s", d)
	}
}
