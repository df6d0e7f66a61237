// SPDX-License-Identifier: Apache-2.0

package livekit

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/trunkboard/trunkboard/sfu"
	"github.com/trunkboard/trunkboard/sfu/livekit/wire"
	"google.golang.org/protobuf/encoding/protojson"
)

// Limits of webhooks.
const (
	hookQueue   = 1000 // events that wait for one URL; the oldest are dropped then, and counted in the next
	hookTries   = 4
	hookTimeout = 10 * time.Second
	hookPause   = time.Second // before the second try, doubled for the next
	hookToken   = 5 * time.Minute
)

// names of what happens, as LiveKit's webhooks call it.
var eventNames = map[sfu.What]string{
	sfu.RoomStarted: "room_started", sfu.RoomFinished: "room_finished", sfu.ParticipantJoined: "participant_joined",
	sfu.ParticipantLeft: "participant_left", sfu.ParticipantAborted: "participant_connection_aborted",
	sfu.TrackPublished: "track_published", sfu.TrackUnpublished: "track_unpublished",
}

// Hooks tells URLs what happens in rooms, in the form of LiveKit's webhooks: JSON, with a token in the Authorization header that carries
// the SHA-256 of the body and is signed with the API key. Each URL gets its events in order; one that does not answer is tried again.
type Hooks struct {
	keys   Keys
	key    string
	log    *slog.Logger
	queues []*hook
	client *http.Client
	cancel context.CancelFunc
	wait   sync.WaitGroup
}

// hook is one URL.
type hook struct {
	url     string
	mu      sync.Mutex
	waiting []sfu.Entry
	dropped int
	wake    chan struct{}
}

// NewHooks starts telling urls; key names the API key of keys to sign with.
func NewHooks(urls []string, keys Keys, key string, log *slog.Logger) *Hooks {
	ctx, cancel := context.WithCancel(context.Background())
	h := &Hooks{keys: keys, key: key, log: log, cancel: cancel, client: &http.Client{
		Timeout: hookTimeout,
		// The token is meant for the URL that was configured.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	for _, u := range urls {
		q := &hook{url: u, wake: make(chan struct{}, 1)}
		h.queues = append(h.queues, q)
		h.wait.Go(func() { h.serve(ctx, q) })
	}
	return h
}

// Note takes an event; it does not block. It serves as sfu.Config's Journal.
func (h *Hooks) Note(e sfu.Entry) {
	for _, q := range h.queues {
		q.mu.Lock()
		if len(q.waiting) == hookQueue {
			q.waiting, q.dropped = q.waiting[1:], q.dropped+1
		}
		q.waiting = append(q.waiting, e)
		q.mu.Unlock()
		select {
		case q.wake <- struct{}{}:
		default:
		}
	}
}

// Close stops; what waits is lost.
func (h *Hooks) Close() {
	h.cancel()
	h.wait.Wait()
}

func (q *hook) next() (e sfu.Entry, dropped int, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 {
		return e, 0, false
	}
	e, dropped = q.waiting[0], q.dropped
	q.waiting, q.dropped = q.waiting[1:], 0
	return e, dropped, true
}

func (h *Hooks) serve(ctx context.Context, q *hook) {
	for {
		e, dropped, ok := q.next()
		if !ok {
			select {
			case <-ctx.Done():
				return
			case <-q.wake:
			}
			continue
		}
		body, err := encodeEvent(e, dropped)
		if err != nil {
			h.log.Error("encoding an event", "error", err)
			continue
		}
		pause := hookPause
		for try := 1; ; try++ {
			if err = h.post(ctx, q.url, body); err == nil || ctx.Err() != nil || try == hookTries {
				break
			}
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
			pause *= 2
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			h.log.Warn("a webhook does not take its event", "url", q.url, "event", eventNames[e.What], "error", err)
		}
	}
}

// encodeEvent makes the body.
func encodeEvent(e sfu.Entry, dropped int) ([]byte, error) {
	m := &wire.WebhookEvent{Event: eventNames[e.What], Room: room(e.Room), Id: "EV_" + rand.Text()[:12], CreatedAt: e.At.Unix(), NumDropped: int32(dropped)}
	if e.Participant != nil {
		m.Participant = participant(*e.Participant)
	}
	if e.Track != nil {
		m.Track = track(*e.Track)
	}
	return protojson.Marshal(m)
}

func (h *Hooks) post(ctx context.Context, url string, body []byte) error {
	sum := sha256.Sum256(body)
	token, err := h.keys.Sign(h.key, Claims{SHA256: base64.StdEncoding.EncodeToString(sum[:])}, hookToken)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", token)
	r.Header.Set("Content-Type", "application/webhook+json")
	resp, err := h.client.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.CopyN(io.Discard, resp.Body, 4096) // a little, so that the connection is used again
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("livekit: the webhook answered %s", resp.Status)
	}
	return nil
}
