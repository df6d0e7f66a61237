// SPDX-License-Identifier: Apache-2.0

package bus

import (
	"bytes"
	"slices"
	"strings"
	"sync"
)

// Subscription is one listener: a queue of messages between a Bus and a reader.
type Subscription struct {
	hub      *hub
	patterns []string

	mu     sync.Mutex
	closed bool
	queue  chan Message
}

// C is where messages arrive. It is closed by Close, of the Subscription or of the Bus.
func (s *Subscription) C() <-chan Message { return s.queue }

// Close ends the subscription and closes C; messages not read yet can still be read.
func (s *Subscription) Close() {
	s.hub.remove(s)
	s.end()
}

func (s *Subscription) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		close(s.queue)
	}
}

// put queues m; when the queue is full the oldest message goes and m tells of it.
func (s *Subscription) put(m Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	for {
		select {
		case s.queue <- m:
			return
		default:
		}
		select {
		case <-s.queue:
			m.Missed = true
		default: // the reader was faster
		}
	}
}

// by is the first of the subscription's patterns that covers topic. A message that reaches a node once for each pattern is queued
// only for this one.
func (s *Subscription) by(topic string) string {
	for _, p := range s.patterns {
		if matches(p, topic) {
			return p
		}
	}
	return ""
}

// hub holds the subscriptions of one node.
type hub struct {
	queue int
	// changed, when set, is called under the lock as a pattern gets its first subscription or loses its last.
	changed func(pattern string, wanted bool)

	mu        sync.RWMutex
	closed    bool
	byPattern map[string]map[*Subscription]struct{}
	prefixes  map[string]struct{} // the patterns that end in '*'
}

func newHub(queue int, changed func(pattern string, wanted bool)) *hub {
	if queue <= 0 {
		queue = DefaultQueue
	}
	return &hub{
		queue: queue, changed: changed,
		byPattern: make(map[string]map[*Subscription]struct{}),
		prefixes:  make(map[string]struct{}),
	}
}

func (h *hub) add(topics []string) (*Subscription, error) {
	for _, t := range topics {
		if err := checkPattern(t); err != nil {
			return nil, err
		}
	}
	s := &Subscription{hub: h, queue: make(chan Message, h.queue)}
	for _, t := range topics {
		if !slices.Contains(s.patterns, t) {
			s.patterns = append(s.patterns, t)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, ErrClosed
	}
	for _, p := range s.patterns {
		subs := h.byPattern[p]
		if subs == nil {
			subs = make(map[*Subscription]struct{})
			h.byPattern[p] = subs
			if strings.HasSuffix(p, "*") {
				h.prefixes[p] = struct{}{}
			}
			if h.changed != nil {
				h.changed(p, true)
			}
		}
		subs[s] = struct{}{}
	}
	return s, nil
}

func (h *hub) remove(s *Subscription) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range s.patterns {
		subs := h.byPattern[p]
		if _, there := subs[s]; !there {
			continue
		}
		delete(subs, s)
		if len(subs) == 0 {
			delete(h.byPattern, p)
			delete(h.prefixes, p)
			if h.changed != nil {
				h.changed(p, false)
			}
		}
	}
}

// publish queues a copy of payload for every subscription that covers topic.
func (h *hub) publish(topic string, payload []byte) error {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.closed {
		return ErrClosed
	}
	m := Message{Topic: topic, Payload: bytes.Clone(payload)}
	h.deliver(topic, m)
	for p := range h.prefixes {
		if matches(p, topic) {
			h.deliver(p, m)
		}
	}
	return nil
}

// arrived queues a message that came from elsewhere because of one pattern.
func (h *hub) arrived(pattern string, m Message) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	h.deliver(pattern, m)
}

func (h *hub) deliver(pattern string, m Message) {
	for s := range h.byPattern[pattern] {
		if s.by(m.Topic) == pattern {
			s.put(m)
		}
	}
}

// missed tells every subscription that something was lost.
func (h *hub) missed() {
	h.mu.RLock()
	defer h.mu.RUnlock()
	told := make(map[*Subscription]struct{})
	for _, subs := range h.byPattern {
		for s := range subs {
			if _, before := told[s]; !before {
				told[s] = struct{}{}
				s.put(Message{Missed: true})
			}
		}
	}
}

func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for _, subs := range h.byPattern {
		for s := range subs {
			s.end()
		}
	}
	clear(h.byPattern)
	clear(h.prefixes)
}
