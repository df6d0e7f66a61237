// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/signalling/redistest"
)

// soon is how late another node may hear of something when hints flow.
const soon = time.Second

// twoNodes starts two Apps on one PostgreSQL, and with hints on one Redis.
func twoNodes(t *testing.T, hints bool) (a, b *App, redis *redistest.Server) {
	t.Helper()
	leavesNothing(t)
	set := []string{"database.url=" + storagetest.PostgresURL(t), "limits.enabled=false"}
	if hints {
		redis = redistest.Start(t)
		set = append(set, "redis.url="+redis.URL())
	}
	a, _ = start(t, testConfig(t, set...))
	b, _ = start(t, testConfig(t, set...))
	return a, b, redis
}

// at is the same user at another node.
func at(p *person, a *App) *person {
	q := *p
	q.base, q.since = "http://"+a.Addr("listen.client"), ""
	return &q
}

func newPerson(t *testing.T, a *App, name string) *person {
	t.Helper()
	p := &person{t: t, base: "http://" + a.Addr("listen.client"), http: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
	in := p.must("POST", "/_matrix/client/v3/register", map[string]any{"username": name, "password": "a long password " + name, "auth": map[string]string{"type": "m.login.dummy"}, "device_id": "D" + name})
	p.id, p.token = in.Get("user_id").Str, in.Get("access_token").Str
	return p
}

// listen syncs in the background and gives the answer in which found finds something, and how long that took.
func (p *person) listen(what string, found func(gjson.Result) bool) func(limit time.Duration) {
	p.t.Helper()
	if p.since == "" {
		p.until("a first sync", func(gjson.Result) bool { return true })
	}
	start := time.Now()
	done := make(chan time.Duration, 1)
	go func() {
		p.until(what, found)
		done <- time.Since(start)
	}()
	return func(limit time.Duration) {
		p.t.Helper()
		select {
		case took := <-done:
			if took > limit {
				p.t.Errorf("%s took %v", what, took)
			}
			p.t.Logf("%s: %v", what, took)
		case <-time.After(25 * time.Second):
			p.t.Fatalf("%s: nothing came", what)
		}
	}
}

func esc(room string) string { return gjson.Escape(room) }

func (p *person) say(room, txn, text string) string {
	p.t.Helper()
	return p.must("PUT", roomPath(room, "/send/m.room.message/"+txn), map[string]string{"msgtype": "m.text", "body": text}).Get("event_id").Str
}

func TestTwoNodesAreOneServer(t *testing.T) {
	a, b, _ := twoNodes(t, true)
	alice, bob := newPerson(t, a, "alice"), newPerson(t, b, "bob")
	room := alice.must("POST", "/_matrix/client/v3/createRoom", map[string]any{"preset": "private_chat", "invite": []string{bob.id}}).Get("room_id").Str
	bob.until("an invitation from the other node", func(r gjson.Result) bool { return r.Get("rooms.invite." + esc(room)).Exists() })
	joined := alice.listen("the join on the other node", func(r gjson.Result) bool {
		return r.Get("rooms.join."+esc(room)+`.timeline.events.#(state_key=="`+bob.id+`").content.membership`).Str == "join"
	})
	bob.must("POST", "/_matrix/client/v3/join/"+url.PathEscape(room), map[string]any{})
	joined(soon)

	event := ""
	said := bob.listen("a message from the other node", func(r gjson.Result) bool {
		e := r.Get("rooms.join." + esc(room) + `.timeline.events.#(content.body=="hello")`)
		event = e.Get("event_id").Str
		return e.Exists() && r.Get("rooms.join."+esc(room)+".unread_notifications.notification_count").Int() == 1
	})
	alice.say(room, "1", "hello")
	said(soon)

	typing := bob.listen("typing", func(r gjson.Result) bool {
		return r.Get("rooms.join."+esc(room)+`.ephemeral.events.#(type=="m.typing").content.user_ids.0`).Str == alice.id
	})
	alice.must("PUT", roomPath(room, "/typing/"+url.PathEscape(alice.id)), map[string]any{"typing": true, "timeout": 20000})
	typing(soon)

	receipt := alice.listen("a receipt", func(r gjson.Result) bool {
		return r.Get("rooms.join." + esc(room) + `.ephemeral.events.#(type=="m.receipt").content.` + esc(event) + `.m\.read.` + esc(bob.id)).Exists()
	})
	bob.must("POST", roomPath(room, "/receipt/m.read/"+url.PathEscape(event)), map[string]any{})
	receipt(soon)

	device := bob.listen("a to-device message", func(r gjson.Result) bool { return r.Get(`to_device.events.#(type=="x.test").content.a`).Int() == 7 })
	alice.must("PUT", "/_matrix/client/v3/sendToDevice/x.test/t1", map[string]any{"messages": map[string]any{bob.id: map[string]any{"*": map[string]int{"a": 7}}}})
	device(soon)

	presence := bob.listen("presence", func(r gjson.Result) bool {
		return r.Get(`presence.events.#(sender=="`+alice.id+`").content.status_msg`).Str == "here"
	})
	alice.must("PUT", "/_matrix/client/v3/presence/"+url.PathEscape(alice.id)+"/status", map[string]string{"presence": "online", "status_msg": "here"})
	presence(2 * soon)

	bobThere := at(bob, a) // another device of bob's, which happens to be at the other node
	bobThere.until("a first sync", func(gjson.Result) bool { return true })
	data := bobThere.listen("account data", func(r gjson.Result) bool { return r.Get(`account_data.events.#(type=="x.data").content.b`).Int() == 1 })
	bob.must("PUT", "/_matrix/client/v3/user/"+url.PathEscape(bob.id)+"/account_data/x.data", map[string]int{"b": 1})
	data(soon)

	// What comes back from a node is known on the other right away, whoever is asked.
	name := alice.listen("state from the other node", func(r gjson.Result) bool {
		return r.Get("rooms.join."+esc(room)+`.timeline.events.#(type=="m.room.topic").content.topic`).Str == "ours"
	})
	alice.must("PUT", roomPath(room, "/state/m.room.power_levels"), map[string]any{"users": map[string]int{bob.id: 100}, "events": map[string]any{}})
	deadline := time.Now().Add(5 * time.Second)
	for {
		status, out := bob.do("PUT", roomPath(room, "/state/m.room.topic"), map[string]string{"topic": "ours"})
		if status == 200 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the power that alice gave has not arrived: %d %s", status, out.Raw)
		}
	}
	name(2 * soon)

	redacted := bob.listen("a redaction", func(r gjson.Result) bool {
		return r.Get("rooms.join." + esc(room) + `.timeline.events.#(type=="m.room.redaction")`).Exists()
	})
	alice.must("PUT", roomPath(room, "/redact/"+url.PathEscape(event)+"/r1"), map[string]any{})
	redacted(soon)
	if e := bob.must("GET", roomPath(room, "/event/"+url.PathEscape(event)), nil); e.Get("content.body").Exists() {
		t.Errorf("redacted on one node, there on the other: %s", e.Raw)
	}

	// A token is good on every node, also one that is ahead of what the node has heard of.
	elsewhere := at(alice, b)
	elsewhere.since = alice.since
	alice.say(room, "2", "again")
	elsewhere.listen("the message at the other node", func(r gjson.Result) bool {
		return r.Get("rooms.join." + esc(room) + `.timeline.events.#(content.body=="again")`).Exists()
	})(soon)
}

func TestALogoutIsHeardOfByEveryNode(t *testing.T) {
	a, b, _ := twoNodes(t, true)
	alice := newPerson(t, a, "alice")
	there := at(alice, b)
	there.must("GET", "/_matrix/client/v3/account/whoami", nil) // from now on it is in that node's memory
	alice.must("POST", "/_matrix/client/v3/logout", map[string]any{})
	start := time.Now()
	for {
		status, out := there.do("GET", "/_matrix/client/v3/account/whoami", nil)
		if status == 401 && out.Get("errcode").Str == "M_UNKNOWN_TOKEN" {
			break
		}
		if time.Since(start) > soon {
			t.Fatalf("%v after the log-out the other node answers %d %s", time.Since(start), status, out.Raw)
		}
	}
	t.Logf("refused after %v", time.Since(start))
}

func TestNodesThatSendToOneRoomAtOnceAgree(t *testing.T) {
	a, b, _ := twoNodes(t, true)
	alice := newPerson(t, a, "alice")
	bob := newPerson(t, b, "bob")
	room := alice.must("POST", "/_matrix/client/v3/createRoom", map[string]any{"preset": "public_chat"}).Get("room_id").Str
	bob.must("POST", "/_matrix/client/v3/join/"+url.PathEscape(room), map[string]any{})
	alice.until("the join", func(gjson.Result) bool { return true })
	const each = 25
	var work sync.WaitGroup
	sent := make([]map[string]bool, 2)
	for i, p := range []*person{alice, bob} {
		sent[i] = map[string]bool{}
		work.Go(func() {
			for n := range each {
				status, out := p.do("PUT", roomPath(room, fmt.Sprintf("/send/m.room.message/%d", n)), map[string]string{"msgtype": "m.text", "body": fmt.Sprint(i, n)})
				if status != 200 {
					t.Errorf("%s: %d %s", p.id, status, out.Raw)
					continue
				}
				sent[i][out.Get("event_id").Str] = true
			}
		})
	}
	work.Wait()
	var orders [2][]string
	for i, p := range []*person{alice, bob} {
		seen := map[string]bool{}
		for len(seen) < 2*each {
			p.until("all messages", func(r gjson.Result) bool {
				new := false
				for _, e := range r.Get("rooms.join." + esc(room) + ".timeline.events").Array() {
					if id := e.Get("event_id").Str; e.Get("type").Str == "m.room.message" && (sent[0][id] || sent[1][id]) {
						if seen[id] {
							t.Errorf("%s was given %s twice", p.id, id)
						}
						seen[id], new = true, true
						orders[i] = append(orders[i], id)
					}
				}
				if r.Get("rooms.join." + esc(room) + ".timeline.limited").Bool() {
					for _, e := range p.must("GET", roomPath(room, "/messages?dir=b&limit=200"), nil).Get("chunk").Array() {
						if id := e.Get("event_id").Str; sent[0][id] || sent[1][id] {
							seen[id] = true
						}
					}
				}
				return new || len(seen) == 2*each
			})
		}
	}
	var lists [2]string
	for i, p := range []*person{alice, bob} {
		lists[i] = p.must("GET", roomPath(room, "/messages?dir=b&limit=200"), nil).Get("chunk.#.event_id").Raw
	}
	if lists[0] != lists[1] {
		t.Errorf("the nodes tell different stories:\n%s\n%s", lists[0], lists[1])
	}
}

func TestAHintThatIsLostCostsOneLookAtTheClock(t *testing.T) {
	a, b, _ := twoNodes(t, false) // no Redis: no hints at all
	alice, bob := newPerson(t, a, "alice"), newPerson(t, b, "bob")
	room := alice.must("POST", "/_matrix/client/v3/createRoom", map[string]any{"preset": "public_chat"}).Get("room_id").Str
	bob.must("POST", "/_matrix/client/v3/join/"+url.PathEscape(room), map[string]any{})
	said := bob.listen("a message from the other node", func(r gjson.Result) bool {
		return r.Get("rooms.join." + esc(room) + `.timeline.events.#(content.body=="hello")`).Exists()
	})
	alice.say(room, "1", "hello")
	said(catchUpEvery + soon)
}

func TestNodesGoOnWhileRedisIsAwayAndAfterIt(t *testing.T) {
	a, b, redis := twoNodes(t, true)
	alice, bob := newPerson(t, a, "alice"), newPerson(t, b, "bob")
	room := alice.must("POST", "/_matrix/client/v3/createRoom", map[string]any{"preset": "public_chat"}).Get("room_id").Str
	bob.must("POST", "/_matrix/client/v3/join/"+url.PathEscape(room), map[string]any{})
	hear := func(text string, limit time.Duration) {
		t.Helper()
		said := bob.listen(text, func(r gjson.Result) bool {
			return r.Get("rooms.join." + esc(room) + `.timeline.events.#(content.body=="` + text + `")`).Exists()
		})
		alice.say(room, url.PathEscape(text), text)
		said(limit)
	}
	hear("before", soon)
	redis.Kill()
	hear("while it is away", catchUpEvery+2*soon)
	redis.Restart()
	hear("right after it", catchUpEvery+2*soon)
}
