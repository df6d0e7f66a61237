// SPDX-License-Identifier: Apache-2.0

package syncapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/signalling"
)

// Bounds of a request of sliding sync.
const (
	MaxSlidingLists         = 100
	MaxSlidingRanges        = 100 // of one list
	MaxSlidingState         = 500 // entries of required_state of one list or subscription
	MaxSlidingTimeline      = 100 // a larger timeline_limit counts as this one
	MaxSlidingSubscriptions = 1000
	MaxSlidingFilter        = 500 // entries of one list of a filter
	MaxSlidingWait          = 2 * time.Minute
)

// wireExtensions is the same in both wire forms.
type wireExtensions struct {
	ToDevice struct {
		Enabled bool   `json:"enabled"`
		Limit   *int64 `json:"limit"`
		Since   string `json:"since"`
	} `json:"to_device"`
	E2EE struct {
		Enabled bool `json:"enabled"`
	} `json:"e2ee"`
	AccountData wireRooms `json:"account_data"`
	Receipts    wireRooms `json:"receipts"`
	Typing      wireRooms `json:"typing"`
	Threads     struct {
		Enabled bool   `json:"enabled"`
		Limit   *int64 `json:"limit"`
	} `json:"io.element.msc4308.thread_subscriptions"`
	Sticky struct {
		Enabled bool   `json:"enabled"`
		Limit   *int64 `json:"limit"`
		Since   string `json:"since"`
	} `json:"org.matrix.msc4354.sticky_events"`
}

type wireRooms struct {
	Enabled bool      `json:"enabled"`
	Lists   *[]string `json:"lists"`
	Rooms   *[]string `json:"rooms"`
}

// slidingDecoder reads a request and keeps the first error.
type slidingDecoder struct {
	q   *SlidingRequest
	err error
}

func (d *slidingDecoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = signalling.InvalidParam(format, args...)
	}
}

// unmarshal reads a body. Errors: M_NOT_JSON, M_BAD_JSON.
func (d *slidingDecoder) unmarshal(body []byte, v any) {
	if d.err = event.CheckJSON(body); d.err != nil {
		return
	}
	if trimmed := bytes.TrimLeft(body, " \t\r\n"); trimmed[0] != '{' {
		d.err = signalling.BadJSON("the body must be a JSON object")
		return
	}
	if err := json.Unmarshal(body, v); err != nil {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) && wrong.Field != "" {
			d.err = signalling.BadJSON("%s has the wrong type", wrong.Field)
			return
		}
		d.err = signalling.BadJSON("the body has the wrong shape").Because(err)
	}
}

func (d *slidingDecoder) conn(id string) {
	if len(id) > connectionIDLength {
		d.fail("conn_id may have %d bytes", connectionIDLength)
	}
	d.q.Conn = id
}

func (d *slidingDecoder) pos(pos string) {
	if len(pos) > 128 {
		pos = pos[:128] // not ours: it will not be found
	}
	d.q.Pos = pos
}

func (d *slidingDecoder) timeout(ms int64) {
	if ms < 0 {
		d.fail("timeout must be 0 or more")
	}
	d.q.Timeout = time.Duration(min(ms, int64(MaxSlidingWait/time.Millisecond))) * time.Millisecond
}

// names gives the keys of lists in order. opaque holds them to the grammar of opaque identifiers.
func (d *slidingDecoder) names(keys []string, opaque bool) []string {
	if len(keys) > MaxSlidingLists {
		d.fail("a request may have %d lists", MaxSlidingLists)
	}
	for _, k := range keys {
		if k == "" || len(k) > 255 {
			d.fail("the name of a list has 1 to 255 bytes")
		}
		if opaque && strings.ContainsFunc(k, func(c rune) bool {
			return !(c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '.' || c == '_' || c == '~' || c == '-')
		}) {
			d.fail("the name of a list has letters, digits and ._~- only")
		}
	}
	sort.Strings(keys)
	return keys
}

func (d *slidingDecoder) config(where string, limit *int64, rule *StateRule) SlidingConfig {
	switch {
	case limit == nil:
		if d.err == nil {
			d.err = signalling.MissingParam("timeline_limit of %s is missing", where)
		}
		return SlidingConfig{}
	case *limit < 0:
		d.fail("timeline_limit of %s must be 0 or more", where)
	}
	if len(rule.Include)+len(rule.Exclude) > MaxSlidingState {
		d.fail("required_state of %s may have %d entries", where, MaxSlidingState)
	}
	for _, list := range [][]StateElement{rule.Include, rule.Exclude} {
		for _, e := range list {
			if e.Type != nil && len(*e.Type) > event.MaxIDLength || e.StateKey != nil && len(*e.StateKey) > event.MaxIDLength {
				d.fail("required_state of %s may have types and state keys of %d bytes", where, event.MaxIDLength)
			}
		}
	}
	rule.name()
	return SlidingConfig{TimelineLimit: int(min(*limit, MaxSlidingTimeline)), State: rule}
}

func (d *slidingDecoder) rng(where string, r []int64) [2]int64 {
	if len(r) != 2 || r[0] < 0 || r[1] < r[0] {
		d.fail("a range of %s is two indexes, 0 or more, the first not behind the second", where)
		return [2]int64{}
	}
	return [2]int64{r[0], r[1]}
}

// types reads room types, where null stands for rooms without one.
func (d *slidingDecoder) types(where string, list *[]*string) []string {
	if list == nil {
		return nil
	}
	out := make([]string, 0, len(*list))
	for _, t := range *list {
		if t == nil {
			out = append(out, "")
		} else {
			out = append(out, *t)
		}
	}
	return d.bounded(where, &out)
}

func (d *slidingDecoder) bounded(where string, list *[]string) []string {
	if list == nil {
		return nil
	}
	if len(*list) > MaxSlidingFilter {
		d.fail("a filter of %s may have %d entries", where, MaxSlidingFilter)
	}
	return append([]string{}, *list...)
}

func (d *slidingDecoder) subscriptions(n int) {
	if n > MaxSlidingSubscriptions {
		d.fail("a request may have %d room subscriptions", MaxSlidingSubscriptions)
	}
	d.q.Subscriptions = make(map[string]SlidingConfig, min(n, MaxSlidingSubscriptions))
}

func (d *slidingDecoder) extensions(x *wireExtensions) {
	if x.ToDevice.Enabled {
		w := &ToDeviceWanted{Limit: toDevicePage}
		if l := x.ToDevice.Limit; l != nil {
			if *l < 1 {
				d.fail("limit of to_device must be 1 or more")
			}
			w.Limit = int(max(1, min(*l, toDevicePage)))
		}
		if s := x.ToDevice.Since; s != "" {
			n, err := strconv.ParseInt(s, 10, 64)
			if err != nil || n < 0 {
				d.fail("since of to_device is not a next_batch that this server gave out")
			}
			w.Since = n
		}
		d.q.ToDevice = w
	}
	if x.Threads.Enabled {
		d.q.Threads = threadsPage
		if l := x.Threads.Limit; l != nil {
			if *l < 1 {
				d.fail("limit of thread_subscriptions must be 1 or more")
			}
			d.q.Threads = int(max(1, min(*l, threadsPage)))
		}
	}
	if x.Sticky.Enabled {
		w := &StickyWanted{Limit: stickyPage}
		if l := x.Sticky.Limit; l != nil {
			if *l < 1 {
				d.fail("limit of sticky_events must be 1 or more")
			}
			w.Limit = int(max(1, min(*l, stickyPage)))
		}
		if s := x.Sticky.Since; s != "" {
			n, err := strconv.ParseInt(s, 10, 64)
			if err != nil || n < 0 {
				d.fail("since of sticky_events is not a next_batch that this server gave out")
			}
			w.Since = n
		}
		d.q.Sticky = w
	}
	d.q.Keys = x.E2EE.Enabled
	rooms := func(name string, w wireRooms) *RoomsWanted {
		if !w.Enabled {
			return nil
		}
		for _, l := range []*[]string{w.Lists, w.Rooms} {
			if l != nil && len(*l) > MaxSlidingSubscriptions {
				d.fail("extension %s may have %d lists and rooms", name, MaxSlidingSubscriptions)
			}
		}
		out := &RoomsWanted{}
		if w.Lists != nil {
			out.Lists = append([]string{}, *w.Lists...)
		}
		if w.Rooms != nil {
			out.Rooms = append([]string{}, *w.Rooms...)
		}
		return out
	}
	d.q.AccountData = rooms("account_data", x.AccountData)
	d.q.Receipts = rooms("receipts", x.Receipts)
	d.q.Typings = rooms("typing", x.Typing)
}

// body writes an answer; room writes one room's object.
func (a *SlidingAnswer) body(room func([]byte, *SlidingRoom) []byte) []byte {
	size := 512
	for _, r := range a.Rooms {
		size += 512 + len(r.State) + len(r.Timeline) + len(r.Stripped)
	}
	b := make([]byte, 0, size)
	b = event.AppendString(append(b, `{"pos":`...), a.Pos)
	if a.TxnID != "" {
		b = event.AppendString(append(b, `,"txn_id":`...), a.TxnID)
	}
	b = append(b, `,"lists":{`...)
	for i := range a.Lists {
		if i > 0 {
			b = append(b, ',')
		}
		b = event.AppendString(b, a.Lists[i].Name)
		b = strconv.AppendInt(append(b, `:{"count":`...), a.Counts[i], 10)
		b = append(b, '}')
	}
	b = append(b, `},"rooms":{`...)
	for i, r := range a.Rooms {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(event.AppendString(b, r.ID), ':')
		b = room(b, r)
	}
	b = append(b, `},"extensions":{`...)
	start := len(b)
	name := func(s string) {
		if len(b) > start {
			b = append(b, ',')
		}
		b = append(append(append(b, '"'), s...), `":`...)
	}
	if t := a.ToDevice; t != nil {
		name("to_device")
		b = append(b, `{"next_batch":"`...)
		b = strconv.AppendInt(b, t.Next, 10)
		b = append(b, `","events":[`...)
		b = append(append(b, t.Events...), `]}`...)
	}
	if a.Keys != nil {
		name("e2ee")
		b = a.Keys.append(b)
	}
	if a.Account != nil || a.AccountOf != nil {
		name("account_data")
		b = append(append(b, `{"global":[`...), a.Account...)
		b = appendRoomJSON(append(b, `],"rooms":`...), a.AccountOf, true)
		b = append(b, '}')
	}
	if a.ReceiptsOf != nil {
		name("receipts")
		b = append(appendRoomJSON(append(b, `{"rooms":`...), a.ReceiptsOf, false), '}')
	}
	if a.TypingOf != nil {
		name("typing")
		b = append(appendRoomJSON(append(b, `{"rooms":`...), a.TypingOf, false), '}')
	}
	if a.Threads != nil {
		name("io.element.msc4308.thread_subscriptions")
		b = a.Threads.Append(b, "prev_batch")
	}
	if s := a.Sticky; s != nil {
		name("org.matrix.msc4354.sticky_events")
		b = strconv.AppendInt(append(b, `{"next_batch":"`...), s.Next, 10)
		b = append(appendRoomJSON(append(b, `","rooms":`...), s.Rooms, false), '}')
	}
	return append(b, `}}`...)
}

func appendRoomJSON(b []byte, rooms []RoomJSON, array bool) []byte {
	b = append(b, '{')
	for i, r := range rooms {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(event.AppendString(b, r.Room), ':')
		if array {
			b = append(append(append(b, '['), r.JSON...), ']')
		} else {
			b = append(b, r.JSON...)
		}
	}
	return append(b, '}')
}

func (k *KeysGiven) append(b []byte) []byte {
	start := len(b)
	b = append(b, '{')
	if k.Counts != nil {
		b = append(b, `"device_one_time_keys_count":{`...)
		algorithms := make([]string, 0, len(k.Counts)+1)
		for a := range k.Counts {
			algorithms = append(algorithms, a)
		}
		if _, ok := k.Counts["signed_curve25519"]; !ok {
			algorithms = append(algorithms, "signed_curve25519") // clients wait for this number before they make keys
		}
		slices.Sort(algorithms)
		for i, a := range algorithms {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(event.AppendString(b, a), ':')
			b = strconv.AppendInt(b, int64(k.Counts[a]), 10)
		}
		b = append(b, `},"device_unused_fallback_key_types":`...)
		b = appendTexts(b, k.Fallback)
	}
	if len(k.Changed)+len(k.Left) > 0 {
		if len(b) > start+1 {
			b = append(b, ',')
		}
		b = appendTexts(append(b, `"device_lists":{"changed":`...), k.Changed)
		b = appendTexts(append(b, `,"left":`...), k.Left)
		b = append(b, '}')
	}
	return append(b, '}')
}

func appendTexts(b []byte, list []string) []byte {
	b = append(b, '[')
	for i, s := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = event.AppendString(b, s)
	}
	return append(b, ']')
}

// field begins a member of an object whose text starts at start.
func field(b []byte, start int, name string) []byte {
	if len(b) > start+1 {
		b = append(b, ',')
	}
	return append(append(append(b, '"'), name...), `":`...)
}

// common writes the fields of a room that both wire forms have, after what stands from start on.
func (r *SlidingRoom) common(b []byte, start int) []byte {
	number := func(name string, n int64) {
		b = strconv.AppendInt(field(b, start, name), n, 10)
	}
	if r.Initial {
		b = append(field(b, start, "initial"), "true"...)
	}
	if r.Bump != 0 {
		number("bump_stamp", r.Bump)
	}
	if r.HeroesTold {
		b = append(field(b, start, "heroes"), '[')
		for i, h := range r.Heroes {
			if i > 0 {
				b = append(b, ',')
			}
			b = event.AppendString(append(b, `{"user_id":`...), h.User)
			if h.Name != "" {
				b = event.AppendString(append(b, `,"displayname":`...), h.Name)
			}
			if h.Avatar != "" {
				b = event.AppendString(append(b, `,"avatar_url":`...), h.Avatar)
			}
			b = append(b, '}')
		}
		b = append(b, ']')
	}
	if r.DM != nil {
		b = strconv.AppendBool(field(b, start, "is_dm"), *r.DM)
	}
	if r.Joined >= 0 {
		number("joined_count", int64(r.Joined))
	}
	if r.Invited >= 0 {
		number("invited_count", int64(r.Invited))
	}
	if r.Unread != nil {
		number("notification_count", r.Unread.Notify)
		number("highlight_count", r.Unread.Highlight)
	}
	if r.Timeline != nil {
		number("num_live", int64(r.Live))
	}
	if r.Limited {
		b = append(field(b, start, "limited"), "true"...)
	}
	if r.Prev != "" {
		b = event.AppendString(field(b, start, "prev_batch"), r.Prev)
	}
	return b
}

// told writes a text that may be gone.
func (t Told) append(b []byte, start int, name string) []byte {
	if !t.Is {
		return b
	}
	b = field(b, start, name)
	if t.Text == "" {
		return append(b, "null"...)
	}
	return event.AppendString(b, t.Text)
}

func array(b []byte, start int, name string, inside []byte) []byte {
	if inside == nil {
		return b
	}
	return append(append(append(field(b, start, name), '['), inside...), ']')
}

// wireFilters are the filters of a list that both wire forms name alike.
type wireFilters struct {
	DM        *bool      `json:"is_dm"`
	Encrypted *bool      `json:"is_encrypted"`
	Types     *[]*string `json:"room_types"`
	NotTypes  *[]*string `json:"not_room_types"`
	Spaces    *[]string  `json:"spaces"`
	Tags      *[]string  `json:"tags"`
	NotTags   *[]string  `json:"not_tags"`
}

// filter checks the filters of a list; invited has a name of its own in each wire form.
func (d *slidingDecoder) filter(list string, f *wireFilters, invited *bool) SlidingFilter {
	return SlidingFilter{
		DM: f.DM, Encrypted: f.Encrypted, Invited: invited, Types: d.types(list, f.Types), NotTypes: d.types(list, f.NotTypes),
		Spaces: d.bounded(list, f.Spaces), Tags: d.bounded(list, f.Tags), NotTags: d.bounded(list, f.NotTags),
	}
}
