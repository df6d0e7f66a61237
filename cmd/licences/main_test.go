// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEveryModuleOfTheBinaryIsNamedWithItsLicence(t *testing.T) {
	pieces, err := modules("../..")
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]bool{}
	for _, p := range pieces {
		path, _, _ := strings.Cut(p.name, " ")
		named[path] = true
		if len(p.text) < 100 || !strings.Contains(strings.ToLower(p.text), "copyright") {
			t.Errorf("%s: this is no licence: %q", p.name, p.text)
		}
	}
	golden, err := os.ReadFile("../trunkboard/deps.golden")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(golden)) {
		if path, _, _ := strings.Cut(strings.TrimSpace(line), " "); path != "#" && !named[path] {
			t.Errorf("%s is in the binary and has no licence here", path)
		}
	}
}

func TestPackagesOfTheClientAreNamedAndToolsAreNot(t *testing.T) {
	app := t.TempDir()
	write := func(name, text string) {
		file := filepath.Join(app, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("package-lock.json", `{"packages": {
		"": {"version": "1.0.0"},
		"node_modules/@scope/shown": {"version": "1.2.3", "license": "MIT"},
		"node_modules/@scope/shown/node_modules/inner": {"version": "4.5.6", "license": "ISC"},
		"node_modules/tool": {"version": "7.8.9", "dev": true},
		"node_modules/vite": {"version": "8.0.0", "dev": true}
	}}`)
	write("node_modules/@scope/shown/LICENSE.md", "Copyright somebody\r\nMIT")
	write("node_modules/@scope/shown/NOTICE", "a notice")
	write("node_modules/@scope/shown/license.js", "code")
	write("node_modules/@scope/shown/node_modules/inner/package.json", "{}")
	write("node_modules/vite/LICENSE.md", "Copyright others\n\n# Licenses of bundled dependencies\nmany")
	got, err := npm(app)
	if err != nil {
		t.Fatal(err)
	}
	want := []piece{
		{"@scope/shown 1.2.3, https://www.npmjs.com/package/@scope/shown", "Copyright somebody\nMIT\n\na notice"},
		{"inner 4.5.6, https://www.npmjs.com/package/inner", "Licence: ISC"},
		{"vite 8.0.0, https://www.npmjs.com/package/vite", "Copyright others"},
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(piece{})); d != "" {
		t.Error(d)
	}
	out := string(page([]piece{{"a", "same"}, {"b", "same"}, {"c", "other"}}))
	if strings.Count(out, "\nsame\n") != 1 || !strings.Contains(out, "a\nb\n\nsame") {
		t.Error(out)
	}
}
