// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/signalling"
)

const (
	joinTime   = 3 * time.Minute // for send_join: the other server collects the whole state
	joinAnswer = 512 << 20       // bytes of the answer, which is read as a stream
	maxVia     = 10              // servers that are tried
)

// Entrance is how a local user wants to get into a room of other servers, or out of one.
type Entrance struct {
	RoomID, User string
	Via          []string // servers to ask, the best first
	Reason       string
	Extra        json.RawMessage // more content of the member event
	Lean         bool            // have member events left out of the answer to a join, however small the room is
}

// Join takes a local user into a room with the help of another server (make_join, send_join). Errors: M_FORBIDDEN and other refusals of
// those servers, M_NOT_FOUND when there is nobody to ask, 502 M_UNKNOWN when nobody answers.
func (s *Service) Join(ctx context.Context, in Entrance) error {
	_, err, _ := s.entering.Do(in.RoomID+" "+in.User, func() (any, error) {
		// What was asked for is finished, whether the client waits or not: half a join helps nobody.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*joinTime)
		defer cancel()
		return nil, s.through(ctx, in, "join", func(ctx context.Context, server string, e *event.Event) error {
			return s.sendJoin(ctx, server, e, in.Lean || e.Depth() > largeRoom)
		})
	})
	return err
}

// Knock asks to be let into a room of other servers (make_knock, send_knock). Errors as for Join.
func (s *Service) Knock(ctx context.Context, in Entrance) error {
	return s.through(ctx, in, "knock", func(ctx context.Context, server string, e *event.Event) error {
		var answer struct {
			Stripped []json.RawMessage `json:"knock_room_state"`
		}
		if err := s.Client.ask(ctx, Ask{Server: server, Method: "PUT", Path: memberPath("v1", "send_knock", e), Body: e.JSON()}, &answer); err != nil {
			return err
		}
		return s.Rooms.TakeKnock(ctx, e, answer.Stripped)
	})
}

// Leave rejects an invite to, or takes back a knock at, a room that this server is not in (make_leave, send_leave). When no server
// answers, the invite is dropped here all the same. Errors: M_NOT_FOUND.
func (s *Service) Leave(ctx context.Context, in Entrance) error {
	err := s.through(ctx, in, "leave", func(ctx context.Context, server string, e *event.Event) error {
		_, err := s.Client.Do(ctx, Ask{Server: server, Method: "PUT", Path: memberPath("v2", "send_leave", e), Body: e.JSON()})
		if signalling.AsError(err).Code == "M_UNRECOGNIZED" && err != nil {
			_, err = s.Client.Do(ctx, Ask{Server: server, Method: "PUT", Path: memberPath("v1", "send_leave", e), Body: e.JSON()})
		}
		if err != nil {
			return err
		}
		return s.Rooms.TakeLeave(ctx, e)
	})
	if err == nil {
		return nil
	}
	s.Log.Info("no other server took the rejection of an invite; it is dropped here", "room", in.RoomID, "err", err)
	return s.Rooms.DropInvite(context.WithoutCancel(ctx), in.RoomID, in.User, in.Reason)
}

// through asks one server after another for a template and sends it what we make of it, until one has taken it.
func (s *Service) through(ctx context.Context, in Entrance, membership string, send func(ctx context.Context, server string, e *event.Event) error) error {
	var worst error = signalling.NotFound("no server is known that could be asked for that room")
	for _, server := range s.candidates(in) {
		e, err := s.template(ctx, server, in, membership)
		if err == nil {
			if err = send(ctx, server, e); err == nil {
				return nil
			}
		}
		s.Log.Debug("a server did not help", "what", membership, "room", in.RoomID, "server", server, "err", err)
		if ctx.Err() != nil {
			return err
		}
		worst = graver(worst, err)
	}
	return worst
}

// graver is the one of two refusals that says more: that of a server which knows the room counts for more than silence.
func graver(a, b error) error {
	rank := func(err error) int {
		e := signalling.AsError(err)
		var u *Unreachable
		switch {
		case e.Code == "M_INCOMPATIBLE_ROOM_VERSION" || e.Code == "M_UNSUPPORTED_ROOM_VERSION":
			return 5
		case errors.As(err, &u):
			return 1
		case e.Code == "M_FORBIDDEN":
			return 4
		case e.Code == "M_NOT_FOUND":
			return 0
		}
		return 2
	}
	if rank(b) >= rank(a) {
		return b
	}
	return a
}

// candidates are the servers to ask, each once, none of them we.
func (s *Service) candidates(in Entrance) (out []string) {
	list := slices.Clone(in.Via)
	if _, domain, ok := cutServer(in.RoomID); ok && len(list) == 0 { // a guess: who made the room may have left it long ago
		list = append(list, domain)
	}
	for _, x := range list {
		if x != s.server && len(out) < maxVia && !slices.Contains(out, x) && s.Permits(x) == nil {
			out = append(out, x)
		}
	}
	return out
}

// cutServer parts an id from the server in it; ids of version 12 rooms hold none.
func cutServer(id string) (local, server string, ok bool) {
	server = event.ServerOf(id)
	return id, server, server != ""
}

func (s *Service) template(ctx context.Context, server string, in Entrance, membership string) (*event.Event, error) {
	q := url.Values{}
	if membership != "leave" {
		for _, v := range slices.Concat(event.Versions(), event.Unstable()) {
			q.Add("ver", string(v))
		}
	}
	path := "/_matrix/federation/v1/make_" + membership + "/" + url.PathEscape(in.RoomID) + "/" + url.PathEscape(in.User)
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	var t rooms.Template
	if err := s.Client.ask(ctx, Ask{Server: server, Path: path}, &t); err != nil {
		return nil, err
	}
	return s.Rooms.FromTemplate(ctx, t, rooms.Wanted{RoomID: in.RoomID, User: in.User, Membership: membership, Reason: in.Reason, Extra: in.Extra})
}

func memberPath(version, what string, e *event.Event) string {
	return "/_matrix/federation/" + version + "/" + what + "/" + url.PathEscape(e.RoomID()) + "/" + url.PathEscape(e.ID())
}

// sendJoin sends our join and enters the room with what the other server answers; lean asks it to leave out member events.
func (s *Service) sendJoin(ctx context.Context, server string, e *event.Event, lean bool) error {
	var a joined
	path := memberPath("v2", "send_join", e)
	if lean {
		path += "?omit_members=true"
	}
	checks := s.verifying(ctx, server)
	err := s.Client.Stream(ctx, Ask{Server: server, Method: "PUT", Path: path, Body: e.JSON(), Timeout: joinTime}, func(r *http.Response) (err error) {
		a, err = readJoined(io.LimitReader(r.Body, joinAnswer), e.Version(), func(err error) {
			s.Log.Debug("an event was dropped", "from", server, "room", e.RoomID(), "err", err)
		}, checks)
		return err
	})
	a.state, a.auth = checks.keep(server, a.state), checks.keep(server, a.auth)
	if err != nil {
		return err
	}
	join := e
	if a.event != nil {
		if join, err = s.countersigned(ctx, e, a.event); err != nil {
			return err
		}
	}
	in := rooms.Entry{
		Event: join, State: a.state, Auth: a.auth, Partial: a.partial, Via: server, Servers: a.servers,
	}
	if err := s.Rooms.Enter(ctx, in); err != nil || !in.Partial {
		return err
	}
	select {
	case s.partial <- struct{}{}:
	default: // it will look at all of them anyway
	}
	return nil
}

// countersigned is the event that we sent, as another server gave it back with its own signature.
func (s *Service) countersigned(ctx context.Context, sent *event.Event, raw json.RawMessage) (*event.Event, error) {
	e, err := event.Parse(sent.Version(), raw)
	if err != nil {
		return nil, err
	}
	if e.ID() != sent.ID() || e.Redacted() || string(e.Content()) != string(sent.Content()) || e.RoomID() != sent.RoomID() || e.Sender() != sent.Sender() ||
		!slices.Equal(e.PrevIDs(), sent.PrevIDs()) || !slices.Equal(e.AuthIDs(), sent.AuthIDs()) || e.Depth() != sent.Depth() || e.OriginTS() != sent.OriginTS() {
		return nil, signalling.Refuse(http.StatusBadGateway, "M_UNKNOWN", "the other server answered with another event than the one it was sent")
	}
	return e, s.VerifyEvent(ctx, e)
}

// joined is the answer to send_join, and to others with lists of events.
type joined struct {
	state, auth []*event.Event
	pdus        []*event.Event // of GET /state
	event       json.RawMessage
	partial     bool
	servers     []string
}

// readJoined reads the answer to send_join as it comes in, so that no more than its events is in memory. They are parsed, and as far as
// that can be checked, while reading goes on, unless checks is nil.
func readJoined(r io.Reader, v event.Version, dropped func(error), checks *verifying) (a joined, err error) {
	var lists []func()
	read := func(d *json.Decoder, to *[]*event.Event) error {
		if checks == nil {
			return readEvents(d, func(raw []json.RawMessage) { *to = parsed(*to, v, raw, dropped) })
		}
		take, all := checks.list(v, dropped)
		lists = append(lists, func() { *to = all() })
		return readEvents(d, take)
	}
	defer func() {
		for _, f := range lists {
			f()
		}
	}()
	d := json.NewDecoder(r)
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return a, errors.Join(err, errors.New("no JSON object"))
	}
	for d.More() {
		k, err := d.Token()
		if err != nil {
			return a, err
		}
		switch k {
		case "state":
			err = read(d, &a.state)
		case "auth_chain":
			err = read(d, &a.auth)
		case "pdus":
			err = read(d, &a.pdus)
		case "event":
			err = d.Decode(&a.event)
		case "members_omitted":
			err = d.Decode(&a.partial)
		case "servers_in_room":
			err = d.Decode(&a.servers)
		default:
			var rest json.RawMessage
			err = d.Decode(&rest)
		}
		if err != nil {
			return a, err
		}
	}
	_, err = d.Token()
	return a, err
}

// readEvents reads an array of events and gives them away piece by piece.
func readEvents(d *json.Decoder, take func([]json.RawMessage)) error {
	const piece = 64
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		if t == nil && err == nil {
			return nil // null
		}
		return errors.Join(err, fmt.Errorf("%v where a list of events should be", t))
	}
	var raws []json.RawMessage
	for d.More() {
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return err
		}
		if raws = append(raws, raw); len(raws) == piece {
			take(raws)
			raws = nil
		}
	}
	if len(raws) > 0 {
		take(raws)
	}
	_, err := d.Token()
	return err
}

// parsed appends events to a list; those that are none are dropped.
func parsed(to []*event.Event, v event.Version, raws []json.RawMessage, dropped func(error)) []*event.Event {
	for _, raw := range raws {
		if e, err := event.Parse(v, raw); err != nil {
			dropped(err)
		} else {
			to = append(to, e)
		}
	}
	return to
}

// Invite invites a user of another server: that server signs the invite first, then it goes into the room. Errors: M_FORBIDDEN, and the
// refusals of the other server.
func (s *Service) Invite(ctx context.Context, roomID, sender, target, reason string, extra json.RawMessage) error {
	inv, err := s.Rooms.MakeInvite(ctx, roomID, sender, target, reason, extra)
	if err != nil {
		return err
	}
	server, e := event.ServerOf(target), inv.Event
	body, err := json.Marshal(map[string]any{"event": json.RawMessage(e.JSON()), "room_version": inv.Version, "invite_room_state": inv.Stripped})
	if err != nil {
		return err
	}
	var answer struct {
		Event json.RawMessage `json:"event"`
	}
	err = s.Client.ask(ctx, Ask{Server: server, Method: "PUT", Path: memberPath("v2", "invite", e), Body: body}, &answer)
	if err != nil && signalling.AsError(err).Code == "M_UNRECOGNIZED" && (inv.Version == "1" || inv.Version == "2") {
		var pair []json.RawMessage // [200, {"event": …}]
		if err = s.Client.ask(ctx, Ask{Server: server, Method: "PUT", Path: memberPath("v1", "invite", e), Body: e.JSON()}, &pair); err == nil {
			if len(pair) != 2 || json.Unmarshal(pair[1], &answer) != nil {
				err = unreachable(server, errors.New("no answer to an invite"))
			}
		}
	}
	if err != nil {
		return err
	}
	signed, err := s.countersigned(ctx, e, answer.Event)
	if err != nil {
		return err
	}
	if err := s.Keys.VerifyEvent(ctx, server, signed); err != nil {
		return signalling.Refuse(http.StatusBadGateway, "M_UNKNOWN", "%s did not sign the invite", server).Because(err)
	}
	return s.Rooms.SendSigned(ctx, signed)
}
