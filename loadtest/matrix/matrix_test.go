// SPDX-License-Identifier: Apache-2.0

package matrix

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestOnlyLoopbackIsLoaded(t *testing.T) {
	for base, ok := range map[string]bool{
		"http://127.0.0.1:8008": true, "http://localhost:1": true, "http://[::1]:1": true, "http://127.3.4.5:1": true,
		"http://10.0.0.1:8008": false, "http://example.org": false, "http://127.0.0.1.example.org": false, "": false,
	} {
		if _, err := Open(base, ""); (err == nil) != ok {
			t.Errorf("%s: %v", base, err)
		}
	}
}

func TestMarksAndTokensAreFoundInAnswers(t *testing.T) {
	body := []byte(`{"rooms":{"join":{"!a":{"timeline":{"events":[{"content":{"body":"` + Mark("1") + ` \"next_batch\":\"no\" ` + Mark("b2") + `","next_batch":"no"}}]}}}}, "next_batch" : "s1_2\"x","x":"tbload:open"}`)
	var got []string
	Marks(body, func(m string) { got = append(got, m) })
	if d := cmp.Diff([]string{"1", "b2"}, got); d != "" {
		t.Error(d)
	}
	if n := nextBatch(body); n != `s1_2\"x` {
		t.Errorf("next_batch %q", n)
	}
	for _, bad := range []string{"", "{", `{"next_batch":1}`, `{"a":{"next_batch":"x"}}`, `{"next_batch":"`} {
		if n := nextBatch([]byte(bad)); n != "" {
			t.Errorf("%s: %q", bad, n)
		}
	}
}
