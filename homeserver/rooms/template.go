// SPDX-License-Identifier: Apache-2.0

package rooms

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/signalling"
)

// Template is the answer to make_join, make_leave and make_knock: a member event without hashes and signatures.
type Template struct {
	Version event.Version   `json:"room_version"`
	Event   json.RawMessage `json:"event"`
}

// errNotHere says that this server takes no part in a room that it knows.
var errNotHere = signalling.NotFound("this server is not in that room")

// errPartial says that this server does not know enough of a room to let somebody in.
var errPartial = signalling.NotFound("this server does not have the whole state of that room yet; ask another one")

// Here says that this server takes part in the room: one of its users is joined; or it has the room's state, nobody of any server is
// joined in it, and no other server has said since that it is alive, so that nobody else could be asked.
func (r *Room) Here() bool { return r.head.Load().here(r.s.signer.Server) }

func (h *Head) here(server string) bool {
	return h.resident(server) || len(h.members.joined) == 0 && len(h.ext) > 0 && !h.outside
}

// resident says that a user of a server is joined.
func (h *Head) resident(server string) bool { return h.members.counts[server] > 0 }

// MakeMember answers make_join ("join"), make_leave ("leave") and make_knock ("knock") for a user of another server. versions are the
// room versions which that server serves, nil where it does not say. Errors: M_NOT_FOUND (not in the room),
// M_INCOMPATIBLE_ROOM_VERSION, M_FORBIDDEN, M_UNABLE_TO_AUTHORISE_JOIN, M_UNABLE_TO_GRANT_JOIN.
func (s *Service) MakeMember(ctx context.Context, roomID, user, membership string, versions []string) (*Template, error) {
	r, err := s.Room(ctx, roomID)
	if err != nil {
		return nil, err
	}
	if !r.Here() {
		return nil, errNotHere
	}
	if r.Partial() && membership != "leave" {
		return nil, errPartial
	}
	if versions != nil && !slices.Contains(versions, string(r.Version)) {
		return nil, signalling.Refuse(400, "M_INCOMPATIBLE_ROOM_VERSION", "your server does not serve room version %s", string(r.Version)).With("room_version", string(r.Version))
	}
	head := r.Head()
	c := map[string]string{"membership": membership}
	if now := head.Membership(user); membership == "join" && now != "join" && now != "invite" {
		by, err := r.admits(ctx, head, user)
		if err != nil {
			return nil, err
		}
		if by != "" {
			c["join_authorised_via_users_server"] = by
		}
	}
	content, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	state := headState{ctx, r, head}
	prev, depth := tips(head)
	e, err := event.Build(r.Version, event.Proto{RoomID: r.ID, Sender: user, Type: "m.room.member", StateKey: &user, Content: content}, prev, depth+1, state, s.signer, s.clock.Now())
	if err != nil {
		return nil, err
	}
	if err := event.Authorise(e, state); err != nil {
		return nil, err
	}
	if membership == "leave" && head.Membership(user) == "leave" {
		return nil, signalling.Forbidden("%s is not in this room", user)
	}
	var bare map[string]json.RawMessage
	if err := json.Unmarshal(e.JSON(), &bare); err != nil {
		return nil, err
	}
	for _, k := range []string{"hashes", "signatures", "origin", "prev_state", "event_id"} {
		delete(bare, k)
	}
	t := &Template{Version: r.Version}
	t.Event, err = json.Marshal(bare)
	return t, err
}

// tips are the prev_events of an event on head, and the depth of the deepest.
func tips(head *Head) (prev []string, depth int64) {
	ext := head.ext
	if len(ext) > maxExtremities {
		ext = ext[len(ext)-maxExtremities:]
	}
	prev = make([]string, len(ext))
	for i, x := range ext {
		prev[i] = x.ID
		depth = max(depth, x.Depth)
	}
	return prev, depth
}

// admits says who lets a user, neither joined nor invited, into a restricted room because of another room that he is in ("Restricted
// rooms"): a user of this server. "" is for rooms that are not restricted. Errors: M_FORBIDDEN, or M_UNABLE_TO_AUTHORISE_JOIN (this
// server cannot see into the other rooms) or M_UNABLE_TO_GRANT_JOIN (none of its users may invite): then another server can tell.
func (r *Room) admits(ctx context.Context, head *Head, user string) (by string, err error) {
	jr, err := r.State(ctx, head, "m.room.join_rules", "")
	if err != nil || jr == nil || !r.Version.Restricted() {
		return "", err
	}
	rule := gjson.GetBytes(jr.Content(), "join_rule").Str
	if rule != "restricted" && rule != "knock_restricted" {
		return "", nil
	}
	member, blind := false, false
	for _, a := range gjson.GetBytes(jr.Content(), "allow").Array() {
		if a.Get("type").Str != "m.room_membership" {
			continue
		}
		other, err := r.s.Room(ctx, a.Get("room_id").Str)
		if err != nil && !errors.Is(err, ErrNoRoom) {
			return "", err
		}
		if err != nil || !other.Here() {
			blind = true
			continue
		}
		if other.Head().IsJoined(user) {
			member = true
			break
		}
	}
	if !member {
		if blind {
			return "", signalling.Refuse(400, "M_UNABLE_TO_AUTHORISE_JOIN", "this server cannot see who is in the rooms that let people into this one")
		}
		return "", signalling.Forbidden("you are in none of the rooms that let people into this one")
	}
	power, err := event.PowerOf(headState{ctx, r, head})
	if err != nil {
		return "", err
	}
	best, level := "", int64(-1)
	for _, u := range head.Joined() {
		if event.ServerOf(u) != r.s.signer.Server {
			continue
		}
		if p := power.User(u); p >= power.Invite() && p > level {
			best, level = u, p
		}
	}
	if best == "" {
		return "", signalling.Refuse(400, "M_UNABLE_TO_GRANT_JOIN", "nobody on this server may let you into this room")
	}
	return best, nil
}

// CanJoin says whether a local user can join without the help of another server. Errors: those that another server may see otherwise
// are M_NOT_FOUND (this server is not in the room), M_UNABLE_TO_AUTHORISE_JOIN and M_UNABLE_TO_GRANT_JOIN; M_FORBIDDEN is final.
func (s *Service) CanJoin(ctx context.Context, roomID, user string) error {
	r, err := s.Room(ctx, roomID)
	if err != nil {
		return err
	}
	if !r.Here() {
		return errNotHere
	}
	head := r.Head()
	if now := head.Membership(user); now == "join" || now == "invite" {
		return nil
	}
	_, err = r.admits(ctx, head, user)
	return err
}

// Wanted is what a member event that another server made a template for must be.
type Wanted struct {
	RoomID, User, Membership string
	Reason                   string
	Extra                    json.RawMessage // more content, as for SetMembership
}

// FromTemplate makes our member event of what another server proposes: it takes the event's place in the graph, and who authorised a
// join, from the template and nothing else, so that we never sign what a stranger composed. versions are room versions that we asked
// for. Errors: M_UNSUPPORTED_ROOM_VERSION, M_BAD_JSON.
func (s *Service) FromTemplate(ctx context.Context, t Template, w Wanted) (*event.Event, error) {
	if t.Version == "" {
		t.Version = "1"
	}
	if !t.Version.Known() {
		return nil, signalling.Refuse(400, "M_UNSUPPORTED_ROOM_VERSION", "room version %q is not served here", string(t.Version))
	}
	if len(t.Event) > event.MaxSize {
		return nil, signalling.TooLarge("an event may have %d bytes", event.MaxSize)
	}
	if err := event.CheckJSON(t.Event); err != nil {
		return nil, err
	}
	in := gjson.ParseBytes(t.Event)
	for _, x := range []struct{ path, want string }{{"type", "m.room.member"}, {"room_id", w.RoomID}, {"sender", w.User}, {"state_key", w.User}, {"content.membership", w.Membership}} {
		if in.Get(x.path).Str != x.want {
			return nil, signalling.BadJSON("the other server proposed an event with another %s", x.path)
		}
	}
	refs := func(name string) (ids []string) {
		for _, x := range in.Get(name).Array() {
			if x.IsArray() { // up to room version 2: an id and its hashes
				x = x.Get("0")
			}
			ids = append(ids, x.Str)
		}
		return ids
	}
	extra := map[string]json.RawMessage{}
	if len(w.Extra) > 0 {
		if err := json.Unmarshal(w.Extra, &extra); err != nil {
			return nil, signalling.BadJSON("the content must be an object").Because(err)
		}
	}
	if by := in.Get("content.join_authorised_via_users_server"); w.Membership == "join" && by.Type == gjson.String {
		extra["join_authorised_via_users_server"] = json.RawMessage(by.Raw)
	}
	more, err := json.Marshal(extra)
	if err != nil {
		return nil, err
	}
	content, err := s.MemberContent(ctx, w.User, w.Membership, w.Reason, more)
	if err != nil {
		return nil, err
	}
	depth := in.Get("depth").Int()
	if depth < 0 || depth > event.MaxDepthVal {
		return nil, signalling.BadJSON("the other server proposed an event with an impossible depth")
	}
	return event.BuildOn(t.Version, event.Proto{RoomID: w.RoomID, Sender: w.User, Type: "m.room.member", StateKey: &w.User, Content: content}, refs("prev_events"), refs("auth_events"), depth, s.signer, s.clock.Now())
}
