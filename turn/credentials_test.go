// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"fmt"
	"testing"
	"time"

	"github.com/pion/stun/v4"
)

func TestBadCredentialsAreRefused(t *testing.T) {
	s := start(t, testConfig())
	hour := time.Now().Add(time.Hour).Unix()
	cases := map[string]struct{ username, password string }{
		"expired":             {fmt.Sprintf("%d:bob", time.Now().Add(-time.Second).Unix()), ""},
		"lives too long":      {"9999999999:bob", ""},
		"overflow":            {"99999999999999999999:bob", ""},
		"negative":            {"-1:bob", ""},
		"no user":             {fmt.Sprintf("%d:", hour), ""},
		"no expiry":           {"bob", ""},
		"empty":               {"", ""},
		"damaged issue time":  {fmt.Sprintf("%d:v1:!:bob:phone", hour), ""},
		"another secret":      {fmt.Sprintf("%d:bob", hour), password("guess", fmt.Sprintf("%d:bob", hour))},
		"password of another": {fmt.Sprintf("%d:bob", hour), password(secret, fmt.Sprintf("%d:eve", hour))},
		"empty password":      {fmt.Sprintf("%d:bob", hour), "-"},
	}
	for name, c := range cases {
		client := s.raw(t, "udp")
		client.username, client.password = c.username, c.password
		switch c.password {
		case "":
			client.password = password(secret, c.username)
		case "-":
			client.password = ""
		}
		if code := client.allocate(); code != 401 {
			t.Errorf("%s: %d, want 401", name, code)
		}
	}
	if n := s.AllocationCount(); n != 0 {
		t.Errorf("%d allocations", n)
	}
	good := s.raw(t, "udp")
	good.username = fmt.Sprintf("%d:@bob:other.example.org", hour)
	good.password = password(secret, good.username)
	if code := good.allocate(); code != 0 {
		t.Errorf("the plain form: %d", code)
	}
}

func TestLogoutClosesTheDevicesAllocationsAndOnlyThose(t *testing.T) {
	s := start(t, testConfig())
	issue := func(user, device, transport string) *rawClient {
		c := s.raw(t, transport)
		cred := s.creds.Issue(user, device, time.Hour)
		c.username, c.password = cred.Username, cred.Credential
		if code := c.allocate(); code != 0 {
			t.Fatal(code)
		}
		return c
	}
	const user = "@a:b:c%3A:8448"
	phone, tablet, laptop := issue(user, "phone:1", "udp"), issue(user, "phone:1", "tcp"), issue(user, "laptop", "udp")
	other := issue("@a:b:c", "phone:1", "udp")
	s.creds.Revoke(user, "phone:1")
	if n := s.AllocationCount(); n != 2 {
		t.Errorf("%d allocations are left, want 2", n)
	}
	if code := phone.ask(stun.MethodRefresh); code != 401 {
		t.Errorf("Refresh after the logout: %d, want 401", code)
	}
	if code := phone.allocate(); code != 401 {
		t.Errorf("Allocate after the logout: %d, want 401", code)
	}
	if _, err := tablet.read(5 * time.Second); err == nil {
		t.Error("the connection of the logged out device is still open")
	}
	for _, c := range []*rawClient{laptop, other} {
		if code := c.ask(stun.MethodRefresh); code != 0 {
			t.Errorf("Refresh of another device: %d", code)
		}
	}
	again := issue(user, "phone:1", "udp") // a new login
	s.creds.Revoke(user, "")
	if n := s.AllocationCount(); n != 1 {
		t.Errorf("%d allocations are left after the logout of all devices, want 1", n)
	}
	if code := again.allocate(); code != 401 {
		t.Errorf("Allocate after the logout of all devices: %d, want 401", code)
	}
	if code := issue(user, "phone:1", "udp").ask(stun.MethodRefresh); code != 0 {
		t.Errorf("a login after that: %d", code)
	}
}

func TestSecretsRollOver(t *testing.T) {
	make := func(secrets ...string) *Credentials {
		c, err := NewCredentials(CredentialsConfig{Secrets: secrets})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	old := make("old").Issue("@a:b", "d", time.Hour)
	key := func(c *Credentials) (n int) {
		for k := range c.keys(old.Username, "r") {
			if string(k) == string(stun.NewLongTermIntegrity(old.Username, "r", old.Credential)) {
				n++
			}
		}
		return n
	}
	if key(make("new", "old")) != 1 || key(make("new")) != 0 {
		t.Error("the old secret's credential")
	}
	if got := make("new", "old").Issue("@a:b", "d", time.Hour); got.Credential != password("new", got.Username) {
		t.Error("the first secret does not sign")
	}
}
