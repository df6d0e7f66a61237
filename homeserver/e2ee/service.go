// SPDX-License-Identifier: Apache-2.0

package e2ee

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"sync/atomic"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// Limits. They are far above what clients use and keep one account from filling the server.
const (
	MaxDeviceKeys     = 32 << 10 // bytes of a device_keys or cross-signing key object
	MaxKey            = 4 << 10  // bytes of a one-time or fallback key
	MaxOneTimeKeys    = 500      // of one device, and in one upload
	MaxFallbackKeys   = 16       // algorithms of one device
	MaxQueryUsers     = 2000     // users in one /keys/query
	MaxClaims         = 2000     // devices in one /keys/claim
	MaxSignatures     = 500      // in one /keys/signatures/upload
	MaxTargets        = 1000     // devices in one /sendToDevice ("*" counts as one)
	MaxMessage        = 64 << 10 // bytes of one to-device content
	MaxWaiting        = 10000    // messages that wait for a device: beyond it the oldest go
	MaxSessionData    = 32 << 10 // bytes of session_data of one backed-up key
	MaxBackupSessions = 1 << 20  // keys in one backup
	MaxBackupPut      = 5000     // keys in one PUT /room_keys/keys
	MaxAuthData       = 64 << 10 // bytes of a backup's auth_data
	maxID             = 255      // bytes of any id
)

// Rooms knows who shares a room with whom (both joined), everybody with himself.
type Rooms interface {
	ShareRoom(ctx context.Context, a, b string) (bool, error)
	SharedUsers(ctx context.Context, user string) (map[string]struct{}, error)
}

// Remote reaches the users of other servers; the federation part implements it. Maps are user -> device -> value.
type Remote interface {
	// QueryKeys asks a server for device and cross-signing keys, as seen by viewer. An empty list of devices means all.
	QueryKeys(ctx context.Context, server, viewer string, users map[string][]string) (*Keys, error)
	// ClaimKeys asks a server for one-time keys: user -> device -> algorithm.
	ClaimKeys(ctx context.Context, server string, claims map[string]map[string]string) (map[string]map[string]map[string]json.RawMessage, error)
	// QueueToDevice puts an m.direct_to_device EDU for a server into the outbox, in the transaction that sends the messages.
	QueueToDevice(tx *storage.Tx, server, sender, typ, txn string, messages map[string]map[string]json.RawMessage) error
}

// Service does what the endpoints of this part promise. Make it with New; it has no goroutines of its own.
type Service struct {
	store  *storage.Store
	server string
	log    *slog.Logger
	clock  signalling.Clock
	rooms  Rooms
	remote Remote

	counts countsCache
	inbox  inbox
	sends  atomic.Int64
}

// Deps are the parts next door.
type Deps struct {
	Rooms  Rooms            // needed by DeviceListsChanged
	Remote Remote           // nil: users of other servers cannot be reached
	Clock  signalling.Clock // nil: the machine's
}

// New makes the service of the server with that name.
func New(store *storage.Store, server string, log *slog.Logger, d Deps) *Service {
	if d.Clock == nil {
		d.Clock = signalling.SystemClock{}
	}
	s := &Service{store: store, server: server, log: log, clock: d.Clock, rooms: d.Rooms, remote: d.Remote}
	s.counts.init(d.Clock, store.Postgres())
	s.inbox.init(!store.Postgres())
	return s
}

func (s *Service) local(user string) bool { return event.ServerOf(user) == s.server }

// device names a device of a user.
type device struct{ user, id string }

// write runs op as one write. op's first result is a refusal, before which it must not have written anything: unlike an error it
// leaves the other writes of the same commit alone. done is called after the commit, on the writer's goroutine, even when the
// caller has gone.
func (s *Service) write(ctx context.Context, op func(*storage.Tx) (refused, err error), done func(ok bool)) error {
	type outcome struct{ refused, err error }
	result := make(chan outcome, 1)
	var refused error
	err := s.store.Enqueue(func(tx *storage.Tx) (err error) {
		refused, err = op(tx)
		return err
	}, func(err error) {
		if done != nil {
			done(err == nil && refused == nil)
		}
		result <- outcome{refused, err}
	})
	if err != nil {
		if done != nil {
			done(false)
		}
		return err
	}
	select {
	case o := <-result:
		if o.err != nil {
			return o.err
		}
		return o.refused
	case <-ctx.Done():
		return ctx.Err()
	}
}

// decode reads a body that is one JSON object. Errors: M_NOT_JSON, M_BAD_JSON with shape as its text.
func decode(body []byte, v any, shape string) error {
	if err := event.CheckJSON(body); err != nil {
		return err
	}
	if bytes.TrimLeft(body, " \t\r\n")[0] != '{' {
		return signalling.BadJSON("the body must be a JSON object")
	}
	if err := json.Unmarshal(body, v); err != nil {
		return signalling.BadJSON("%s", shape).Because(err)
	}
	return nil
}

// checkID refuses ids that no client makes and PostgreSQL cannot store.
func checkID(what, id string) error {
	switch {
	case id == "":
		return signalling.InvalidParam("%s must not be empty", what)
	case len(id) > maxID:
		return signalling.InvalidParam("%s may have %d bytes", what, maxID)
	case strings.IndexByte(id, 0) >= 0:
		return signalling.InvalidParam("%s must not hold the character NUL", what)
	}
	return nil
}

func checkUser(id string) error {
	if err := checkID("a user id", id); err != nil {
		return err
	}
	_, _, err := event.UserID(id)
	return err
}
