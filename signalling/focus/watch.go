// SPDX-License-Identifier: Apache-2.0

package focus

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/trunkboard/trunkboard/signalling"
)

// Watch is a homeserver that does not tell who leaves rooms and who logs out, and is asked again and again: about each room with somebody
// in the SFU every five seconds, about each device there every thirty. One request is under way at a time, and they take a tenth of the
// time at most: a homeserver that is slow, or has many calls, is asked less often.
type Watch interface {
	// Joined lists the users who are joined to a room; nil when there is no list. Nobody's media end for not being on it: Homeserver.Present
	// is asked then, as when somebody comes.
	Joined(ctx context.Context, roomID string) (users []string, err error)
	// LoggedIn says whether a user's device is logged in. Errors: M_FORBIDDEN when not.
	LoggedIn(ctx context.Context, userID, deviceID string) error
}

const (
	watchEvery   = 5 * time.Second
	devicesEvery = 30 * time.Second
	watchMost    = 5 * time.Minute // between two attempts, whatever the homeserver does
	watchShare   = 10              // of the time it is asked one part at most
)

// watcher goes through the rooms of the members who are in the SFU.
type watcher struct {
	*Service
	after  string        // the room at which the last round ended without an answer: the next one begins behind it
	pause  time.Duration // after a round without any answer
	silent bool          // there was no answer, and that has been logged
}

// watch ends the media of those who left their rooms or logged out, until ctx ends.
func (s *Service) watch(ctx context.Context) {
	w := &watcher{Service: s, pause: watchEvery}
	for pause := watchEvery; s.sleep(ctx, pause); {
		pause = w.round(ctx)
	}
}

// sleep waits for d; false when ctx ends before.
func (s *Service) sleep(ctx context.Context, d time.Duration) bool {
	due := make(chan struct{})
	stop := s.Clock.AfterFunc(d, func() { close(due) })
	select {
	case <-due:
		return true
	case <-ctx.Done():
		stop()
		return false
	}
}

// round looks at each room once, and says how long to wait for the next round. Without an answer everybody stays, which is logged once.
func (w *watcher) round(ctx context.Context) time.Duration {
	began := w.Clock.Now()
	answers, err := w.look(ctx)
	switch {
	case ctx.Err() != nil:
		return watchEvery
	case err != nil && !w.silent:
		w.silent = true
		w.Log.Warn("the homeserver does not say who is still in its rooms; until it does, who leaves one or logs out stays in the call", "err", err)
	case err == nil && answers > 0 && w.silent:
		w.silent = false
		w.Log.Info("the homeserver says again who is in its rooms")
	}
	if err != nil && answers == 0 {
		w.pause = min(2*w.pause, watchMost)
		return w.pause
	}
	w.pause = watchEvery
	return min(max(watchEvery, (watchShare-1)*w.Clock.Now().Sub(began)), watchMost)
}

// look goes through the rooms until the homeserver does not answer; answers is how many it got through.
func (w *watcher) look(ctx context.Context) (answers int, err error) {
	here := map[string][]*holder{}
	w.mu.Lock()
	for _, h := range w.present {
		here[h.RoomID] = append(here[h.RoomID], h)
	}
	w.mu.Unlock()
	rooms := slices.Sorted(maps.Keys(here))
	first := slices.IndexFunc(rooms, func(id string) bool { return id > w.after })
	rooms = slices.Concat(rooms[max(first, 0):], rooms[:max(first, 0)])
	for _, id := range rooms {
		if err := w.room(ctx, id, here[id]); err != nil {
			w.after = id
			return answers, err
		}
		answers++
	}
	return answers, nil
}

// room looks at one room and those who are in the SFU for it.
func (w *watcher) room(ctx context.Context, id string, holders []*holder) error {
	joined, err := w.Watch.Joined(ctx, id)
	if err != nil {
		return err
	}
	missing := map[string]bool{}
	for _, h := range holders {
		missing[h.UserID] = true
	}
	for _, user := range joined {
		delete(missing, user)
	}
	for _, h := range holders {
		now := w.Clock.Now()
		switch {
		case missing[h.UserID]:
			err = w.Homeserver.Present(ctx, id, h.UserID, h.DeviceID)
		case now.Sub(h.seen) >= devicesEvery:
			err = w.Watch.LoggedIn(ctx, h.UserID, h.DeviceID)
		default:
			continue
		}
		switch {
		case err == nil:
			h.seen = now
		case signalling.AsError(err).Status == http.StatusForbidden:
			w.expel(h)
		default:
			return err
		}
	}
	return nil
}

// expel ends the media of a holder who is in the SFU. Somebody who has come in his place since then was judged by Admit.
func (w *watcher) expel(h *holder) {
	at := place{h.MediaRoom(), h.Identity()}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.present[at] == h {
		w.Log.Info("a member of a call has left its room or logged out: the media session ends", "room", h.RoomID, "user", h.UserID, "device", h.DeviceID)
		h.revoked = true
		w.later(func() { w.Media.Remove(at.room, at.identity) })
	}
}
