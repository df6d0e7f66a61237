// SPDX-License-Identifier: Apache-2.0

// Package bus carries wake-up hints between the nodes of one Trunkboard: "room X has news", "node Y drains".
//
// A hint may be lost, so it never carries truth: whoever is woken reads the truth where it is kept. What the bus does promise is
// that a subscriber learns of the loss: a Message with Missed set says that something before it, of any topic, did not arrive, and
// the subscriber looks everywhere once.
//
//	Publish ──► subscribers on this node            always, even while Redis is away
//	        └─► queue ──► Redis ──► other nodes     queue full or Redis away: oldest dropped, Missed told afterwards
//
// Each Subscription has a bounded queue. One that reads too slowly loses the oldest messages first and is told so.
package bus

import (
	"context"
	"errors"
	"strings"

	"github.com/trunkboard/trunkboard/signalling"
)

// MaxPayload is the greatest payload of a hint, in bytes.
const MaxPayload = 64 << 10

// MaxTopic is the greatest length of a topic, in bytes.
const MaxTopic = 512

// DefaultQueue is how many messages a Subscription holds for a slow reader.
const DefaultQueue = 256

// ErrClosed is returned by a Bus after Close.
var ErrClosed = errors.New("bus: closed")

// Message is one hint.
type Message struct {
	// Topic and Payload as published; Topic is empty when the message says only that something was missed.
	Topic   string
	Payload []byte
	// Missed says that at least one message before this one was lost.
	Missed bool
}

// Bus hands hints to every subscriber on every node.
type Bus interface {
	// Publish sends payload to all subscribers of topic. It never blocks, and neither keeps nor changes payload. A topic that is
	// empty, too long or contains '*' is M_INVALID_PARAM, a payload over MaxPayload is M_TOO_LARGE.
	Publish(topic string, payload []byte) error
	// Subscribe starts to listen. A topic that ends in '*' stands for all topics that begin with what is before it. What any node
	// publishes after Subscribe has returned arrives, or is reported as missed; ctx bounds only the wait for that.
	Subscribe(ctx context.Context, topics ...string) (*Subscription, error)
	// Close ends all subscriptions and waits for the bus's goroutines.
	Close() error
}

func checkTopic(topic string) error {
	if topic == "" || len(topic) > MaxTopic || strings.Contains(topic, "*") {
		return signalling.InvalidParam("a topic has 1 to %d bytes and no '*'", MaxTopic)
	}
	return nil
}

func checkPattern(topic string) error {
	if prefix, ok := strings.CutSuffix(topic, "*"); ok {
		if len(prefix) > MaxTopic || strings.Contains(prefix, "*") {
			return signalling.InvalidParam("a topic prefix has at most %d bytes and one '*', at its end", MaxTopic)
		}
		return nil
	}
	return checkTopic(topic)
}

func checkPublish(topic string, payload []byte) error {
	if len(payload) > MaxPayload {
		return signalling.TooLarge("a hint carries at most %d bytes", MaxPayload)
	}
	return checkTopic(topic)
}

// matches says whether a pattern (a topic, or a prefix with '*') covers topic.
func matches(pattern, topic string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(topic, prefix)
	}
	return pattern == topic
}
