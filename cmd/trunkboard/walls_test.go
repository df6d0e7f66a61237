// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const module = "github.com/trunkboard/trunkboard"

// wall says which packages the packages of one place may never reach. Places and targets are import paths, "…/..." for everything
// below; those of this module stand without its name.
type wall struct {
	from  string
	never []string
	why   string
}

// walls hold for everything that a package links in, however far away.
var walls = []wall{
	{"configs", []string{"./..."}, "the settings are read by everybody, so they know nobody"},
	{"web", []string{"./..."}, "the built application is bytes"},
	{"signalling", []string{"./..."}, "the shared words import nothing of the project"},
	{"signalling/...", []string{"homeserver/...", "turn/...", "sfu/...", "widgets/...", "web/...", "configs", "cmd/...", "loadtest/..."}, "signalling is the spine: the others lean on it"},
	{"signalling/matrixrtc", []string{"database/sql"}, "rooms bring it events; it reads no tables"},
	{"turn/...", []string{"homeserver/...", "sfu/...", "widgets/...", "web/...", "configs", "cmd/...", "loadtest/..."}, "TURN runs beside any homeserver"},
	{"turn/stunmsg", []string{"signalling/...", "turn", "turn/relay/...", "turn/listen/..."}, "a leaf: bytes in, answer out"},
	{"turn/relay/...", []string{"turn", "turn/listen/...", "github.com/pion/turn/..."}, "the data plane does not know the control plane"},
	{"sfu/...", []string{"homeserver/...", "turn/...", "widgets/...", "web/...", "configs", "cmd/...", "loadtest/..."}, "the SFU knows neither Matrix nor TURN"},
	{"sfu/packets/...", []string{"signalling/...", "sfu", "sfu/transport/...", "sfu/forward/...", "sfu/livekit/...", "sfu/congest/..."}, "leaf packages"},
	{"sfu/speakers", []string{"./..."}, "a leaf: levels in, speakers out"},
	{"homeserver/...", []string{"turn/...", "sfu/...", "widgets/...", "web/...", "configs", "cmd/...", "loadtest/..."}, "a homeserver needs neither media nor pages"},
	{"homeserver/event", []string{"database/sql"}, "events are values"},
	{"homeserver/federation/...", []string{"homeserver/clientapi/..."}, "services do not know the edge"},
	{"homeserver/rooms/...", []string{"homeserver/clientapi/...", "homeserver/fedapi/...", "homeserver/syncapi/..."}, "the heart does not know who listens"},
	{"widgets/...", []string{"sfu/...", "homeserver/storage/...", "cmd/..."}, "widgets are pages and URLs"},
	{"loadtest/...", []string{"homeserver/...", "cmd/...", "configs"}, "load clients see what every client sees"},
	{"cmd/...", []string{"testing"}, "helpers of tests do not belong into the binary"},
}

// owner says who may name a package in an import line; through an owner, everybody may use it.
type owner struct {
	named string
	by    []string
	why   string
}

var owners = []owner{
	{"database/sql/...", []string{"homeserver/storage/..."}, "SQL is written in one place"},
	{"github.com/jackc/pgx/...", []string{"homeserver/storage/..."}, "SQL is written in one place"},
	{"modernc.org/sqlite/...", []string{"homeserver/storage/..."}, "SQL is written in one place"},
	{"github.com/pressly/goose/...", []string{"homeserver/storage/..."}, "SQL is written in one place"},
	{"github.com/redis/go-redis/...", []string{"signalling/session", "signalling/presence", "signalling/bus", "turn/status"}, "shared stores have one face, and the relay tells one of its sessions"},
	{"github.com/matrix-org/gomatrixserverlib/...", nil, "a second opinion in tests only"},
	{"maunium.net/go/mautrix/...", nil, "for tests and load clients only"},
	{"github.com/pion/webrtc/...", []string{"sfu/transport/..."}, "one part of the SFU names pion"},
	{"github.com/pion/ice/...", []string{"sfu/transport/..."}, "one part of the SFU names pion"},
	{"github.com/pion/srtp/...", []string{"sfu/transport/..."}, "one part of the SFU names pion"},
	{"github.com/pion/sctp/...", []string{"sfu/transport/..."}, "one part of the SFU names pion"},
	{"github.com/pion/sdp/...", []string{"sfu/transport/..."}, "one part of the SFU names pion"},
	{"github.com/pion/dtls/...", []string{"sfu/transport/...", "turn/listen/..."}, "one part of the SFU names pion, and TURN listens on DTLS"},
	{"github.com/pion/turn/...", []string{"turn/probe"}, "the relay is our own; pion's client tests and probes it"},
	{"github.com/pion/stun/...", []string{"turn/...", "sfu/transport/..."}, "the relay is behind turn.Server"},
	{"github.com/wneessen/go-mail/...", []string{"homeserver/mail"}, "mail is sent from one place"},
	{"github.com/alecthomas/kong", []string{"cmd/trunkboard"}, "one command line"},
}

// pkg is what `go list` says about a package.
type pkg struct {
	ImportPath, Dir, Doc string
	Standard             bool
	Module               *struct{ Path string }
	GoFiles              []string
	Imports, Deps        []string
	Error                *struct{ Err string }
}

// ours reports whether p belongs to this module, and gives its path inside it.
func (p *pkg) ours() (string, bool) {
	if p.ImportPath == module {
		return ".", true
	}
	return strings.CutPrefix(p.ImportPath, module+"/")
}

// matches reports whether path (a full import path) is what pattern names.
func matches(pattern, path string) bool {
	if pattern == "./..." {
		return strings.HasPrefix(path, module+"/")
	}
	first, _, _ := strings.Cut(pattern, "/")
	if !strings.Contains(first, ".") && slices.Contains(topLevel, first) {
		pattern = module + "/" + pattern
	}
	if prefix, ok := strings.CutSuffix(pattern, "/..."); ok {
		return path == prefix || strings.HasPrefix(path, prefix+"/")
	}
	return path == pattern
}

var topLevel = []string{"cmd", "configs", "homeserver", "loadtest", "sfu", "signalling", "turn", "web", "widgets"}

// crossed lists the violations among packages.
func crossed(packages []*pkg) (found []string) {
	for _, p := range packages {
		name, ok := p.ours()
		if !ok {
			continue
		}
		for _, w := range walls {
			if !matches(w.from, p.ImportPath) {
				continue
			}
			for _, d := range p.Deps {
				if matchesAny(w.never, d) {
					found = append(found, fmt.Sprintf("%s reaches %s: %s", name, strings.TrimPrefix(d, module+"/"), w.why))
				}
			}
		}
		if matches("loadtest/...", p.ImportPath) {
			continue // load clients use whatever they need
		}
		for _, o := range owners {
			if matchesAny(o.by, p.ImportPath) {
				continue
			}
			for _, i := range p.Imports {
				if matches(o.named, i) {
					found = append(found, fmt.Sprintf("%s names %s: %s", name, i, o.why))
				}
			}
		}
	}
	return found
}

func matchesAny(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, path) })
}

// list asks the Go tool about every package of the module and all they link in.
func list(t *testing.T, flags ...string) []*pkg {
	t.Helper()
	args := append([]string{"list", "-deps", "-json=ImportPath,Dir,Doc,Standard,Module,GoFiles,Imports,Deps,Error"}, flags...)
	cmd := exec.Command("go", append(args, "./...")...)
	cmd.Dir = filepath.Join("..", "..")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	var all []*pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		p := &pkg{}
		if err := d.Decode(p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func TestWallsStand(t *testing.T) {
	for _, v := range crossed(list(t)) {
		t.Error(v)
	}
}

// TestACrossedWallIsSeen builds, in an overlay, two files that cross walls: the check must name both and nothing else.
func TestACrossedWallIsSeen(t *testing.T) {
	dir := t.TempDir()
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for name, text := range map[string]string{
		"configs/crossing.go": "package configs\n\nimport _ \"" + module + "/signalling\"\n",
		"web/crossing.go":     "package web\n\nimport _ \"database/sql\"\n",
	} {
		at, err := filepath.Abs(filepath.Join("..", "..", name))
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, strings.ReplaceAll(name, "/", "_"))
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		overlay.Replace[at] = file
	}
	text, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	before := crossed(list(t))
	var added []string
	for _, v := range crossed(list(t, "-overlay", filepath.Join(dir, "overlay.json"))) {
		if !slices.Contains(before, v) {
			added = append(added, v)
		}
	}
	slices.Sort(added)
	want := []string{
		"configs reaches signalling: the settings are read by everybody, so they know nobody",
		"web names database/sql: SQL is written in one place",
	}
	if d := cmp.Diff(want, added); d != "" {
		t.Error(d)
	}
}

// TestTablesNameRealPlaces keeps a misspelt pattern from holding for ever, because it never matches anything.
func TestTablesNameRealPlaces(t *testing.T) {
	check := func(pattern string) {
		first, _, _ := strings.Cut(strings.TrimPrefix(pattern, "./"), "/")
		if !slices.Contains(topLevel, first) && !strings.Contains(first, ".") && first != "database" && first != "testing" {
			t.Errorf("%s: there is no such folder", pattern)
		}
	}
	for _, w := range walls {
		check(w.from)
		for _, n := range w.never {
			check(n)
		}
	}
	for _, o := range owners {
		check(o.named)
		for _, b := range o.by {
			check(b)
		}
	}
}

// TestHouseRules: every package says what it is; none works at import time; go-redis stays in the files named for it.
func TestHouseRules(t *testing.T) {
	for _, p := range list(t) {
		name, ok := p.ours()
		if !ok {
			continue
		}
		if p.Doc == "" && len(p.GoFiles) > 0 { // a folder of tests only has no place for it
			t.Errorf("%s has no package comment; say in one sentence what it holds", name)
		}
		for _, file := range p.GoFiles {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, file), nil, parser.SkipObjectResolution|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range f.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" && !ast.IsGenerated(f) {
					t.Errorf("%s/%s has an init function; do it in a constructor", name, file)
				}
			}
			for _, i := range f.Imports {
				if path, _ := strconv.Unquote(i.Path.Value); strings.HasPrefix(path, "github.com/redis/go-redis/") && !strings.HasPrefix(file, "redis") {
					t.Errorf("%s/%s names go-redis; only redis*.go may", name, file)
				}
			}
		}
	}
}

var update = flag.Bool("update", false, "write deps.golden anew")

// TestDependenciesAreReviewed holds the modules linked into the binary to a list that is read in reviews.
func TestDependenciesAreReviewed(t *testing.T) {
	packages := list(t)
	byPath := map[string]*pkg{}
	for _, p := range packages {
		byPath[p.ImportPath] = p
	}
	direct, linked := map[string]bool{}, map[string]bool{}
	binary := byPath[module+"/cmd/trunkboard"]
	for _, path := range append(slices.Clone(binary.Deps), binary.ImportPath) {
		p := byPath[path]
		if p == nil || p.Module == nil {
			continue
		}
		if _, own := p.ours(); !own {
			linked[p.Module.Path] = true
			continue
		}
		for _, i := range p.Imports {
			if q := byPath[i]; q != nil && q.Module != nil && q.Module.Path != module {
				direct[q.Module.Path] = true
			}
		}
	}
	var b strings.Builder
	b.WriteString("# Modules linked into the binary; \"indirect\" ones come with others. Versions stand in go.mod.\n# Write anew: go test ./cmd/trunkboard -run Reviewed -update\n")
	for _, m := range slices.Sorted(maps.Keys(linked)) {
		b.WriteString(m)
		if !direct[m] {
			b.WriteString("  indirect")
		}
		b.WriteString("\n")
	}
	if *update {
		if err := os.WriteFile("deps.golden", []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile("deps.golden")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), b.String()); d != "" {
		t.Errorf("the binary's modules have changed; if that is meant: go test ./cmd/trunkboard -run Reviewed -update\n%s", d)
	}
}
