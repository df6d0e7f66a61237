// SPDX-License-Identifier: Apache-2.0

package push

import (
	"strings"
	"sync"

	"github.com/tidwall/gjson"
)

// View is an event as push rules look at it. What the predefined rules ask for is taken out once, however many users' rules look.
// It may be shared between goroutines.
type View struct {
	typ, sender, room string
	stateKey          *string
	json              []byte // the whole event

	once     sync.Once
	root     gjson.Result
	slots    [slotCount]gjson.Result
	body     string // content.body in lower case
	hasBody  bool
	thread   string // root of the thread that the event is in
	mentions []string

	hasMentions bool // m.mentions is there, whatever it says
}

// NewView makes a View. json is the event as servers exchange it.
func NewView(typ, sender, room string, stateKey *string, json []byte) *View {
	return &View{typ: typ, sender: sender, room: room, stateKey: stateKey, json: json}
}

// Slots are the paths that are taken out once.
const (
	slotMsgtype = iota
	slotMembership
	slotMentioned
	slotMentionsRoom
	slotRelType
	slotCount
)

// path is a compiled dot-separated property path (appendices).
type path struct {
	names []string
	slot  int // -1 for a path that is walked each time
}

func compilePath(s string) path {
	var names []string
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s) && (s[i+1] == '.' || s[i+1] == '\\'):
			i++
			b.WriteByte(s[i])
		case c == '.':
			names = append(names, b.String())
			b.Reset()
		default:
			b.WriteByte(c)
		}
	}
	p := path{names: append(names, b.String()), slot: -1}
	switch strings.Join(p.names, "\x00") {
	case "content\x00msgtype":
		p.slot = slotMsgtype
	case "content\x00membership":
		p.slot = slotMembership
	case "content\x00m.mentions\x00user_ids":
		p.slot = slotMentioned
	case "content\x00m.mentions\x00room":
		p.slot = slotMentionsRoom
	case "content\x00m.relates_to\x00rel_type":
		p.slot = slotRelType
	}
	return p
}

// is says that the path has exactly these names.
func (p path) is(names ...string) bool {
	if len(p.names) != len(names) {
		return false
	}
	for i, n := range names {
		if p.names[i] != n {
			return false
		}
	}
	return true
}

// open reads the event, once.
func (v *View) open() {
	v.once.Do(func() {
		v.root = gjson.ParseBytes(v.json)
		child(v.root, "content").ForEach(func(k, x gjson.Result) bool {
			switch k.Str {
			case "body":
				if x.Type == gjson.String {
					v.body, v.hasBody = strings.ToLower(x.Str), true
				}
			case "msgtype":
				v.slots[slotMsgtype] = x
			case "membership":
				v.slots[slotMembership] = x
			case "m.mentions":
				v.hasMentions = true
				v.slots[slotMentioned], v.slots[slotMentionsRoom] = child(x, "user_ids"), child(x, "room")
				if v.slots[slotMentioned].IsArray() {
					v.slots[slotMentioned].ForEach(func(_, u gjson.Result) bool {
						if u.Type == gjson.String {
							v.mentions = append(v.mentions, u.Str)
						}
						return true
					})
				}
			case "m.relates_to":
				v.slots[slotRelType] = child(x, "rel_type")
				if v.slots[slotRelType].Str == "m.thread" {
					v.thread = child(x, "event_id").Str
				}
			}
			return true
		})
	})
}

// child is a member of an object; names are compared as they are, dots and all.
func child(x gjson.Result, name string) (out gjson.Result) {
	if !x.IsObject() {
		return gjson.Result{}
	}
	x.ForEach(func(k, v gjson.Result) bool {
		if k.Str == name {
			out = v
			return false
		}
		return true
	})
	return out
}

// value is what stands at a path; a Result that does not exist when nothing does.
func (v *View) value(p path) gjson.Result {
	v.open()
	if p.slot >= 0 {
		return v.slots[p.slot]
	}
	x := v.root
	for _, n := range p.names {
		x = child(x, n)
	}
	return x
}

// text is the string at a path.
func (v *View) text(p path) (string, bool) {
	if len(p.names) == 1 {
		switch p.names[0] {
		case "type":
			return v.typ, true
		case "sender":
			return v.sender, true
		case "room_id":
			return v.room, true
		case "state_key":
			if v.stateKey == nil {
				return "", false
			}
			return *v.stateKey, true
		}
	}
	x := v.value(p)
	return x.Str, x.Type == gjson.String
}
