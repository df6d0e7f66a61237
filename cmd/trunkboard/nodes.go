// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/homeserver/e2ee"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/syncapi"
	"github.com/trunkboard/trunkboard/signalling/bus"
)

// Several nodes on one PostgreSQL read each other's commits from the database (storage/share.go). The bus only tells them when to look;
// without a hint they look once in catchUpEvery.
const (
	catchUpEvery = time.Second
	pruneEvery   = time.Minute
	hearTime     = 10 * time.Second // to read what a batch of announcements speaks of
	topicCommit  = "commit"
	topicTyping  = "typing"
)

// typingHint travels under topicTyping.
type typingHint struct {
	Node, Room, User string
	MS               int64
}

// nodes connects the services of this node with those of the others.
type nodes struct {
	store *storage.Store
	rooms *rooms.Service
	acc   *accounts.Service
	keys  *e2ee.Service
	sync  *syncapi.Service
	out   *outgoing
}

// hear turns what other nodes announce into notes for this node's observers. It runs on the store's writer.
func (n nodes) hear(list []storage.Announcement) ([]storage.Note, error) {
	ctx, cancel := context.WithTimeout(context.Background(), hearTime)
	defer cancel()
	if err := n.rooms.Prefetch(ctx, list); err != nil {
		return nil, err
	}
	notes := make([]storage.Note, 0, len(list))
	for _, a := range list {
		n.acc.Hear(a)
		switch a.Kind {
		case storage.NoteEvent, storage.NoteSticky, storage.NoteForgotten:
			note, ok, err := n.rooms.Hear(ctx, a)
			if err != nil {
				return nil, err
			}
			if ok {
				notes = append(notes, note)
			}
		case storage.NoteReceipt:
			note, err := n.sync.HearReceipt(ctx, a)
			if err != nil {
				return nil, err
			}
			notes = append(notes, note)
		case storage.NoteTokens, storage.NoteUser: // accounts alone
		case storage.NoteSending:
			n.out.hear(a)
		case storage.NoteDeviceGone:
			n.keys.ForgetDevice(a.User, a.Device)
		case storage.NoteKeyCounts:
			n.keys.ForgetDevice(a.User, a.Device)
			notes = append(notes, remote(a))
		case storage.NoteLost:
			if _, _, err := n.rooms.Hear(ctx, a); err != nil {
				return nil, err
			}
			n.out.hear(a)
			notes = append(notes, remote(a))
		default:
			notes = append(notes, remote(a))
		}
	}
	return notes, nil
}

// remote is the note of an announcement; what it is about is read by whoever needs it.
func remote(a storage.Announcement) storage.Note {
	n := storage.Note{Pos: a.Pos, Kind: a.Kind, User: a.User, Device: a.Device, Room: a.Room, Remote: true}
	if a.Kind == storage.NoteDeviceList && a.Data != nil {
		var viewer string
		if json.Unmarshal(a.Data, &viewer) == nil {
			n.Value = storage.OnlyFor(viewer)
		}
	}
	return n
}

// openNodes makes this node one of several, when the database is one that nodes can share.
func (a *App) openNodes(n nodes) error {
	if !n.store.Postgres() {
		return nil
	}
	var hints bus.Bus = bus.NewMem(0)
	if a.cfg.Redis.URL != "" {
		r, err := bus.NewRedis(bus.RedisConfig{URL: a.cfg.Redis.URL}, a.log.With("part", "bus"))
		if err != nil {
			return fmt.Errorf("redis.url: %w", err)
		}
		hints = r
	}
	log := a.log.With("part", "nodes")
	me := rand.Text()
	publish := func(topic string, payload []byte) {
		if err := hints.Publish(topic, payload); err != nil {
			log.Debug("a hint was not passed on", "topic", topic, "err", err)
		}
	}
	n.sync.OnTyping(func(room, user string, d time.Duration) {
		if b, err := json.Marshal(typingHint{me, room, user, d.Milliseconds()}); err == nil {
			publish(topicTyping, b)
		}
	})
	n.store.Share(me, n.hear, func() { publish(topicCommit, []byte(me)) })
	a.running = append(a.running, component{name: "nodes", close: hints.Close, run: func(ctx context.Context) error {
		sub, err := hints.Subscribe(ctx, topicCommit, topicTyping)
		if err != nil {
			return err
		}
		defer sub.Close()
		return n.follow(ctx, me, sub.C(), func(err error) { log.Warn("what other nodes committed could not be read yet", "err", err) })
	}})
	return nil
}

// follow reads what other nodes commit, when a hint says so and now and then, until ctx ends.
func (n nodes) follow(ctx context.Context, me string, hints <-chan bus.Message, failed func(error)) error {
	tick := time.NewTicker(catchUpEvery)
	defer tick.Stop()
	prune := time.NewTicker(pruneEvery)
	defer prune.Stop()
	look := make(chan struct{}, 1) // one look answers many hints
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range look {
			if err := n.store.CatchUp(ctx); err != nil && ctx.Err() == nil {
				failed(err)
			}
		}
	}()
	defer func() { close(look); <-done }()
	soon := func() {
		select {
		case look <- struct{}{}:
		default:
		}
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case m, ok := <-hints:
			if !ok {
				hints = nil
				continue
			}
			if m.Missed || m.Topic == topicCommit && string(m.Payload) != me {
				soon()
			}
			var t typingHint
			if m.Topic == topicTyping && json.Unmarshal(m.Payload, &t) == nil && t.Node != me {
				n.sync.HearTyping(t.Room, t.User, time.Duration(t.MS)*time.Millisecond)
			}
		case <-tick.C:
			soon()
		case <-prune.C:
			if err := n.store.PruneLog(ctx); err != nil && ctx.Err() == nil {
				failed(err)
			}
		}
	}
}
