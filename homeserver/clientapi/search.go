// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/homeserver/search"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/syncapi"
	"github.com/trunkboard/trunkboard/homeserver/syncapi/filter"
	"github.com/trunkboard/trunkboard/signalling"
)

// routesSearch: "Server Side Search".
func (a *API) routesSearch() {
	if a.Search == nil || a.Rooms == nil {
		return
	}
	a.route("POST /_matrix/client/v3/search", Token, "requests", a.search)
}

// Bounds of one search.
const (
	maxSearchRooms   = 1000
	maxSearchContext = 20
	maxSearchPage    = 100
)

type searchRequest struct {
	Categories struct {
		Events *struct {
			Term    *string         `json:"search_term"`
			Keys    []string        `json:"keys"`
			Filter  json.RawMessage `json:"filter"`
			Order   string          `json:"order_by"`
			State   bool            `json:"include_state"`
			Context *struct {
				Before  *int64 `json:"before_limit"`
				After   *int64 `json:"after_limit"`
				Profile bool   `json:"include_profile"`
			} `json:"event_context"`
			Groupings struct {
				By []struct {
					Key string `json:"key"`
				} `json:"group_by"`
			} `json:"groupings"`
		} `json:"room_events"`
	} `json:"search_categories"`
}

// found is an event that a search found.
type found struct {
	room *rooms.Room
	e    *rooms.Stored
	rank float64
}

func (a *API) search(r *Request) (any, error) {
	var in searchRequest
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	q := in.Categories.Events
	if q == nil {
		return map[string]any{"search_categories": map[string]any{}}, nil
	}
	if q.Term == nil {
		return nil, signalling.MissingParam("search_term is missing")
	}
	keys := storage.SearchKeys{Body: q.Keys == nil, Name: q.Keys == nil, Topic: q.Keys == nil}
	for _, k := range q.Keys {
		switch k {
		case "content.body":
			keys.Body = true
		case "content.name":
			keys.Name = true
		case "content.topic":
			keys.Topic = true
		default:
			return nil, signalling.InvalidParam("keys may be content.body, content.name and content.topic")
		}
	}
	if q.Order != "" && q.Order != "rank" && q.Order != "recent" {
		return nil, signalling.InvalidParam("order_by must be rank or recent")
	}
	raw := null(q.Filter)
	if raw == nil {
		raw = json.RawMessage("{}")
	}
	f, err := filter.ParseEvents(raw)
	if err != nil {
		return nil, err
	}
	start := 0
	if s := r.Param("next_batch"); s != "" {
		if start, err = strconv.Atoi(s); err != nil || start < 0 {
			return nil, signalling.InvalidParam("next_batch is not a token that this server gave out")
		}
	}
	hits, err := a.find(r, f, search.Query{Term: *q.Term, Keys: keys, Recent: q.Order == "recent"})
	if err != nil {
		return nil, err
	}
	limit := max(1, min(f.Limit, maxSearchPage))
	page := hits[min(start, len(hits)):min(start+limit, len(hits))]
	results := make([]json.RawMessage, 0, len(page))
	groups := map[string]map[string]*searchGroup{}
	for _, g := range q.Groupings.By {
		if g.Key != "room_id" && g.Key != "sender" {
			return nil, signalling.InvalidParam("results are grouped by room_id or sender")
		}
		groups[g.Key] = map[string]*searchGroup{}
	}
	for i, x := range page {
		b := strconv.AppendFloat([]byte(`{"rank":`), x.rank, 'g', 6, 64)
		b = append(b, `,"result":`...)
		one, err := a.pageList(r, x.room, []*rooms.Stored{x.e})
		if err != nil {
			return nil, err
		}
		b = append(b, one[1:len(one)-1]...)
		if c := q.Context; c != nil {
			before, after := int64(5), int64(5)
			if c.Before != nil {
				before = *c.Before
			}
			if c.After != nil {
				after = *c.After
			}
			ctx, err := a.searchContext(r, x, int(max(0, min(before, maxSearchContext))), int(max(0, min(after, maxSearchContext))), c.Profile)
			if err != nil {
				return nil, err
			}
			b = append(append(b, `,"context":`...), ctx...)
		}
		results = append(results, append(b, '}'))
		for key, by := range groups {
			id := x.room.ID
			if key == "sender" {
				id = x.e.Sender()
			}
			if by[id] == nil {
				by[id] = &searchGroup{Order: i}
			}
			by[id].Results = append(by[id].Results, x.e.ID())
		}
	}
	out := map[string]any{"count": len(hits), "results": results, "highlights": search.Words(*q.Term)}
	if len(page) == limit {
		out["next_batch"] = strconv.Itoa(start + limit)
	}
	if len(groups) > 0 {
		out["groups"] = groups
	}
	if q.State {
		if out["state"], err = a.searchState(r, page); err != nil {
			return nil, err
		}
	}
	return map[string]any{"search_categories": map[string]any{"room_events": out}}, nil
}

type searchGroup struct {
	Order   int      `json:"order"`
	Results []string `json:"results"`
}

// find looks in the rooms that the caller is or was in, and keeps what he may see.
func (a *API) find(r *Request, f *filter.Events, q search.Query) ([]found, error) {
	all, err := a.Rooms.UserRooms(r.Context(), r.UserID)
	if err != nil {
		return nil, err
	}
	byNID := map[int64]*rooms.Room{}
	for id, m := range all {
		if m.Forgotten || (m.Membership != "join" && m.Membership != "leave" && m.Membership != "ban") || !f.AllowsRoom(id) || len(byNID) >= maxSearchRooms {
			continue
		}
		room, err := a.Rooms.Room(r.Context(), id)
		if err != nil {
			return nil, err
		}
		byNID[room.NID] = room
		q.Rooms = append(q.Rooms, room.NID)
	}
	slices.Sort(q.Rooms)
	hits, err := a.Search.Find(r.Context(), q)
	if err != nil {
		return nil, err
	}
	ignored, err := a.ignoredBy(r)
	if err != nil {
		return nil, err
	}
	var out []found
	for _, h := range hits {
		room := byNID[h.RoomNID]
		if room == nil {
			continue
		}
		e, err := room.ByRef(r.Context(), rooms.Ref{NID: h.NID})
		if err != nil {
			return nil, err
		}
		if e == nil || e.Redacted() || a.ignored(ignored, e) || !f.Allows(room.ID, e.Type(), e.Sender(), f.ContainsURL != nil && gjson.GetBytes(e.Content(), "url").Type == gjson.String) {
			continue
		}
		if f.Relational() {
			if ok, err := relates(r, room, f, e); err != nil {
				return nil, err
			} else if !ok {
				continue
			}
		}
		ok, err := room.Visible(r.Context(), e, r.UserID)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, found{room, e, h.Rank})
		}
	}
	return out, nil
}

func (a *API) searchContext(r *Request, x found, before, after int, profiles bool) ([]byte, error) {
	f, err := filter.ParseEvents([]byte("{}"))
	if err != nil {
		return nil, err
	}
	older, start, _, err := a.page(r, x.room, f, x.e.Pos-1, 0, before, true)
	if err != nil {
		return nil, err
	}
	newer, end, _, err := a.page(r, x.room, f, x.e.Pos, math.MaxInt64, after, false)
	if err != nil {
		return nil, err
	}
	b := []byte(`{"events_before":`)
	list, err := a.pageList(r, x.room, older)
	if err != nil {
		return nil, err
	}
	b = append(append(b, list...), `,"events_after":`...)
	if list, err = a.pageList(r, x.room, newer); err != nil {
		return nil, err
	}
	b = append(append(b, list...), `,"start":`...)
	b = event.AppendString(b, syncapi.Token{Pos: start}.String())
	b = event.AppendString(append(b, `,"end":`...), syncapi.Token{Pos: end}.String())
	if profiles {
		type profile struct {
			Name   *string `json:"displayname,omitempty"`
			Avatar *string `json:"avatar_url,omitempty"`
		}
		of := map[string]profile{}
		for _, e := range slices.Concat(older, []*rooms.Stored{x.e}, newer) {
			m, err := x.room.StateAt(r.Context(), e, false, "m.room.member", e.Sender())
			if err != nil {
				return nil, err
			}
			var p profile
			if m != nil {
				if v := gjson.GetBytes(m.Content(), "displayname"); v.Type == gjson.String {
					p.Name = &v.Str
				}
				if v := gjson.GetBytes(m.Content(), "avatar_url"); v.Type == gjson.String {
					p.Avatar = &v.Str
				}
			}
			of[e.Sender()] = p
		}
		j, err := json.Marshal(of)
		if err != nil {
			return nil, err
		}
		b = append(append(b, `,"profile_info":`...), j...)
	}
	return append(b, '}'), nil
}

// searchState gives the state of the rooms of a page, as far as the caller may see it now.
func (a *API) searchState(r *Request, page []found) (map[string]json.RawMessage, error) {
	out := map[string]json.RawMessage{}
	for _, x := range page {
		if out[x.room.ID] != nil || !x.room.Head().IsJoined(r.UserID) {
			continue
		}
		var refs []rooms.Ref
		x.room.Head().Each(func(_ event.Key, ref rooms.Ref) { refs = append(refs, ref) })
		events, err := x.room.ByRefs(r.Context(), refs)
		if err != nil {
			return nil, err
		}
		list, err := a.eventList(r, x.room, events, nil)
		if err != nil {
			return nil, err
		}
		out[x.room.ID] = json.RawMessage(list)
	}
	return out, nil
}
