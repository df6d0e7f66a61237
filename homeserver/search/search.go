// SPDX-License-Identifier: Apache-2.0

// Package search finds messages by their words. Its index follows the stream of events by itself, behind the senders' backs: sending
// a message costs nothing more because it can be found. A search first takes in what is new, so it finds what was sent before it.
//
// Encrypted messages cannot be found: the server does not know their words.
package search

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

const (
	page     = 500              // events taken in at once
	pause    = 15 * time.Second // between looks for something new
	maxText  = 64 << 10
	maxWords = 16
	maxWord  = 64 // bytes
	// MaxHits is how many events a search looks at; older or worse ones are not found.
	MaxHits = 2000
)

// Service keeps the index.
type Service struct {
	store *storage.Store
	clock signalling.Clock
	log   *slog.Logger
	mu    sync.Mutex // one at a time moves the index on
}

// New makes the service.
func New(store *storage.Store, clock signalling.Clock, log *slog.Logger) *Service {
	return &Service{store: store, clock: clock, log: log}
}

// Run keeps the index near the newest event until ctx ends, so that no search has much to take in.
func (s *Service) Run(ctx context.Context) error {
	for {
		if err := s.catchUp(ctx, s.store.Pos()); err != nil && ctx.Err() == nil {
			s.log.Warn("the search index does not move on", "err", err)
		}
		due := make(chan struct{})
		stop := s.clock.AfterFunc(pause, func() { close(due) })
		select {
		case <-ctx.Done():
			stop()
			return nil
		case <-due:
		}
	}
}

// catchUp takes in everything up to a position.
func (s *Service) catchUp(ctx context.Context, to int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		from, err := s.store.SearchPos(ctx)
		if err != nil || from >= to {
			return err
		}
		rows, err := s.store.SearchSource(ctx, from, to, page)
		if err != nil {
			return err
		}
		upTo := to
		if len(rows) == page {
			upTo = rows[page-1].Pos
		}
		var docs []storage.SearchDoc
		var redacted []string
		for _, e := range rows {
			if e.RedactedBy != "" {
				continue
			}
			root := gjson.ParseBytes(e.JSON)
			c := root.Get("content")
			d := storage.SearchDoc{NID: e.NID, RoomNID: e.RoomNID}
			switch e.Type {
			case "m.room.message":
				d.Body = text(c.Get("body"))
			case "m.room.name":
				d.Name = text(c.Get("name"))
			case "m.room.topic":
				d.Topic = text(c.Get("topic"))
			case "m.room.redaction":
				for _, target := range []gjson.Result{root.Get("redacts"), c.Get("redacts")} {
					if target.Type == gjson.String {
						redacted = append(redacted, target.Str)
					}
				}
				continue
			}
			if d.Body != "" || d.Name != "" || d.Topic != "" {
				docs = append(docs, d)
			}
		}
		if err := s.store.Write(ctx, func(tx *storage.Tx) error {
			_, err := tx.IndexSearch(from, upTo, docs, redacted)
			return err
		}); err != nil {
			return err
		}
	}
}

func text(v gjson.Result) string {
	if v.Type != gjson.String {
		return ""
	}
	t := v.Str
	if len(t) > maxText {
		t = t[:maxText]
	}
	return strings.ReplaceAll(strings.ToValidUTF8(t, ""), "\x00", "")
}

// Words splits what somebody looks for into the words that the index knows: letters and digits.
func Words(term string) []string {
	words := strings.FieldsFunc(strings.ToLower(term), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsMark(r) })
	out := words[:0]
	for _, w := range words[:min(len(words), maxWords)] {
		if len(w) <= maxWord {
			out = append(out, w)
		}
	}
	return out
}

// Query is what somebody looks for.
type Query struct {
	Rooms  []int64
	Term   string
	Keys   storage.SearchKeys
	Recent bool // by time, not by rank
}

// Find gives the events in which every word of the term begins a word, the best or the newest first, at most MaxHits.
func (s *Service) Find(ctx context.Context, q Query) ([]storage.SearchHit, error) {
	words := Words(q.Term)
	if len(words) == 0 || len(q.Rooms) == 0 {
		return nil, nil
	}
	if err := s.catchUp(ctx, s.store.Pos()); err != nil {
		return nil, err
	}
	return s.store.Search(ctx, q.Rooms, words, q.Keys, q.Recent, MaxHits)
}
