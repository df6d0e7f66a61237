// SPDX-License-Identifier: Apache-2.0

package sfu

import (
	"strings"
	"testing"
)

func offersMade(e Event) bool { _, ok := e.(Offer); return ok }

func TestTheSecondOfferWaitsUntilTheConnectionIsUp(t *testing.T) {
	w := newWaiting(t)
	alice, bob := w.enter("alice", false).connects(), w.enter("bob", true)
	publish := func(cids ...string) {
		t.Helper()
		var sections []string
		alice.announces(TrackInfo{CID: cids[len(cids)-1], Source: "microphone", Muted: true})
		for i, cid := range cids {
			sections = append(sections, guestSection(i, "audio", "sendonly", cid))
		}
		alice.offers(sections...)
	}
	made := func(when string, want, sections int) {
		t.Helper()
		if n := bob.came(offersMade); n != want {
			t.Fatalf("%s: %d offers, want %d", when, n, want)
		}
		if n := strings.Count(bob.offer().SDP, "a=sendonly"); n != sections {
			t.Fatalf("%s: %d sections send, want %d", when, n, sections)
		}
	}
	publish("one")
	made("before the answer", 1, 0)
	bob.answers()
	made("after the answer", 1, 0)
	publish("one", "two")
	made("still not connected", 1, 0)
	bob.p.Restart() // his network has changed, and he begins anew
	made("after a new beginning", 2, 2)
	bob.answers()
	publish("one", "two", "three")
	made("answered, and not connected", 2, 2)
	bob.connects()
	made("connected", 3, 3)
	bob.answers()
	publish("one", "two", "three", "four")
	made("later", 4, 4)
	bob.connects() // says nothing new
	made("at the end", 4, 4)
}
