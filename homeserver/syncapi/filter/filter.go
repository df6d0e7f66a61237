// SPDX-License-Identifier: Apache-2.0

// Package filter is what a client asked to see: the filter of /sync, and the one of /messages and /context (client-server API,
// "Filtering").
//
// A filter comes from a stranger and is used for every event of every sync, so Parse bounds it and prepares it: exact names become
// sets, and a pattern with stars is matched in time linear in the text. event_fields is checked and not applied: the spec lets a
// server send more fields than were asked for.
package filter

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/signalling"
)

// Bounds of a filter.
const (
	MaxSize         = 64 << 10 // bytes of JSON
	MaxEntries      = 1000     // entries of one list
	MaxEntryLength  = 255      // bytes of an entry; ids and event types are no longer than that
	MaxLimit        = 1000     // events; a larger limit counts as this one
	DefaultTimeline = 20       // timeline.limit of a filter that names none
	DefaultMessages = 10       // limit of /messages and /context, as the spec has it
)

// Filter is the filter of a /sync.
type Filter struct {
	Federation  bool     // event_format is "federation": events as other servers see them
	EventFields []string // nil: all
	Presence    Events
	AccountData Events
	Room        Rooms
}

// Rooms is the part about rooms. Its own list of rooms applies before those of its parts.
type Rooms struct {
	IncludeLeave bool
	Rooms        Names
	NotRooms     Names
	AccountData  Events
	Ephemeral    Events
	State        Events
	Timeline     Events
}

// Events says which events pass, and how many.
type Events struct {
	Limit                     int // never more than MaxLimit
	Types                     Patterns
	NotTypes                  Patterns
	Senders                   Names
	NotSenders                Names
	Rooms                     Names
	NotRooms                  Names
	ContainsURL               *bool
	LazyLoadMembers           bool
	IncludeRedundantMembers   bool
	UnreadThreadNotifications bool
	RelatedByRelTypes         []string
	RelatedBySenders          []string
	RelTypes                  Names // m.relates_to of the event itself (MSC3874)
	NotRelTypes               Names
	open                      bool // nothing is kept out
}

// Default is the filter of a client that sent none.
func Default() *Filter {
	f, err := Parse([]byte("{}"))
	if err != nil {
		panic(err) // the empty filter is a filter
	}
	return f
}

// Parse reads a filter. Errors: M_NOT_JSON, M_BAD_JSON, M_INVALID_PARAM, M_TOO_LARGE.
func Parse(raw []byte) (*Filter, error) {
	var w wireFilter
	if err := decode(raw, &w); err != nil {
		return nil, err
	}
	f := &Filter{EventFields: w.EventFields}
	switch w.EventFormat {
	case "", "client":
	case "federation":
		f.Federation = true
	default:
		return nil, signalling.InvalidParam("event_format must be client or federation")
	}
	c := &checker{}
	c.bounded("event_fields", w.EventFields)
	f.Presence = c.events("presence", w.Presence, MaxLimit)
	f.AccountData = c.events("account_data", w.AccountData, MaxLimit)
	f.Room.IncludeLeave = w.Room.IncludeLeave
	f.Room.Rooms = c.rooms("room.rooms", w.Room.Rooms)
	f.Room.NotRooms = c.rooms("room.not_rooms", w.Room.NotRooms)
	f.Room.AccountData = c.events("room.account_data", w.Room.AccountData, MaxLimit)
	f.Room.Ephemeral = c.events("room.ephemeral", w.Room.Ephemeral, MaxLimit)
	f.Room.State = c.events("room.state", w.Room.State, MaxLimit)
	f.Room.Timeline = c.events("room.timeline", w.Room.Timeline, DefaultTimeline)
	return f, c.err
}

// ParseEvents reads the filter of /messages and /context (RoomEventFilter). Errors: as Parse.
func ParseEvents(raw []byte) (*Events, error) {
	var w wireEvents
	if err := decode(raw, &w); err != nil {
		return nil, err
	}
	c := &checker{}
	e := c.events("filter", w, DefaultMessages)
	return &e, c.err
}

// Allows says whether events of a room are wanted at all.
func (r *Rooms) Allows(roomID string) bool {
	return r.Rooms.in(roomID) && !r.NotRooms.has(roomID)
}

// Allows says whether an event passes. room is "" for events outside of rooms; hasURL says that the content has a "url".
func (e *Events) Allows(room, typ, sender string, hasURL bool) bool {
	if e.open {
		return true
	}
	if e.ContainsURL != nil && *e.ContainsURL != hasURL {
		return false
	}
	return e.Types.in(typ) && !e.NotTypes.has(typ) &&
		e.Senders.in(sender) && !e.NotSenders.has(sender) &&
		(room == "" || e.AllowsRoom(room))
}

// Relational says that it matters how an event relates to others: AllowsRelation and the lists RelatedBy… have to be asked too.
func (e *Events) Relational() bool {
	return e.RelTypes.Set || len(e.NotRelTypes.names) > 0 || len(e.RelatedByRelTypes) > 0 || len(e.RelatedBySenders) > 0
}

// AllowsRelation says whether an event passes that relates to another in a way; "" is no relation.
func (e *Events) AllowsRelation(relType string) bool {
	return e.RelTypes.in(relType) && !e.NotRelTypes.has(relType)
}

// AllowsRoom says whether events of a room may pass at all.
func (e *Events) AllowsRoom(room string) bool {
	return e.open || e.Rooms.in(room) && !e.NotRooms.has(room)
}

// AllowsType says whether events of a type may pass.
func (e *Events) AllowsType(typ string) bool {
	return e.open || e.Types.in(typ) && !e.NotTypes.has(typ)
}

// Empty says that nothing can pass, so that nothing has to be looked for.
func (e *Events) Empty() bool {
	return e.Limit == 0 || e.Types.Set && e.Types.size() == 0 || e.Senders.Set && len(e.Senders.names) == 0 || e.Rooms.Set && len(e.Rooms.names) == 0
}

// Filtered says that anything at all is kept out.
func (e *Events) Filtered() bool { return !e.open }

type wireFilter struct {
	EventFields []string   `json:"event_fields"`
	EventFormat string     `json:"event_format"`
	Presence    wireEvents `json:"presence"`
	AccountData wireEvents `json:"account_data"`
	Room        struct {
		IncludeLeave bool       `json:"include_leave"`
		Rooms        []string   `json:"rooms"`
		NotRooms     []string   `json:"not_rooms"`
		AccountData  wireEvents `json:"account_data"`
		Ephemeral    wireEvents `json:"ephemeral"`
		State        wireEvents `json:"state"`
		Timeline     wireEvents `json:"timeline"`
	} `json:"room"`
}

type wireEvents struct {
	Limit                     *int64   `json:"limit"`
	Types                     []string `json:"types"`
	NotTypes                  []string `json:"not_types"`
	Senders                   []string `json:"senders"`
	NotSenders                []string `json:"not_senders"`
	Rooms                     []string `json:"rooms"`
	NotRooms                  []string `json:"not_rooms"`
	ContainsURL               *bool    `json:"contains_url"`
	LazyLoadMembers           bool     `json:"lazy_load_members"`
	IncludeRedundantMembers   bool     `json:"include_redundant_members"`
	UnreadThreadNotifications bool     `json:"unread_thread_notifications"`
	RelatedByRelTypes         []string `json:"related_by_rel_types"`
	RelatedBySenders          []string `json:"related_by_senders"`
	RelTypes                  []string `json:"org.matrix.msc3874.rel_types"`
	NotRelTypes               []string `json:"org.matrix.msc3874.not_rel_types"`
}

func decode(raw []byte, v any) error {
	if len(raw) > MaxSize {
		return signalling.TooLarge("a filter may have %d bytes", MaxSize)
	}
	if err := event.CheckJSON(raw); err != nil {
		return err
	}
	if strings.TrimLeft(string(raw), " \t\r\n")[0] != '{' {
		return signalling.BadJSON("a filter is a JSON object")
	}
	if err := json.Unmarshal(raw, v); err != nil {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) && wrong.Field != "" {
			return signalling.BadJSON("%s of the filter has the wrong type", wrong.Field)
		}
		return signalling.BadJSON("the filter has the wrong shape").Because(err)
	}
	return nil
}

// checker turns the wire form into the prepared one and keeps the first error.
type checker struct{ err error }

func (c *checker) fail(format string, args ...any) {
	if c.err == nil {
		c.err = signalling.InvalidParam("the filter's %s", fmt.Sprintf(format, args...))
	}
}

func (c *checker) bounded(name string, list []string) {
	if len(list) > MaxEntries {
		c.fail("%s may have %d entries", name, MaxEntries)
	}
	for _, s := range list {
		if len(s) > MaxEntryLength {
			c.fail("%s may have entries of %d bytes", name, MaxEntryLength)
			return
		}
	}
}

func (c *checker) rooms(name string, list []string) Names {
	c.bounded(name, list)
	for _, s := range list {
		if !strings.HasPrefix(s, "!") {
			c.fail("%s must be room ids", name)
			break
		}
	}
	return newNames(list)
}

func (c *checker) users(name string, list []string) Names {
	c.bounded(name, list)
	for _, s := range list {
		if !strings.HasPrefix(s, "@") || !strings.Contains(s, ":") {
			c.fail("%s must be user ids", name)
			break
		}
	}
	return newNames(list)
}

func (c *checker) events(name string, w wireEvents, limit int) Events {
	e := Events{
		Limit: limit, ContainsURL: w.ContainsURL, LazyLoadMembers: w.LazyLoadMembers, IncludeRedundantMembers: w.IncludeRedundantMembers,
		UnreadThreadNotifications: w.UnreadThreadNotifications, RelatedByRelTypes: w.RelatedByRelTypes, RelatedBySenders: w.RelatedBySenders,
	}
	if w.Limit != nil {
		if *w.Limit < 0 {
			c.fail("%s.limit must be 0 or more", name)
		}
		e.Limit = int(min(*w.Limit, MaxLimit))
	}
	c.bounded(name+".types", w.Types)
	c.bounded(name+".not_types", w.NotTypes)
	c.bounded(name+".related_by_rel_types", w.RelatedByRelTypes)
	c.bounded(name+".related_by_senders", w.RelatedBySenders)
	c.bounded(name+".rel_types", w.RelTypes)
	c.bounded(name+".not_rel_types", w.NotRelTypes)
	e.RelTypes, e.NotRelTypes = newNames(w.RelTypes), newNames(w.NotRelTypes)
	e.Senders = c.users(name+".senders", w.Senders)
	e.NotSenders = c.users(name+".not_senders", w.NotSenders)
	e.Rooms = c.rooms(name+".rooms", w.Rooms)
	e.NotRooms = c.rooms(name+".not_rooms", w.NotRooms)
	if c.err == nil {
		e.Types, e.NotTypes = newPatterns(w.Types), newPatterns(w.NotTypes)
	}
	e.open = !e.Types.Set && !e.Senders.Set && !e.Rooms.Set && w.ContainsURL == nil &&
		!e.Relational() && len(w.NotTypes) == 0 && len(w.NotSenders) == 0 && len(w.NotRooms) == 0
	return e
}
