// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"strings"
	"testing"
)

func user(t *testing.T, realm, name, password string) LongTermUser {
	t.Helper()
	u, err := NewLongTermUser(realm, name, password)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestALongTermUserAllocatesWithItsPassword(t *testing.T) {
	s := start(t, testConfig())
	realm := s.cfg.Realm
	if err := s.creds.SetUsers([]LongTermUser{user(t, realm, "machine", "secret Ü"), user(t, "another realm", "guest", "x")}); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		username, password string
		want               int
	}{
		"good":             {"machine", "secret Ü", 0},
		"wrong password":   {"machine", "secret", 401},
		"nobody":           {"mach", "secret Ü", 401},
		"of another realm": {"guest", "x", 401},
	} {
		client := s.raw(t, "udp")
		client.username, client.password = c.username, c.password
		if code := client.allocate(); code != c.want {
			t.Errorf("%s: %d, want %d", name, code, c.want)
		}
	}
	if n := s.AllocationCount(); n != 1 {
		t.Errorf("%d allocations", n)
	}
}

func TestALongTermUserWhoIsRemovedLosesHisAllocations(t *testing.T) {
	s := start(t, testConfig())
	realm := s.cfg.Realm
	kept, changed, removed := user(t, realm, "kept", "1"), user(t, realm, "changed", "2"), user(t, realm, "removed", "3")
	if err := s.creds.SetUsers([]LongTermUser{kept, changed, removed}); err != nil {
		t.Fatal(err)
	}
	for name, password := range map[string]string{"kept": "1", "changed": "2", "removed": "3"} {
		client := s.raw(t, "udp")
		client.username, client.password = name, password
		if code := client.allocate(); code != 0 {
			t.Fatalf("%s: %d", name, code)
		}
	}
	if err := s.creds.SetUsers([]LongTermUser{kept, user(t, realm, "changed", "4")}); err != nil {
		t.Fatal(err)
	}
	if n := s.AllocationCount(); n != 1 {
		t.Errorf("%d allocations are left, want that of the user who was kept", n)
	}
	again := s.raw(t, "udp")
	again.username, again.password = "changed", "4"
	if code := again.allocate(); code != 0 {
		t.Errorf("the new password: %d", code)
	}
}

func TestImpossibleLongTermUsersAreRefused(t *testing.T) {
	creds, err := NewCredentials(CredentialsConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range []LongTermUser{{Realm: "r"}, {Name: "n"}, {Realm: "r", Name: strings.Repeat("n", maxUsername+1)}, {Realm: "r\n", Name: "n"}} {
		if err := creds.SetUsers([]LongTermUser{{Realm: "r", Name: "good"}, u}); err == nil {
			t.Errorf("%q is taken", u.Name)
		}
	}
	if creds.longTerm("good") != nil {
		t.Error("half of a list that was refused is in force")
	}
	if _, err := NewLongTermUser("r", "n", ""); err == nil {
		t.Error("an empty password is taken")
	}
}
