// SPDX-License-Identifier: Apache-2.0

package livekit

import (
	"testing"

	"github.com/pion/webrtc/v4"
	"github.com/trunkboard/trunkboard/sfu/livekit/wire"
	"google.golang.org/protobuf/proto"
)

// talks opens the reliable channel of a client.
func (c *client) talks() *client {
	c.t.Helper()
	open := make(chan struct{})
	c.reliable.OnOpen(func() { close(open) })
	wait(c.t, open, c.identity+"'s channel")
	return c
}

// tells sends numbered messages.
func (c *client) tells(from, to uint32, who ...string) {
	c.t.Helper()
	for n := from; n <= to; n++ {
		b, err := proto.Marshal(&wire.DataPacket{Sequence: n, DestinationIdentities: who})
		if err != nil {
			c.t.Fatal(err)
		}
		if err := c.reliable.Send(b); err != nil {
			c.t.Fatal(err)
		}
	}
}

// hears waits for messages of alice's with these numbers, and no others.
func (c *client) hears(numbers ...uint32) {
	c.t.Helper()
	for _, n := range numbers {
		if p := wait(c.t, c.said, "a message for "+c.identity); p.GetSequence() != n || p.GetParticipantIdentity() != "alice" {
			c.t.Fatalf("%s hears %v, want number %d", c.identity, p, n)
		}
	}
}

// meets waits until the server and the client have each other's word on the channel: the server's end of it is open then.
func (c *client) meets(other *client) {
	c.t.Helper()
	other.tells(1, 1)
	c.hears(1)
}

func TestWhatIsSaidBeforeAClientHasAChannelReachesItInTime(t *testing.T) {
	h := newHouse(t, nil)
	alice, _ := enter(t, h, options{identity: "alice", room: "r", single: true})
	carol, _ := enter(t, h, options{identity: "carol", room: "r", single: true})
	alice.talks()
	carol.talks()
	carol.meets(alice)
	bob, _ := enter(t, h, options{identity: "bob", room: "r", single: true, late: true})
	alice.tells(2, 3)
	alice.tells(4, 4, "carol")
	alice.tells(5, 5, "bob")
	alice.tells(6, 6)
	carol.hears(2, 3, 4, 6) // the server has them all
	bob.negotiate()
	alice.tells(7, 7)
	bob.hears(2, 3, 5, 6, 7)
	two, _ := enter(t, h, options{identity: "dave", room: "r"}) // whose channels the server opens
	two.sub.OnDataChannel(func(d *webrtc.DataChannel) {
		if d.Label() == "_reliable" {
			d.OnMessage(func(m webrtc.DataChannelMessage) {
				p := &wire.DataPacket{}
				if err := proto.Unmarshal(m.Data, p); err != nil {
					t.Error(err)
				}
				two.said <- p
			})
		}
	})
	alice.tells(8, 8)
	two.hears(8)
	carol.hears(7, 8)
}

func TestAResumeSaysWhatWasHeardAndWhatComesTwiceIsHeardOnce(t *testing.T) {
	h := newHouse(t, nil)
	alice, join := enter(t, h, options{identity: "alice", room: "r", single: true})
	bob, _ := enter(t, h, options{identity: "bob", room: "r", single: true})
	alice.talks()
	bob.talks()
	bob.meets(alice)
	alice.tells(2, 5)
	bob.hears(2, 3, 4, 5)
	_ = alice.ws.Close()
	ws, _, err := dial(t, h, options{identity: "alice", room: "r", single: true, resume: join.GetParticipant().GetSid()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	_, b, err := ws.ReadMessage()
	m := &wire.SignalResponse{}
	if err != nil || proto.Unmarshal(b, m) != nil || m.GetReconnect().GetLastMessageSeq() != 5 {
		t.Fatalf("%v %v", err, m)
	}
	alice.tells(3, 7) // what it does not know to have arrived, and more
	bob.hears(6, 7)
	alice.tells(0, 0) // not numbered
	alice.tells(8, 8)
	bob.hears(0, 8)
}

func TestWhatAClosedChannelLostComesOnTheNext(t *testing.T) {
	h := newHouse(t, nil)
	alice, _ := enter(t, h, options{identity: "alice", room: "r", single: true})
	bob, _ := enter(t, h, options{identity: "bob", room: "r", single: true})
	carol, _ := enter(t, h, options{identity: "carol", room: "r", single: true})
	for _, c := range []*client{alice, bob, carol} {
		c.talks()
	}
	bob.meets(alice)
	carol.hears(1)
	alice.tells(2, 4)
	bob.hears(2, 3, 4)
	carol.hears(2, 3, 4)
	// Of the four he has two, he says; the others were on their way.
	bob.say(&wire.SignalRequest{Message: &wire.SignalRequest_SyncState{SyncState: &wire.SyncState{DatachannelReceiveStates: []*wire.DataChannelReceiveState{
		{PublisherSid: h.engine.Rooms()[0].Find("alice").SID(), LastSeq: 2}, {PublisherSid: "PA_unknown", LastSeq: 9},
	}}}})
	bob.say(&wire.SignalRequest{Message: &wire.SignalRequest_Ping{Ping: 1}})
	bob.until("the answer to what was said after it", func(m *wire.SignalResponse) bool { return m.GetPong() != 0 })
	closed := make(chan struct{})
	bob.reliable.OnClose(func() { close(closed) })
	if err := bob.reliable.Close(); err != nil {
		t.Fatal(err)
	}
	wait(t, closed, "the end of bob's channel")
	alice.tells(5, 6)
	carol.hears(5, 6)
	bob.channel()
	bob.hears(3, 4, 5, 6)
	alice.tells(7, 7)
	bob.hears(7)
}
