// SPDX-License-Identifier: Apache-2.0

package browsertest

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// script is what the inner test runs: this test binary is started again with it.
const script = "TRUNKBOARD_BROWSERTEST_SCRIPT"

func TestInner(t *testing.T) {
	if os.Getenv(script) == "" {
		t.Skip("started by TestAScriptsCasesBecomeSubtests")
	}
	Run(t, time.Minute, []string{"COLOUR=red"}, "-e", os.Getenv(script))
}

func TestAScriptsCasesBecomeSubtests(t *testing.T) {
	if _, err := exec.LookPath("node"); err != nil {
		if os.Getenv("TRUNKBOARD_TEST_REQUIRED") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	for name, c := range map[string]struct {
		script string
		passes bool
		says   []string
	}{
		"all is well":           {`console.log('{"case":"one","note":"in " + "x"}'); console.log(JSON.stringify({case: process.env.COLOUR}))`, true, []string{"--- PASS: TestInner/red"}},
		"a case fails":          {`console.log('{"case":"one"}\n{"case":"two","error":"no picture"}')`, false, []string{"--- PASS: TestInner/one", "--- FAIL: TestInner/two", "no picture"}},
		"the script breaks off": {`console.log('{"case":"one"}'); process.exit(3)`, false, []string{"--- PASS: TestInner/one", "exit status 3"}},
		"nothing is run":        {`console.log('hello')`, false, []string{"hello", "no case was run"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(os.Args[0], "-test.run=^TestInner$", "-test.v")
			cmd.Env = append(os.Environ(), script+"="+c.script)
			out, err := cmd.CombinedOutput()
			if (err == nil) != c.passes {
				t.Errorf("%v\n%s", err, out)
			}
			for _, want := range c.says {
				if !strings.Contains(string(out), want) {
					t.Errorf("%q is not in\n%s", want, out)
				}
			}
		})
	}
}
