// SPDX-License-Identifier: Apache-2.0

package rooms

import (
	"bytes"
	"context"
	"fmt"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/signalling"
)

// Redactions: whether one takes effect, and on what.

// redaction is what a redaction event does to its target.
type redaction struct {
	target *Stored
	done   *event.Event
}

// keepRedacted puts a redacted event in the place of the one it was.
func (r *Room) keepRedacted(red *redaction, by string) {
	if red == nil {
		return
	}
	st := *red.target
	if cur, ok := r.s.events.Get(st.NID); ok {
		st = *cur // the target may have been committed since
	}
	st.Event, st.RedactedBy, st.StickyUntil = red.done, by, 0
	r.s.keep(&st)
}

// redaction works out what a redaction does: whoever may redact in the room, or sent the target, takes its content away. strict says
// that a redaction which may not do so is refused (ours); otherwise it just does nothing (another server's, which answers for all of
// its users: room version 3, "Handling redactions").
//
// known is false when the target is not there.
func (r *Room) redaction(ctx context.Context, e *event.Event, state event.State, strict bool) (red *redaction, known bool, err error) {
	m, err := r.s.byEventID(ctx, r, e.Redacts())
	if err != nil {
		return nil, false, err
	}
	target := m[e.Redacts()]
	if target == nil {
		if strict {
			err = signalling.NotFound("there is no such event to redact")
		}
		return nil, false, err
	}
	red, err = r.redacts(e, target, state, strict)
	return red, true, err
}

// redacts works out what a redaction does to its target.
func (r *Room) redacts(e *event.Event, target *Stored, state event.State, strict bool) (*redaction, error) {
	power, err := event.PowerOf(state)
	if err != nil {
		return nil, err
	}
	own := target.Sender() == e.Sender() || !strict && event.ServerOf(target.Sender()) == event.ServerOf(e.Sender())
	if target.Is("m.room.create", "") || !own && power.User(e.Sender()) < power.Redact() {
		if strict {
			return nil, signalling.Forbidden("you may not redact this event")
		}
		return nil, nil
	}
	if target.Redacted() {
		return nil, nil
	}
	done, err := target.Redact()
	if err != nil {
		return nil, fmt.Errorf("redact %s: %w", target.ID(), err)
	}
	return &redaction{target: target, done: done}, nil
}

// sameJSON compares two contents by their canonical form.
func sameJSON(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	ca, err := event.Canonical(a)
	if err != nil {
		return false
	}
	cb, err := event.Canonical(b)
	return err == nil && bytes.Equal(ca, cb)
}
