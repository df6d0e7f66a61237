// SPDX-License-Identifier: Apache-2.0

package sfu

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trunkboard/trunkboard/sfu/forward"
	"github.com/trunkboard/trunkboard/sfu/packets"
	"github.com/trunkboard/trunkboard/sfu/transport"
	"github.com/trunkboard/trunkboard/signalling/clocktest"
)

// waiting is a room whose time stands still, and whose clients only signal.
type waiting struct {
	t     *testing.T
	clock *clocktest.Clock
	room  *Room
}

func newWaiting(t *testing.T) *waiting {
	t.Helper()
	tr, err := transport.Listen(transport.Config{Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}})
	if err != nil {
		t.Fatal(err)
	}
	w := &waiting{t: t, clock: clocktest.New()}
	e := New(Config{Transport: tr, Clock: w.clock, SilentFor: time.Hour}) // there is no media
	t.Cleanup(func() { e.Close(); tr.Close() })
	if w.room, err = e.Room("r", true); err != nil {
		t.Fatal(err)
	}
	return w
}

// guest is a client, and what it was told.
type guest struct {
	w      *waiting
	p      *Participant
	events []Event // guarded by the room's lock
	id     uint32
}

func (g *guest) Tell(e Event)           { g.events = append(g.events, e) }
func (g *guest) Message(string, []byte) {}

// came tells how often an event came that test says yes to.
func (g *guest) came(test func(Event) bool) (n int) {
	g.w.room.mu.Lock()
	defer g.w.room.mu.Unlock()
	for _, e := range g.events {
		if test(e) {
			n++
		}
	}
	return n
}

func (w *waiting) enter(identity string, two bool) *guest {
	w.t.Helper()
	g := &guest{w: w}
	profile := Profile{Identity: identity, Permissions: Permissions{Publish: true, Subscribe: true}}
	var err error
	g.p, err = w.room.Join(profile, Options{TwoConnections: two, AutoSubscribe: true}, g, func(*Participant, Info, []Info, RoomInfo) {})
	if err != nil {
		w.t.Fatal(err)
	}
	return g
}

// connects lets the connections be up, as they are after ICE and DTLS.
func (g *guest) connects() *guest {
	g.p.publishing.Connected()
	if g.p.receiving != g.p.publishing {
		g.p.receiving.Connected()
	}
	return g
}

const guestHead = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\n" +
	"a=fingerprint:sha-256 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\na=setup:active\r\n"

func guestSection(mid int, kind, direction, cid string) string {
	codec := "111\r\na=rtpmap:111 opus/48000/2"
	if kind == "video" {
		codec = "96\r\na=rtpmap:96 VP8/90000"
	}
	s := fmt.Sprintf("m=%s 9 UDP/TLS/RTP/SAVPF %s\r\na=mid:%d\r\na=%s\r\n", kind, codec, mid, direction)
	if cid != "" {
		s += "a=msid:stream " + cid + "\r\n"
	}
	return s
}

// offers sends an offer with these sections.
func (g *guest) offers(sections ...string) {
	g.w.t.Helper()
	g.id++
	if err := g.p.Offered(guestHead+strings.Join(sections, ""), g.id, func(Description) {}); err != nil {
		g.w.t.Fatal(err)
	}
}

// answers what was offered last, without taking anything.
func (g *guest) answers() {
	g.w.t.Helper()
	last := g.offer()
	text := guestHead
	for mid, line := range slices.DeleteFunc(strings.Split(last.SDP, "\r\n"), func(l string) bool { return !strings.HasPrefix(l, "m=") }) {
		kind, _, _ := strings.Cut(strings.TrimPrefix(line, "m="), " ")
		if kind == "application" {
			text += fmt.Sprintf("m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:%d\r\na=sctp-port:5000\r\n", mid)
		} else {
			text += guestSection(mid, kind, "recvonly", "")
		}
	}
	if err := g.p.Answered(text, last.ID); err != nil {
		g.w.t.Fatal(err)
	}
}

// offer gives what was offered to it last.
func (g *guest) offer() (d Description) {
	g.w.room.mu.Lock()
	defer g.w.room.mu.Unlock()
	for _, e := range g.events {
		if o, ok := e.(Offer); ok {
			d = o.Description
		}
	}
	return d
}

func (g *guest) announces(i TrackInfo) (sid string) {
	g.w.t.Helper()
	if err := g.p.Publish(i); err != nil {
		g.w.t.Fatal(err)
	}
	g.w.room.mu.Lock()
	defer g.w.room.mu.Unlock()
	for _, e := range g.events {
		if p, ok := e.(Published); ok && p.Track.CID == i.CID {
			sid = p.Track.SID
		}
	}
	return sid
}

// sends lets a packet of a track come.
func (g *guest) sends(sid string) {
	g.w.room.mu.Lock()
	source := g.p.tracks[sid].source
	g.w.room.mu.Unlock()
	b := make([]byte, packets.HeaderSize, 100)
	packets.PutHeader(b, true, false, 96, 7, 90, 1111)
	p := forward.Packet{Raw: append(b, 0x10, 0, 0, 0)}
	if !p.Header.Parse(p.Raw) {
		g.w.t.Fatal("no header")
	}
	g.p.room.engine.cfg.Transport.Do(func(out *transport.Batch) { source.Forward(0, []forward.Packet{p}, out) })
}

// passes lets time pass, in which all of these speak.
func (w *waiting) passes(d time.Duration, all ...*guest) {
	w.clock.Advance(d)
	for _, g := range all {
		g.p.Spoke()
	}
	w.looks()
}

// looks does what the engine does every second.
func (w *waiting) looks() {
	w.room.engine.cfg.Transport.Do(func(out *transport.Batch) { w.room.tick(agenda{report: true, sources: true}, out) })
}

func unpublished(sid string) func(Event) bool {
	return func(e Event) bool { u, ok := e.(Unpublished); return ok && u.SID == sid }
}

func gone(reason Reason) func(Event) bool {
	return func(e Event) bool { g, ok := e.(Gone); return ok && g.Reason == reason }
}

func sectionsAsked(e Event) bool { _, ok := e.(Sections); return ok }

// heard gives all that it was told.
func (g *guest) heard() []Event {
	g.w.room.mu.Lock()
	defer g.w.room.mu.Unlock()
	return slices.Clone(g.events)
}

// receives reports whether it is subscribed to a track.
func (g *guest) receives(sid string) bool {
	g.w.room.mu.Lock()
	defer g.w.room.mu.Unlock()
	return g.p.subscriptions[sid] != nil
}

// shows reports whether a participant has a track, as the others are told.
func (g *guest) shows(sid string) bool {
	return slices.ContainsFunc(g.p.Info().Tracks, func(i TrackInfo) bool { return i.SID == sid })
}

func TestATrackThatIsAnnouncedAndNotOfferedIsForgotten(t *testing.T) {
	for _, two := range []bool{true, false} {
		w := newWaiting(t)
		alice := w.enter("alice", two).connects()
		if two {
			alice.answers()
		}
		first := alice.announces(TrackInfo{CID: "first", Video: true, Source: "camera"})
		w.passes(20*time.Second, alice)
		second := alice.announces(TrackInfo{CID: "second", Video: true, Source: "camera"})
		w.passes(10*time.Second, alice)
		if n := alice.came(func(e Event) bool { _, ok := e.(Unpublished); return ok }); n != 0 {
			t.Fatalf("two %v: %d tracks are gone after 30 s", two, n)
		}
		w.passes(time.Second, alice)
		if alice.came(unpublished(first)) != 1 || alice.came(unpublished(second)) != 0 {
			t.Errorf("two %v: after 31 s %v", two, alice.heard())
		}
		if !alice.p.Info().Publisher {
			t.Error("who has announced a track is no publisher")
		}
		// With the first one out of the way, a browser that changed the second one's name is understood.
		alice.offers(guestSection(0, "video", "sendonly", "another name"))
		if !alice.shows(second) {
			t.Errorf("two %v: the second one is not there", two)
		}
		w.passes(20*time.Second, alice)
		if alice.came(unpublished(second)) != 0 || alice.came(gone(Failed)) != 0 {
			t.Errorf("two %v: the second one is gone", two)
		}
	}
}

func TestASecondCodecThatIsAnnouncedAndNotOfferedMayBeAnnouncedAgain(t *testing.T) {
	w := newWaiting(t)
	alice := w.enter("alice", false).connects()
	sid := alice.announces(TrackInfo{CID: "camera", Video: true, Source: "camera", MIME: "video/VP9", Second: "video/VP8"})
	alice.offers(guestSection(0, "video", "sendonly", "camera"))
	alice.sends(sid)
	if err := alice.p.PublishSecond(sid, TrackInfo{CID: "other"}); err != nil {
		t.Fatal(err)
	}
	w.passes(30*time.Second, alice)
	if err := alice.p.PublishSecond(sid, TrackInfo{CID: "another"}); err != ErrForbidden {
		t.Fatalf("a second one at once: %v", err)
	}
	w.passes(time.Second, alice)
	if err := alice.p.PublishSecond(sid, TrackInfo{CID: "another"}); err != nil {
		t.Errorf("after 31 s: %v", err)
	}
	if !alice.shows(sid) {
		t.Error("the track itself is gone")
	}
}

func TestATrackOfWhichNothingComesIsNotShownUntilSomethingDoes(t *testing.T) {
	w := newWaiting(t)
	alice, bob := w.enter("alice", false).connects(), w.enter("bob", true).connects()
	bob.answers()
	sid := alice.announces(TrackInfo{CID: "camera", Video: true, Source: "camera"})
	w.passes(25*time.Second, alice, bob)
	alice.offers(guestSection(0, "video", "sendonly", "camera"))
	bob.answers()
	w.passes(30*time.Second, alice, bob)
	if !alice.shows(sid) || !bob.receives(sid) {
		t.Fatal("the track is gone after 30 s")
	}
	w.passes(time.Second, alice, bob)
	if alice.shows(sid) || bob.receives(sid) {
		t.Error("the track is there after 31 s")
	}
	if err := bob.p.Subscribe(sid, true); err != ErrNoTrack {
		t.Errorf("a track that is not shown can be subscribed to: %v", err)
	}
	bob.answers()
	w.passes(time.Hour, alice, bob)
	if alice.came(unpublished(sid)) != 0 {
		t.Error("its publisher was told")
	}
	alice.sends(sid)
	w.looks()
	if !alice.shows(sid) || !bob.receives(sid) {
		t.Error("the track does not come back")
	}
	bob.answers()
	w.passes(time.Hour, alice, bob) // its picture stands still, which is no reason
	if !alice.shows(sid) {
		t.Error("the track is gone again")
	}
}

func TestNobodyIsWaitedForInVainWhoHasNoReasonToSend(t *testing.T) {
	w := newWaiting(t)
	alice := w.enter("alice", false).connects()
	muted := alice.announces(TrackInfo{CID: "muted", Source: "microphone", Muted: true})
	later := alice.announces(TrackInfo{CID: "later", Source: "microphone", Muted: true}) // is offered when it is not muted any more
	camera := alice.announces(TrackInfo{CID: "camera", Video: true, Source: "camera"})
	sections := []string{guestSection(0, "audio", "sendonly", "muted"), guestSection(1, "video", "sendonly", "camera")}
	alice.offers(sections...)
	for range 8 { // nobody else is there, so no picture is wanted after five seconds
		w.passes(time.Second, alice)
	}
	w.passes(time.Hour, alice)
	for name, sid := range map[string]string{"muted": muted, "camera": camera} {
		if !alice.shows(sid) {
			t.Errorf("%s is not shown", name)
		}
	}
	if alice.came(unpublished(later)) != 0 {
		t.Error("a muted track that was not offered is gone")
	}

	// From when somebody wants the picture and hears the sound, there is time.
	bob := w.enter("bob", true).connects()
	bob.answers()
	if err := alice.p.Mute(muted, false); err != nil {
		t.Fatal(err)
	}
	if err := alice.p.Mute(later, false); err != nil {
		t.Fatal(err)
	}
	w.passes(30*time.Second, alice, bob)
	if !alice.shows(muted) || !alice.shows(camera) || alice.came(unpublished(later)) != 0 {
		t.Fatal("after 30 s something is gone")
	}
	w.passes(time.Second, alice, bob)
	if alice.shows(muted) || alice.shows(camera) || alice.came(unpublished(later)) != 1 {
		t.Error("after 31 s something is there")
	}
}

func TestWhoDoesNotAnswerAnOfferIsToJoinAnew(t *testing.T) {
	w := newWaiting(t)
	alice, bob := w.enter("alice", false).connects(), w.enter("bob", true).connects()
	bob.answers()
	w.passes(10*time.Minute, alice, bob)
	sid := alice.announces(TrackInfo{CID: "mic", Source: "microphone"})
	alice.offers(guestSection(0, "audio", "sendonly", "mic"))
	alice.sends(sid)
	w.passes(30*time.Second, alice, bob)
	if bob.came(gone(Failed)) != 0 {
		t.Fatal("bob is out after 30 s")
	}
	bob.answers()
	w.passes(time.Hour, alice, bob)
	if bob.came(gone(Failed)) != 0 {
		t.Fatal("bob is out although he answered")
	}
	alice.offers(guestSection(0, "audio", "inactive", ""))
	w.passes(31*time.Second, alice, bob)
	if bob.came(gone(Failed)) != 1 || w.room.Find("bob") != nil {
		t.Error("bob is in after 31 s")
	}
	if alice.came(gone(Failed)) != 0 {
		t.Error("alice is out")
	}
}

// The clocks of connections judge a client that is cut off or not connected yet, and they are in other tests.
func TestTimeInWhichAClientIsNotHeardDoesNotCountAgainstIt(t *testing.T) {
	w := newWaiting(t)
	alice, bob, carol := w.enter("alice", false).connects(), w.enter("bob", true).connects(), w.enter("carol", false)
	bob.answers()
	hers := alice.announces(TrackInfo{CID: "mic", Source: "microphone"})
	alice.offers(guestSection(0, "audio", "sendonly", "mic"))
	alice.sends(hers)
	his := bob.announces(TrackInfo{CID: "camera", Video: true, Source: "camera"})
	early := carol.announces(TrackInfo{CID: "camera", Video: true, Source: "camera"}) // with her join
	w.passes(30*time.Second, alice, bob, carol)
	w.passes(25*time.Second, alice, carol) // bob's line is dead
	check := func(when string) {
		t.Helper()
		if bob.came(gone(Failed)) != 0 || bob.came(unpublished(his)) != 0 || carol.came(unpublished(early)) != 0 || carol.came(gone(TimedOut)) != 0 {
			t.Fatalf("%s: bob was told %v, carol %v", when, bob.heard(), carol.heard())
		}
	}
	check("while bob is silent")
	carol.connects() // over a relay, at last
	if _, err := bob.p.Resume(bob, func(Info, []Info, RoomInfo, uint32) {}); err != nil {
		t.Fatal(err)
	}
	w.passes(30*time.Second, alice, bob, carol)
	check("30 s after bob came back")
	w.passes(time.Second, alice, bob, carol)
	if bob.came(gone(Failed)) != 1 || carol.came(unpublished(early)) != 1 {
		t.Errorf("31 s after bob came back and carol connected, bob was told %v, carol %v", bob.heard(), carol.heard())
	}
}

func TestAClientThatDoesNotOfferWhenAskedIsAskedAgain(t *testing.T) {
	w := newWaiting(t)
	alice, bob := w.enter("alice", false).connects(), w.enter("bob", false).connects()
	bob.offers(guestSection(0, "audio", "recvonly", ""))
	for i := range 2 {
		cid := fmt.Sprint("mic", i)
		alice.announces(TrackInfo{CID: cid, Source: "microphone", Muted: true})
	}
	alice.offers(guestSection(0, "audio", "sendonly", "mic0"), guestSection(1, "audio", "sendonly", "mic1"))
	if n := bob.came(sectionsAsked); n != 1 {
		t.Fatalf("bob was asked %d times", n)
	}
	w.passes(30*time.Second, alice, bob)
	w.passes(time.Minute, alice)
	if n := bob.came(sectionsAsked); n != 1 {
		t.Fatalf("bob was asked %d times in 30 s", n)
	}
	w.passes(time.Second, alice, bob)
	if n := bob.came(sectionsAsked); n != 2 || bob.came(gone(Failed)) != 0 {
		t.Errorf("bob was asked %d times and told %v", n, bob.heard())
	}
	bob.offers(guestSection(0, "audio", "recvonly", ""), guestSection(1, "audio", "recvonly", ""))
	w.passes(time.Hour, alice, bob)
	if n := bob.came(sectionsAsked); n != 2 {
		t.Errorf("bob was asked %d times, although nothing is missing", n)
	}
}

// With two connections, the SFU makes the offers on the one; offers on the other are answered, and none is asked for.
func TestWhoHasTwoConnectionsIsNotAskedForOffers(t *testing.T) {
	w := newWaiting(t)
	alice, bob := w.enter("alice", false).connects(), w.enter("bob", true).connects()
	alice.announces(TrackInfo{CID: "mic", Source: "microphone", Muted: true})
	alice.offers(guestSection(0, "audio", "sendonly", "mic")) // while bob has not answered the first offer
	bob.announces(TrackInfo{CID: "mic", Source: "microphone", Muted: true})
	bob.offers(guestSection(0, "audio", "sendonly", "mic"))
	if n := bob.came(sectionsAsked); n != 0 {
		t.Errorf("asked %d times", n)
	}
}
