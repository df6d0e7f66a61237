// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"bytes"
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"github.com/pion/stun/v4"

	"github.com/trunkboard/trunkboard/turn/stunmsg"
)

type vector struct {
	name string
	key  []byte
	raw  []byte
}

func vectors(t *testing.T) (out []vector) {
	t.Helper()
	text, err := os.ReadFile("testdata/rfc5769.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if f := strings.Split(line, ": "); len(f) == 3 {
			v := vector{name: f[0], key: []byte(f[2])}
			if f[1] == "long" {
				w := strings.Fields(f[2])
				v.key = stun.NewLongTermIntegrity(w[0], w[1], w[2])
			}
			out = append(out, v)
			continue
		}
		b, err := hex.DecodeString(strings.ReplaceAll(line, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		out[len(out)-1].raw = append(out[len(out)-1].raw, b...)
	}
	return out
}

// authentic is what the server asks of a message before it believes it.
func authentic(raw, key []byte) bool {
	if _, ok := stunmsg.Check(raw); !ok {
		return false
	}
	m := &stun.Message{Raw: raw}
	return m.Decode() == nil && stun.MessageIntegrity(key).Check(m) == nil
}

func TestRFC5769VectorsAreAuthenticAndNotWithOneBitFlipped(t *testing.T) {
	all := vectors(t)
	if len(all) != 4 {
		t.Fatalf("%d vectors", len(all))
	}
	for _, v := range all {
		if !authentic(bytes.Clone(v.raw), v.key) {
			t.Errorf("%s: refused", v.name)
		}
		// With another type, the FINGERPRINT at the end becomes an attribute behind MESSAGE-INTEGRITY, which must be ignored.
		fingerprint := bytes.LastIndex(v.raw, []byte{0x80, 0x28, 0, 4})
		for bit := range len(v.raw) * 8 {
			if at := bit / 8; fingerprint > 0 && (at == fingerprint || at == fingerprint+1) {
				continue
			}
			raw := bytes.Clone(v.raw)
			raw[bit/8] ^= 1 << (bit % 8)
			if authentic(raw, v.key) {
				t.Errorf("%s: accepted with bit %d of byte %d flipped", v.name, bit%8, bit/8)
			}
		}
	}
}
