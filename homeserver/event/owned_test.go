// SPDX-License-Identifier: Apache-2.0

package event

import (
	"strings"
	"testing"
)

func TestStateThatBelongsToUsers(t *testing.T) {
	const alice, bob, mod, carol = "@alice:a.org", "@bob:b.org", "@mod:b.org", "@carol:c.org"
	for _, v := range []Version{"10", "org.matrix.msc3757.10", "org.matrix.msc3757.11"} {
		w := newWorld(t, v)
		tip := w.must([]string{w.tip()}, alice, "m.room.power_levels", str(""), `{"users":{"`+alice+`":100,"`+bob+`":50,"`+mod+`":50},"events":{"org.example":0}}`).ID()
		owned := v.OwnedState()
		for _, c := range []struct {
			sender, key string
			before, now bool // allowed in other versions, in those with owned state
		}{
			{carol, "", true, true},
			{carol, "anything_" + bob, true, true},
			{carol, carol, true, true},
			{carol, carol + "_one", false, true},
			{carol, carol + "_@x:y!z", false, true},
			{carol, carol + "one", false, false}, // that is somebody at c.orgone
			{carol, "@x_" + carol + "_one", false, false},
			{carol, bob, false, false},
			{carol, bob + "_one", false, false},
			{bob, carol, false, true}, // more power than the owner
			{bob, carol + "_one", false, true},
			{bob, mod + "_one", false, false}, // as much power as the owner
			{bob, alice, false, false},
			{alice, bob + "_one", false, true},
			{alice, "@nobody:elsewhere.org", false, true},
			{alice, "@nobody", false, false},
			{alice, "@nobody_one", false, false},
			{alice, alice + "@_one", false, false},
		} {
			want := c.before
			if owned {
				want = c.now
			}
			_, err := w.send([]string{tip}, c.sender, "org.example", str(c.key), `{}`)
			if (err == nil) != want || err != nil && code(err) != "M_FORBIDDEN" {
				t.Errorf("%s: %s sets %q: %v, want allowed = %v", v, c.sender, c.key, err, want)
			}
		}
	}
}

func FuzzStateOwner(f *testing.F) {
	for _, key := range []string{"", "@", "@a:b", "@a:b_c", "@a_b:c_d_e", "@a:b:80_:", "x_@a:b", "@_:_"} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		user, err := StateOwner(key)
		if err != nil || user == "" {
			if (err != nil) != strings.HasPrefix(key, "@") {
				t.Fatalf("%q: %q, %v", key, user, err)
			}
			return
		}
		if _, _, err := UserID(user); err != nil {
			t.Fatalf("%q is %q's: %v", key, user, err)
		}
		if rest, ok := strings.CutPrefix(key, user); !ok || rest != "" && rest[0] != '_' {
			t.Fatalf("%q is %q's", key, user)
		}
	})
}
