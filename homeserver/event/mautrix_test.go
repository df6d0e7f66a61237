// SPDX-License-Identifier: Apache-2.0

//go:build goexperiment.jsonv2

package event

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"math/rand/v2"
	"testing"
	"time"

	"maunium.net/go/mautrix/federation/eventauth"
	"maunium.net/go/mautrix/federation/pdu"
	"maunium.net/go/mautrix/id"
	"pgregory.net/rapid"
)

// TestMautrixAgrees asks another implementation about auth rules, ids, hashes and redaction, from room version 6 on: before, it checks
// notification levels that those versions do not. It needs GOEXPERIMENT=jsonv2.
func TestMautrixAgrees(t *testing.T) {
	for _, v := range Versions()[5:] {
		t.Run(string(v), func(t *testing.T) {
			allowed, refused := 0, 0
			rapid.Check(t, func(r *rapid.T) {
				w := newWorld(t, v)
				rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(r, "seed"), 2))
				tip := w.tip()
				theirs := func(e *Event) *pdu.PDU {
					var p pdu.PDU
					if err := json.Unmarshal(e.JSON(), &p); err != nil {
						r.Fatal(err)
					}
					return &p
				}
				get := func(ids []id.EventID) (out []*pdu.PDU, err error) {
					for _, x := range ids {
						out = append(out, theirs(w.events[string(x)]))
					}
					return out, nil
				}
				key := func(server string, _ id.KeyID, _ time.Time) (id.SigningKey, time.Time, error) {
					return id.SigningKey(base64.RawStdEncoding.EncodeToString(signer(server).Key.Public().(ed25519.PublicKey))), time.Now(), nil
				}
				for range 60 {
					e, before := w.attempt(rnd, tip)
					p := theirs(e)
					if got, err := p.GetEventID(id.RoomVersion(v)); err != nil || string(got) != e.ID() || !p.VerifyContentHash() {
						r.Fatalf("%s: id %s, theirs %s %v", e.JSON(), e.ID(), got, err)
					}
					if a := e.facts().member.authorised; a != "" { // they check this signature as well
						signed, err := e.Sign(signer(ServerOf(a)))
						if err != nil {
							r.Fatal(err)
						}
						e = signed
						p = theirs(e)
					}
					ours := Authorise(e, worldState{w, before})
					panicked := true
					var err error
					func() { // it panics on some power levels without users
						defer func() { _ = recover() }()
						err = eventauth.Authorize(id.RoomVersion(v), p, nil, get, key)
						panicked = false
					}()
					if e.typ == "m.room.power_levels" && v.n() < 10 && e.facts().powerErr != nil {
						panicked = true // it lets what is no number pass where old versions cut it to one
					}
					if !panicked && (ours == nil) != (err == nil) {
						r.Fatalf("%s\nours %v\ntheirs %v", e.JSON(), ours, err)
					}
					if ours != nil {
						refused++
						continue
					}
					allowed++
					w.add(e, before)
					tip = e.ID()
				}
			})
			t.Logf("%d allowed, %d refused", allowed, refused)
		})
	}
}
