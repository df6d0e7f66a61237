// SPDX-License-Identifier: Apache-2.0

// Command licences collects the licences of what `make build` puts into the binary, for licences.txt beside the web client: of Go and
// the modules that cmd/trunkboard links, and of the npm packages that the web client is built from.
//
//	licences ROOT FILE      reads the checkout ROOT, its npm packages installed, and writes FILE
//
// A Go module without a licence is an error: nobody may pass it on.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

const head = `Trunkboard is free software under the Apache License 2.0 (https://www.apache.org/licenses/LICENSE-2.0).
It contains the following, each under the licence below its name. What is under the Mozilla Public License is unchanged; its source is where its
name says.
`

// piece is something of others in the binary.
type piece struct {
	name string // with version
	text string
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: licences ROOT FILE")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "licences:", err)
		os.Exit(1)
	}
}

func run(root, file string) error {
	modules, err := modules(root)
	if err != nil {
		return err
	}
	packages, err := npm(filepath.Join(root, "web", "app"))
	if err != nil {
		return err
	}
	return os.WriteFile(file, page(append(modules, packages...)), 0o644)
}

// page writes each text once, below the names of all that have it.
func page(pieces []piece) []byte {
	names := map[string][]string{}
	var texts []string
	for _, p := range pieces {
		if names[p.text] == nil {
			texts = append(texts, p.text)
		}
		names[p.text] = append(names[p.text], p.name)
	}
	var b bytes.Buffer
	b.WriteString(head)
	for _, text := range texts {
		fmt.Fprintf(&b, "\n%s\n%s\n\n%s\n", strings.Repeat("=", 78), strings.Join(names[text], "\n"), text)
	}
	return b.Bytes()
}

// modules are Go's own library and the modules of which the binary links a package.
func modules(root string) ([]piece, error) {
	cmd := exec.Command("go", "list", "-deps", "-json=Dir,Module", "./cmd/trunkboard")
	cmd.Dir = root
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	type module struct {
		Path, Version, Dir string
		Main               bool
	}
	found := map[string]module{}
	folders := map[string]map[string]bool{} // of each module, those on the way to its linked packages
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
		var p struct {
			Dir    string
			Module *module
		}
		if err := d.Decode(&p); err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		if p.Module == nil || p.Module.Main {
			continue
		}
		found[p.Module.Path] = *p.Module
		if folders[p.Module.Path] == nil {
			folders[p.Module.Path] = map[string]bool{}
		}
		for dir := p.Dir; len(dir) >= len(p.Module.Dir); dir = filepath.Dir(dir) {
			folders[p.Module.Path][dir] = true
		}
	}
	goroot, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	text, err := texts(strings.TrimSpace(string(goroot)))
	if err != nil {
		return nil, err
	}
	if text == "" {
		return nil, errors.New("the licence of Go's library is missing")
	}
	pieces := []piece{{"Go's standard library, https://go.dev", text}}
	for _, path := range slices.Sorted(maps.Keys(found)) {
		m := found[path]
		text, err := texts(slices.Sorted(maps.Keys(folders[path]))...)
		if err != nil {
			return nil, err
		}
		if text == "" {
			return nil, fmt.Errorf("%s has no licence", path)
		}
		pieces = append(pieces, piece{path + " " + m.Version + ", https://pkg.go.dev/" + path + "@" + m.Version, text})
	}
	return pieces, nil
}

// npm are the packages of app that the built client may hold, and Vite, which adds a few lines of its own.
func npm(app string) ([]piece, error) {
	text, err := os.ReadFile(filepath.Join(app, "package-lock.json"))
	if err != nil {
		return nil, err
	}
	var lock struct {
		Packages map[string]struct {
			Version, License string
			Dev              bool
		}
	}
	if err := json.Unmarshal(text, &lock); err != nil {
		return nil, fmt.Errorf("package-lock.json: %w", err)
	}
	var pieces []piece
	for _, folder := range slices.Sorted(maps.Keys(lock.Packages)) {
		p := lock.Packages[folder]
		if folder == "" || p.Dev && folder != "node_modules/vite" {
			continue
		}
		_, name, _ := cutLast(folder, "node_modules/")
		text, err := texts(filepath.Join(app, filepath.FromSlash(folder)))
		if err != nil {
			return nil, fmt.Errorf("%w (is the package installed?)", err)
		}
		text, _, _ = strings.Cut(text, "\n# Licenses of bundled dependencies") // of Vite itself, which is not in the client
		if text == "" {
			if p.License == "" {
				return nil, fmt.Errorf("%s has no licence", name)
			}
			text = "Licence: " + p.License // the package brings no text along
		}
		pieces = append(pieces, piece{name + " " + p.Version + ", https://www.npmjs.com/package/" + name, strings.TrimSpace(text)})
	}
	return pieces, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return "", s, false
}

// What such files are called. THIRD-PARTY is modernc's.
var licenceFile = regexp.MustCompile(`(?i)^(un)?(licen[cs]e|copying|copyright|notice)([-._].*)?$`)

// texts are the licences and notices in folders, one after the other, each once.
func texts(folders ...string) (string, error) {
	var all []string
	for _, folder := range folders {
		entries, err := os.ReadDir(folder)
		if err != nil {
			return "", err
		}
		for _, e := range entries {
			if !e.Type().IsRegular() || !licenceFile.MatchString(e.Name()) || strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), ".js") {
				continue
			}
			text, err := os.ReadFile(filepath.Join(folder, e.Name()))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return "", err
			}
			if t := strings.TrimSpace(strings.ReplaceAll(string(text), "\r\n", "\n")); t != "" && !slices.Contains(all, t) {
				all = append(all, t)
			}
		}
	}
	return strings.Join(all, "\n\n"), nil
}
