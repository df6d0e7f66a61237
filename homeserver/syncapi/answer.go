// SPDX-License-Identifier: Apache-2.0

package syncapi

import (
	"context"
	"encoding/json"
	"slices"
	"sort"
	"strconv"
	"sync"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
)

// toDevicePage is how many to-device messages one answer holds.
const toDevicePage = 100

// answer collects the sections of one sync answer.
type answer struct {
	s     *Service
	ctx   context.Context
	q     *Request
	since Token
	next  Token
	now   time.Time
	first bool // no token: everything is new

	something bool // there is news: do not wait
	ignored   map[string]struct{}
	unwanted  func(sender string) bool // whose invites are hidden; nil until hidesInvite asks
	present   map[string]bool          // users whose presence is in the answer

	join, invite, knock, leave []byte // members of the objects of that name
	presence                   []byte
	account                    []byte
	toDevice                   []byte
	changed, left              map[string]struct{} // device lists

	sticky map[string][]rooms.Sticky // what sticks, by room, where the store was asked; nil: what commits brought
}

// body writes the answer.
func (a *answer) body() ([]byte, error) {
	b := make([]byte, 0, 256+len(a.join)+len(a.invite)+len(a.knock)+len(a.leave)+len(a.presence)+len(a.account)+len(a.toDevice))
	b = append(b, `{"next_batch":"`...)
	b = a.next.append(b)
	b = append(b, '"')
	if a.join != nil || a.invite != nil || a.knock != nil || a.leave != nil {
		b = append(b, `,"rooms":{`...)
		comma := false
		for _, sec := range []struct {
			name string
			body []byte
		}{{"join", a.join}, {"invite", a.invite}, {"knock", a.knock}, {"leave", a.leave}} {
			if sec.body == nil {
				continue
			}
			if comma {
				b = append(b, ',')
			}
			comma = true
			b = append(append(append(append(b, '"'), sec.name...), `":{`...), sec.body...)
			b = append(b, '}')
		}
		b = append(b, '}')
	}
	b = appendEvents(b, "presence", a.presence)
	b = appendEvents(b, "account_data", a.account)
	b = appendEvents(b, "to_device", a.toDevice)
	if len(a.changed)+len(a.left) > 0 {
		b = append(b, `,"device_lists":{"changed":`...)
		b = appendNames(b, a.changed)
		b = append(b, `,"left":`...)
		b = appendNames(b, a.left)
		b = append(b, '}')
	}
	if a.s.Keys != nil && a.q.Device != "" {
		counts, fallback, err := a.s.Keys.KeyCounts(a.ctx, a.q.User, a.q.Device)
		if err != nil {
			return nil, err
		}
		b = append(b, `,"device_one_time_keys_count":{`...)
		if _, ok := counts["signed_curve25519"]; !ok {
			b = append(b, `"signed_curve25519":0`...) // clients wait for this number before they make keys
			for range counts {
				b = append(b, ',')
				break
			}
		}
		algorithms := make([]string, 0, len(counts))
		for k := range counts {
			algorithms = append(algorithms, k)
		}
		sort.Strings(algorithms)
		for i, k := range algorithms {
			if i > 0 {
				b = append(b, ',')
			}
			b = event.AppendString(b, k)
			b = append(b, ':')
			b = strconv.AppendInt(b, int64(counts[k]), 10)
		}
		b = append(b, `},"device_unused_fallback_key_types":[`...)
		for i, k := range fallback {
			if i > 0 {
				b = append(b, ',')
			}
			b = event.AppendString(b, k)
		}
		b = append(b, ']')
	}
	return append(b, '}'), nil
}

// appendEvents writes `,"name":{"events":[…]}` unless there is nothing.
func appendEvents(b []byte, name string, events []byte) []byte {
	if events == nil {
		return b
	}
	b = append(append(append(b, `,"`...), name...), `":{"events":[`...)
	b = append(b, events...)
	return append(b, `]}`...)
}

func appendNames(b []byte, set map[string]struct{}) []byte {
	names := make([]string, 0, len(set))
	for n := range set {
		names = append(names, n)
	}
	sort.Strings(names)
	b = append(b, '[')
	for i, n := range names {
		if i > 0 {
			b = append(b, ',')
		}
		b = event.AppendString(b, n)
	}
	return append(b, ']')
}

// list appends one element to the inside of a JSON array or object.
func list(to []byte, element ...[]byte) []byte {
	if to == nil {
		to = make([]byte, 0, 1024)
	}
	if len(to) > 0 {
		to = append(to, ',')
	}
	for _, e := range element {
		to = append(to, e...)
	}
	return to
}

// room adds a room's object to a section.
func (a *answer) room(section *[]byte, id string, body []byte) {
	*section = list(*section, event.AppendString(nil, id), []byte{':'}, body)
	a.something = true
}

// hidesInvite says that the reader is not to see an invite of sender: he ignores him, or takes no invites from him.
func (a *answer) hidesInvite(sender string) (bool, error) {
	if _, ok := a.ignored[sender]; ok {
		return true, nil
	}
	if a.unwanted == nil && a.s.Invites != nil {
		var err error
		if a.unwanted, err = a.s.Invites.HidesInvites(a.ctx, a.q.User); err != nil {
			return false, err
		}
	}
	if a.unwanted == nil {
		a.unwanted = func(string) bool { return false }
	}
	return a.unwanted(sender), nil
}

// ignores says that the reader does not want to hear of e: "Ignoring Users" takes away events of ignored users that are not state.
func (a *answer) ignores(e *rooms.Stored) bool {
	if len(a.ignored) == 0 || e.IsState() {
		return false
	}
	_, ok := a.ignored[e.Sender()]
	return ok
}

func (a *answer) deviceChanged(user string) {
	if a.changed == nil {
		a.changed = map[string]struct{}{}
	}
	a.changed[user] = struct{}{}
	a.something = true
}

// deviceLeft notes that the reader shares no room with a user any more.
func (a *answer) deviceLeft(user string) error {
	if user == a.q.User {
		return nil
	}
	share, err := a.s.Rooms.ShareRoom(a.ctx, a.q.User, user)
	if err != nil || share {
		return err
	}
	if a.left == nil {
		a.left = map[string]struct{}{}
	}
	a.left[user] = struct{}{}
	a.something = true
	return nil
}

// takeToDevice hands out the messages that wait for the device, a page at a time.
func (a *answer) takeToDevice() error {
	if a.s.Keys == nil || a.q.Device == "" {
		return nil
	}
	msgs, last, err := a.s.Keys.ToDevice(a.ctx, a.q.User, a.q.Device, a.since.ToDevice, a.next.Pos, toDevicePage)
	if err != nil {
		return err
	}
	a.give(msgs, last)
	return nil
}

func (a *answer) give(msgs []json.RawMessage, last int64) {
	for _, m := range msgs {
		a.toDevice = list(a.toDevice, m)
	}
	if len(msgs) < toDevicePage {
		a.next.ToDevice = a.next.Pos // all there is
	} else {
		a.next.ToDevice = last
	}
	if len(msgs) > 0 {
		a.something = true
		a.s.handed(a.q.User, a.q.Device, last)
	}
}

// accountData adds what changed after the token: global data to its section, room data to the map.
func (a *answer) accountData() (byRoom map[string][]byte, err error) {
	if a.s.Account == nil {
		return nil, nil
	}
	events, err := a.s.Account.AccountData(a.ctx, a.q.User, a.since.Pos, a.next.Pos)
	if err != nil {
		return nil, err
	}
	byRoom = map[string][]byte{}
	for _, e := range events {
		raw := append(append([]byte(`{"content":`), e.Content...), `,"type":`...)
		raw = append(event.AppendString(raw, e.Type), '}')
		if e.Room == "" {
			if a.q.Filter.AccountData.Allows("", e.Type, a.q.User, false) {
				a.account = list(a.account, raw)
				a.something = true
			}
		} else if a.q.Filter.Room.AccountData.Allows(e.Room, e.Type, a.q.User, false) && a.q.Filter.Room.Allows(e.Room) {
			byRoom[e.Room] = list(byRoom[e.Room], raw)
		}
	}
	return byRoom, nil
}

// unread writes unread_notifications, and by thread where the client asked for that ("Threaded read receipts").
func (a *answer) unread(b []byte, room *rooms.Room) ([]byte, error) {
	if a.s.Unread == nil {
		return b, nil
	}
	byThread, err := a.s.Unread.UnreadByThread(a.ctx, a.q.User, room)
	if err != nil {
		return b, err
	}
	all := byThread[""]
	apart := a.q.Filter.Room.Timeline.UnreadThreadNotifications
	var threads []string
	for root, n := range byThread {
		switch {
		case root == "":
		case apart:
			threads = append(threads, root)
		default:
			all.Notify += n.Notify
			all.Highlight += n.Highlight
		}
	}
	b = appendTally(append(b, `,"unread_notifications":`...), all)
	if len(threads) > 0 {
		slices.Sort(threads)
		b = append(b, `,"unread_thread_notifications":`...)
		for i, root := range threads {
			sep := byte(',')
			if i == 0 {
				sep = '{'
			}
			b = event.AppendString(append(b, sep), root)
			b = appendTally(append(b, ':'), byThread[root])
		}
		b = append(b, '}')
	}
	return b, nil
}

func appendTally(b []byte, n Tally) []byte {
	b = append(b, `{"highlight_count":`...)
	b = strconv.AppendInt(b, n.Highlight, 10)
	b = append(b, `,"notification_count":`...)
	b = strconv.AppendInt(b, n.Notify, 10)
	return append(b, '}')
}

// summary writes the room summary ("m.heroes" and the counts).
func (a *answer) summary(b []byte, room *rooms.Room, head *rooms.Head) []byte {
	b = append(b, `,"summary":{"m.joined_member_count":`...)
	b = strconv.AppendInt(b, int64(len(head.Joined())), 10)
	b = append(b, `,"m.invited_member_count":`...)
	b = strconv.AppendInt(b, int64(len(head.Invited())), 10)
	_, named := head.Ref("m.room.name", "")
	_, alias := head.Ref("m.room.canonical_alias", "")
	if !named && !alias {
		b = append(b, `,"m.heroes":[`...)
		for i, u := range heroes(head, a.q.User) {
			if i > 0 {
				b = append(b, ',')
			}
			b = event.AppendString(b, u)
		}
		b = append(b, ']')
	}
	return append(b, '}')
}

// heroes are up to five other members, those who joined first before those who are invited.
func heroes(head *rooms.Head, reader string) []string {
	var out []string
	for _, l := range [][]string{head.Joined(), head.Invited()} {
		for _, u := range l {
			if u != reader && len(out) < 5 {
				out = append(out, u)
			}
		}
	}
	return out
}

// sentMembers remembers which member events a device was given, so that lazy loading does not repeat them.
type sentMembers struct {
	mu    sync.Mutex
	rooms map[string]map[string]int64
}

const maxSentRooms = 256

// lazyMembers picks the member events of senders that the device does not have yet.
func (a *answer) lazyMembers(room *rooms.Room, head *rooms.Head, senders []string, fresh bool) (refs []rooms.Ref) {
	key := a.q.User + "\x00" + a.q.Device
	m, ok := a.s.lazy.Get(key)
	if !ok {
		m = &sentMembers{rooms: map[string]map[string]int64{}}
		a.s.lazy.Add(key, m)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	have := m.rooms[room.ID]
	if fresh || have == nil || a.q.Filter.Room.State.IncludeRedundantMembers {
		if len(m.rooms) >= maxSentRooms {
			clear(m.rooms)
		}
		have = map[string]int64{}
		m.rooms[room.ID] = have
	}
	slices.Sort(senders)
	for _, u := range slices.Compact(senders) {
		ref, ok := head.Ref("m.room.member", u)
		if !ok || have[u] == ref.NID {
			continue
		}
		have[u] = ref.NID
		refs = append(refs, ref)
	}
	return refs
}
