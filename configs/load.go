// SPDX-License-Identifier: Apache-2.0

package configs

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// EnvPrefix starts the name of every environment variable that sets a key.
const EnvPrefix = "TRUNKBOARD_"

// Names under EnvPrefix that are no keys: what the command line, the tests and the test adapters use.
var notKeys = []string{"TRUNKBOARD_CONFIG", "TRUNKBOARD_BIN", "TRUNKBOARD_URL", "TRUNKBOARD_TEST_"}

// Default is the embedded file alone.
func Default() Config {
	var c Config
	if errs := apply(&c, "trunkboard.yaml", []byte(Annotated)); len(errs) != 0 {
		panic(errors.Join(errs...)) // the embedded file is held to the struct by a test
	}
	return c
}

// Load lays files, environ (NAME=value, as os.Environ gives) and flags (key=value) over the defaults and checks the result. All
// mistakes are reported at once, each with the place it was found. Warnings are about variables that look like ours and name no
// key: only a warning, because cluster managers inject variables named after a service.
func Load(files, environ, flags []string) (c Config, warnings []string, err error) {
	c = Default()
	var errs []error
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			errs = append(errs, fmt.Errorf("cannot read the configuration: %w", err))
			continue
		}
		errs = append(errs, apply(&c, name, text)...)
	}
	fields := c.fields()
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, EnvPrefix) || slices.ContainsFunc(notKeys, func(n string) bool { return strings.HasPrefix(name, n) }) {
			continue
		}
		i := slices.IndexFunc(fields, func(f field) bool { return envName(f.key) == name })
		if i < 0 {
			warnings = append(warnings, fmt.Sprintf("the environment variable %s names no setting%s", name, suggestEnv(name, fields)))
			continue
		}
		if err := setText(fields[i].value, value); err != nil {
			errs = append(errs, fmt.Errorf("environment %s: %w", name, err))
		}
	}
	for _, flag := range flags {
		key, value, ok := strings.Cut(flag, "=")
		i := slices.IndexFunc(fields, func(f field) bool { return f.key == key })
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("--set %s: want key=value", flag))
		case i < 0:
			errs = append(errs, fmt.Errorf("--set %s: unknown key %q%s", flag, key, suggest(key, fields)))
		default:
			if err := setText(fields[i].value, value); err != nil {
				errs = append(errs, fmt.Errorf("--set %s: %w", key, err))
			}
		}
	}
	if len(errs) == 0 {
		errs = append(errs, c.Check())
	}
	return c, warnings, errors.Join(errs...)
}

// apply lays one YAML text over c.
func apply(c *Config, name string, text []byte) []error {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil { // Load would refuse a file of comments only
		return []error{fmt.Errorf("%s: %w", name, err)}
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) == 0 {
		return nil // nothing but comments
	}
	l := layer{name: name, fields: c.fields(), seen: map[string]int{}}
	l.mapping("", doc.Content[0])
	return l.errs
}

// layer is one YAML file being laid over a Config.
type layer struct {
	name   string
	fields []field
	seen   map[string]int // key -> line
	errs   []error
}

func (l *layer) fail(n *yaml.Node, format string, args ...any) {
	l.errs = append(l.errs, fmt.Errorf("%s:%d: %w", l.name, n.Line, fmt.Errorf(format, args...)))
}

func (l *layer) mapping(prefix string, n *yaml.Node) {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return // a section with every line commented out
	}
	if n.Kind != yaml.MappingNode {
		l.fail(n, "%s: want keys with values here, not a single value", cmp.Or(prefix, "the file"))
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		key := k.Value
		if prefix != "" {
			key = prefix + "." + key
		}
		if line, twice := l.seen[key]; twice {
			l.fail(k, "%s is set twice, first on line %d", key, line)
			continue
		}
		l.seen[key] = k.Line
		if at := slices.IndexFunc(l.fields, func(f field) bool { return f.key == key }); at >= 0 {
			if err := setNode(l.fields[at].value, v); err != nil {
				l.fail(v, "%s: %w", key, err)
			}
			continue
		}
		if slices.ContainsFunc(l.fields, func(f field) bool { return strings.HasPrefix(f.key, key+".") }) {
			l.mapping(key, v)
			continue
		}
		l.fail(k, "unknown key %q%s", key, suggest(key, l.fields))
	}
}
