// SPDX-License-Identifier: Apache-2.0

package matrixrtc

import "testing"

func TestNamesInTheSFUAreThoseOfTheVectorsOfMSC4195(t *testing.T) {
	for _, c := range []struct{ name, got, want string }{
		{"room", MediaRoom("!roomid:example.com", "slot1234"), "O8437W3+jmzMVjoIP3tNwbm+XxHQk2iKpOA7aqw3qSc"},
		{"room with random bits", hashed("!roomid:example.com", "slot123", "random123"), "IMeDd+K3MIqJTI20EXBIrepKkhhORvf3q8fx3rlrhTk"},
		{"participant", Identity("@alice:example.com", "memberABC"), "M3VnsLXrkbxIDINXO64u8PZzFyD9ZYFiQULR2dshWYs"},
	} {
		if c.got != c.want {
			t.Errorf("%s: %s, want %s", c.name, c.got, c.want)
		}
	}
	if got := PlainIdentity("@alice:example.com", "DEV"); got != "@alice:example.com:DEV" {
		t.Error(got)
	}
}

func TestStringsAreWrittenAsCanonicalJSON(t *testing.T) {
	for in, want := range map[string]string{
		"plain <&>":            `"plain <&>"`,
		"\"\\/":                `"\"\\/"`,
		"\b\t\n\f\r\x01\x1f":   `"\b\t\n\f\r\u0001\u001f"`,
		"\u2028 日本 \U0001f600": "\"\u2028 日本 \U0001f600\"",
		"bad \xff":             "\"bad \uFFFD\"",
	} {
		if got := string(appendString(nil, in)); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}
