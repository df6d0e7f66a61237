// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"strconv"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/signalling"
)

// routesPeople: "User directory", "Mutual rooms".
func (a *API) routesPeople() {
	if a.Rooms == nil || a.Accounts == nil {
		return
	}
	a.route("POST /_matrix/client/v3/user_directory/search", Token, "requests", a.searchUsers)
	a.route("GET /_matrix/client/v1/mutual_rooms", Token, "requests", a.mutualRooms)
	a.route("GET /_matrix/client/unstable/uk.half-shot.msc2666/user/mutual_rooms", Token, "requests", a.mutualRooms)
	a.advertise("uk.half-shot.msc2666.query_mutual_rooms")
	a.advertise("uk.half-shot.msc2666.query_mutual_rooms.stable")
}

// searchUsers finds the people whom the caller may know of: those he shares a room with, and those in public rooms. It looks at
// profiles only: a name that somebody uses in one room is nobody else's business.
func (a *API) searchUsers(r *Request) (any, error) {
	var in struct {
		Term  *string `json:"search_term"`
		Limit *int64  `json:"limit"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	if in.Term == nil {
		return nil, signalling.MissingParam("search_term is missing")
	}
	limit := int64(10)
	if in.Limit != nil {
		if *in.Limit < 0 {
			return nil, signalling.InvalidParam("limit must be 0 or more")
		}
		limit = min(*in.Limit, 50)
	}
	shared, err := a.Rooms.SharedUsers(r.Context(), r.UserID)
	if err != nil {
		return nil, err
	}
	found, limited, err := a.Accounts.Search(r.Context(), *in.Term, int(limit), func(user string) (bool, error) {
		if user == r.UserID {
			return false, nil
		}
		if _, ok := shared[user]; ok {
			return true, nil
		}
		return a.Rooms.InPublic(r.Context(), user)
	})
	if err != nil {
		return nil, err
	}
	type person struct {
		ID     string `json:"user_id"`
		Name   string `json:"display_name,omitempty"`
		Avatar string `json:"avatar_url,omitempty"`
	}
	out := make([]person, len(found))
	for i, u := range found {
		out[i] = person{u.ID, u.DisplayName, u.AvatarURL}
	}
	return map[string]any{"results": out, "limited": limited}, nil
}

// maxMutual is how many rooms one answer of mutual_rooms holds.
const maxMutual = 100

func (a *API) mutualRooms(r *Request) (any, error) {
	users := r.Params("user_id")
	if len(users) != 1 {
		return nil, signalling.MissingParam("user_id is needed, once")
	}
	if _, _, err := event.UserID(users[0]); err != nil {
		return nil, err
	}
	if users[0] == r.UserID {
		return nil, signalling.InvalidParam("you share all your rooms with yourself")
	}
	ids, err := a.Rooms.Mutual(r.Context(), r.UserID, users[0])
	if err != nil {
		return nil, err
	}
	count, from := len(ids), 0
	if s := r.Param("from"); s != "" {
		if from, err = strconv.Atoi(s); err != nil || from < 0 || from > count {
			return nil, signalling.InvalidParam("from is not a token that this server gave out")
		}
	}
	end := min(count, from+maxMutual)
	out := map[string]any{"joined": ids[from:end], "count": count}
	if end < count {
		out["next_batch"] = strconv.Itoa(end)
	}
	return out, nil
}
