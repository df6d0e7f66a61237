// SPDX-License-Identifier: Apache-2.0

package livekit

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/trunkboard/trunkboard/sfu"
	"github.com/trunkboard/trunkboard/sfu/livekit/wire"
	"github.com/trunkboard/trunkboard/sfu/transport"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// maxServiceBody bounds a request to RoomService.
const maxServiceBody = 256 << 10

// servicePath is where RoomService lives: Twirp's form of LiveKit's server API, protobuf or JSON.
const servicePath = "/twirp/livekit.RoomService/"

// failure is a Twirp error (https://twitchtv.github.io/twirp/docs/spec_v7.html).
type failure struct {
	Code string `json:"code"`
	Msg  string `json:"msg"`
}

func (f *failure) Error() string { return f.Code + ": " + f.Msg }

// Statuses of the codes that are used.
var failureStatus = map[string]int{
	"bad_route": 404, "malformed": 400, "invalid_argument": 400, "not_found": 404, "permission_denied": 403, "unauthenticated": 401,
	"failed_precondition": 412, "resource_exhausted": 429, "unavailable": 503, "internal": 500,
}

// call is one request to the service: the message that is read, and what is done with it.
type call struct {
	request func() proto.Message
	// room names the room that the token must allow to administer; nil where may is asked instead.
	room func(proto.Message) string
	may  func(*Grant) bool
	do   func(*Server, proto.Message) (proto.Message, error)
}

// typed makes a call of a function on its own message.
func typed[T any, M interface {
	*T
	proto.Message
}](room func(M) string, may func(*Grant) bool, do func(*Server, M) (proto.Message, error)) call {
	c := call{
		request: func() proto.Message { return M(new(T)) }, may: may,
		do: func(s *Server, m proto.Message) (proto.Message, error) { return do(s, m.(M)) },
	}
	if room != nil {
		c.room = func(m proto.Message) string { return room(m.(M)) }
	}
	return c
}

func mayCreate(g *Grant) bool { return g.RoomCreate }

// calls are RoomService's methods.
func calls() map[string]call {
	return map[string]call{
		"CreateRoom": typed(nil, mayCreate, (*Server).createRoom),
		"ListRooms":  typed(nil, func(g *Grant) bool { return g.RoomList }, (*Server).listRooms),
		"DeleteRoom": typed(nil, mayCreate, (*Server).deleteRoom),
		"ListParticipants": typed((*wire.ListParticipantsRequest).GetRoom, nil,
			func(s *Server, m *wire.ListParticipantsRequest) (proto.Message, error) {
				r, err := s.find(m.GetRoom())
				if err != nil {
					return nil, err
				}
				return &wire.ListParticipantsResponse{Participants: participants(r.Participants())}, nil
			}),
		"GetParticipant": typed((*wire.RoomParticipantIdentity).GetRoom, nil,
			func(s *Server, m *wire.RoomParticipantIdentity) (proto.Message, error) {
				p, err := s.findOne(m.GetRoom(), m.GetIdentity())
				if err != nil {
					return nil, err
				}
				return participant(p.Info()), nil
			}),
		"RemoveParticipant": typed((*wire.RoomParticipantIdentity).GetRoom, nil,
			func(s *Server, m *wire.RoomParticipantIdentity) (proto.Message, error) {
				p, err := s.findOne(m.GetRoom(), m.GetIdentity())
				if err != nil {
					return nil, err
				}
				p.Leave(sfu.Removed)
				return &wire.RemoveParticipantResponse{}, nil
			}),
		"MutePublishedTrack": typed((*wire.MuteRoomTrackRequest).GetRoom, nil,
			func(s *Server, m *wire.MuteRoomTrackRequest) (proto.Message, error) {
				p, err := s.findOne(m.GetRoom(), m.GetIdentity())
				if err != nil {
					return nil, err
				}
				if !m.GetMuted() {
					return nil, &failure{"failed_precondition", "remote unmute is not permitted"}
				}
				t, err := p.Silence(m.GetTrackSid())
				if err != nil {
					return nil, &failure{"not_found", "no such track"}
				}
				return &wire.MuteRoomTrackResponse{Track: track(t)}, nil
			}),
		"UpdateParticipant": typed((*wire.UpdateParticipantRequest).GetRoom, nil, (*Server).updateParticipant),
		"UpdateSubscriptions": typed((*wire.UpdateSubscriptionsRequest).GetRoom, nil,
			func(s *Server, m *wire.UpdateSubscriptionsRequest) (proto.Message, error) {
				p, err := s.findOne(m.GetRoom(), m.GetIdentity())
				if err != nil {
					return nil, err
				}
				sids := slices.Clone(m.GetTrackSids())
				for _, t := range m.GetParticipantTracks() {
					sids = append(sids, t.GetTrackSids()...)
				}
				for _, sid := range sids[:min(len(sids), maxListed)] {
					_ = p.Subscribe(sid, m.GetSubscribe()) // tracks that are gone meanwhile are no failure
				}
				return &wire.UpdateSubscriptionsResponse{}, nil
			}),
		"SendData": typed((*wire.SendDataRequest).GetRoom, nil, (*Server).sendData),
		"UpdateRoomMetadata": typed((*wire.UpdateRoomMetadataRequest).GetRoom, nil,
			func(s *Server, m *wire.UpdateRoomMetadataRequest) (proto.Message, error) {
				if len(m.GetMetadata()) > maxMetadata {
					return nil, &failure{"invalid_argument", "metadata is too long"}
				}
				r, err := s.find(m.GetRoom())
				if err != nil {
					return nil, err
				}
				return room(r.SetMetadata(m.GetMetadata())), nil
			}),
	}
}

// service answers a request to RoomService.
func (s *Server) service(w http.ResponseWriter, r *http.Request) {
	out, asJSON, err := s.answer(w, r)
	if err != nil {
		var f *failure
		if !errors.As(err, &f) {
			s.log.Error("room service", "path", r.URL.Path, "error", err)
			f = &failure{"internal", "internal error"}
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(failureStatus[f.Code])
		_ = json.NewEncoder(w).Encode(f)
		return
	}
	var b []byte
	if asJSON {
		w.Header().Set("Content-Type", "application/json")
		b, err = protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(out)
	} else {
		w.Header().Set("Content-Type", "application/protobuf")
		b, err = proto.Marshal(out)
	}
	if err != nil {
		s.log.Error("encoding an answer", "error", err)
		return
	}
	_, _ = w.Write(b)
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request) (out proto.Message, asJSON bool, err error) {
	c, ok := s.calls[strings.TrimPrefix(r.URL.Path, servicePath)]
	if !ok {
		return nil, false, &failure{"bad_route", "no such method"}
	}
	claims, err := s.cfg.Keys.bearer(r)
	if err != nil {
		return nil, false, &failure{"unauthenticated", err.Error()}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxServiceBody))
	if err != nil {
		return nil, false, &failure{"malformed", "the body is too long, or broken off"}
	}
	m := c.request()
	kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	switch strings.TrimSpace(kind) {
	case "application/json":
		asJSON = true
		err = protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(body, m)
	case "application/protobuf":
		err = proto.Unmarshal(body, m)
	default:
		return nil, false, &failure{"bad_route", "the content type must be application/json or application/protobuf"}
	}
	if err != nil {
		return nil, asJSON, &failure{"malformed", "the body is not the request of this method"}
	}
	g := claims.Video
	if g == nil || c.may != nil && !c.may(g) || c.room != nil && (!g.RoomAdmin || g.Room == "" || g.Room != c.room(m)) {
		return nil, asJSON, &failure{"permission_denied", "the token does not allow this"}
	}
	out, err = c.do(s, m)
	return out, asJSON, err
}

func (s *Server) find(name string) (*sfu.Room, error) {
	r, err := s.cfg.Engine.Room(name, false)
	if err != nil {
		return nil, &failure{"not_found", "requested room does not exist"}
	}
	return r, nil
}

func (s *Server) findOne(room, identity string) (*sfu.Participant, error) {
	r, err := s.find(room)
	if err != nil {
		return nil, err
	}
	p := r.Find(identity)
	if p == nil {
		return nil, &failure{"not_found", "participant does not exist"}
	}
	return p, nil
}

func (s *Server) createRoom(m *wire.CreateRoomRequest) (proto.Message, error) {
	const longest = 7 * 24 * 3600 // seconds
	if m.GetName() == "" || len(m.GetName()) > maxIdentity || len(m.GetMetadata()) > maxMetadata || m.GetEmptyTimeout() > longest || m.GetDepartureTimeout() > longest {
		return nil, &failure{"invalid_argument", "a name of up to 512 bytes, metadata of up to 64 KiB and timeouts of up to a week, please"}
	}
	r, err := s.cfg.Engine.Room(m.GetName(), true)
	switch {
	case errors.Is(err, sfu.ErrFull):
		return nil, &failure{"resource_exhausted", "no room for another room"}
	case err != nil:
		return nil, &failure{"unavailable", "the server is closing"}
	}
	return room(r.Configure(sfu.Setup{
		Metadata: m.GetMetadata(), MaxParticipants: int(min(m.GetMaxParticipants(), 1<<20)),
		EmptyFor: time.Duration(m.GetEmptyTimeout()) * time.Second, DepartedFor: time.Duration(m.GetDepartureTimeout()) * time.Second,
	})), nil
}

func (s *Server) listRooms(m *wire.ListRoomsRequest) (proto.Message, error) {
	out := &wire.ListRoomsResponse{}
	for _, r := range s.cfg.Engine.Rooms() {
		if i := r.Info(); len(m.GetNames()) == 0 || slices.Contains(m.GetNames(), i.Name) {
			out.Rooms = append(out.Rooms, room(i))
		}
	}
	slices.SortFunc(out.Rooms, func(a, b *wire.Room) int { return strings.Compare(a.GetName(), b.GetName()) })
	return out, nil
}

func (s *Server) deleteRoom(m *wire.DeleteRoomRequest) (proto.Message, error) {
	r, err := s.find(m.GetRoom())
	if err != nil {
		return nil, err
	}
	r.Close(sfu.RoomClosed)
	return &wire.DeleteRoomResponse{}, nil
}

func (s *Server) updateParticipant(m *wire.UpdateParticipantRequest) (proto.Message, error) {
	size := 0
	for k, v := range m.GetAttributes() {
		size += len(k) + len(v)
	}
	if len(m.GetName()) > maxName || len(m.GetMetadata()) > maxMetadata || size > maxAttributes {
		return nil, &failure{"invalid_argument", "name, metadata or attributes are too long"}
	}
	p, err := s.findOne(m.GetRoom(), m.GetIdentity())
	if err != nil {
		return nil, err
	}
	var name, metadata *string
	if m.GetName() != "" {
		name = &m.Name
	}
	if m.GetMetadata() != "" {
		metadata = &m.Metadata
	}
	var permissions *sfu.Permissions
	if w := m.GetPermission(); w != nil {
		permissions = &sfu.Permissions{
			Publish: w.GetCanPublish(), Subscribe: w.GetCanSubscribe(), Data: w.GetCanPublishData(), UpdateMetadata: w.GetCanUpdateMetadata(),
			Hidden: w.GetHidden(),
		}
		for _, source := range w.GetCanPublishSources() {
			permissions.Sources = append(permissions.Sources, sources[source])
		}
	}
	i, err := p.Change(name, metadata, m.GetAttributes(), permissions)
	if err != nil {
		return nil, &failure{"not_found", "participant does not exist"}
	}
	return participant(i), nil
}

// sendData sends a user packet of nobody's.
func (s *Server) sendData(m *wire.SendDataRequest) (proto.Message, error) {
	r, err := s.find(m.GetRoom())
	if err != nil {
		return nil, err
	}
	b, err := dataPacket(m.Topic, m.GetData(), m.GetDestinationIdentities())
	if err != nil {
		return nil, err
	}
	label := transport.Reliable
	if m.GetKind() == wire.SendDataRequest_LOSSY {
		label = transport.Lossy
	}
	if err := r.Say(label, b, m.GetDestinationIdentities(), m.GetDestinationSids()); err != nil {
		return nil, &failure{"invalid_argument", "the data is too long"}
	}
	return &wire.SendDataResponse{}, nil
}

// dataPacket is a user packet of nobody's, as clients take it.
func dataPacket(topic *string, payload []byte, to []string) ([]byte, error) {
	user, err := proto.Marshal(&wire.UserPacket{Payload: payload, Topic: topic})
	if err != nil {
		return nil, err
	}
	// DataPacket's value is an open set that we do not look into: "user" is its field 2.
	packet := &wire.DataPacket{DestinationIdentities: to}
	packet.ProtoReflect().SetUnknown(protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), user))
	return proto.Marshal(packet)
}

// Say sends a reliable data message of the server's own, which no participant can forge, to those who are named, or to all of the room.
// Errors: sfu.ErrForbidden for a message that is too long.
func Say(r *sfu.Room, topic string, payload []byte, identities ...string) error {
	b, err := dataPacket(&topic, payload, identities)
	if err != nil {
		return err
	}
	return r.Say(transport.Reliable, b, identities, nil)
}
