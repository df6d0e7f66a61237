// SPDX-License-Identifier: Apache-2.0

package livekit

import (
	"strings"

	"github.com/trunkboard/trunkboard/sfu"
	"github.com/trunkboard/trunkboard/sfu/congest"
	"github.com/trunkboard/trunkboard/sfu/livekit/wire"
)

// sources are the names of what a track shows, as tokens write them.
var sources = map[wire.TrackSource]string{
	wire.TrackSource_CAMERA: "camera", wire.TrackSource_MICROPHONE: "microphone",
	wire.TrackSource_SCREEN_SHARE: "screen_share", wire.TrackSource_SCREEN_SHARE_AUDIO: "screen_share_audio",
}

func kindOf(video bool) string {
	if video {
		return "video"
	}
	return "audio"
}

// publishCodecs are told to clients; because the list is not empty they announce a track and offer it at the same time.
func publishCodecs() []*wire.Codec {
	return []*wire.Codec{{Mime: "audio/opus"}, {Mime: "video/VP8"}, {Mime: "video/H264"}, {Mime: "video/VP9"}, {Mime: "video/AV1"}}
}

func (s *Server) info() *wire.ServerInfo {
	return &wire.ServerInfo{Version: s.cfg.Version, Protocol: protocol, Region: s.cfg.Region, NodeId: s.node}
}

func (s *session) iceServers() (out []*wire.ICEServer) {
	if f := s.server.cfg.ICEServers; f != nil {
		for _, i := range f(s.join.claims.Subject) {
			out = append(out, &wire.ICEServer{Urls: i.URLs, Username: i.Username, Credential: i.Credential})
		}
	}
	return out
}

func (s *session) room(r sfu.RoomInfo) *wire.Room { return room(r) }

func room(r sfu.RoomInfo) *wire.Room {
	return &wire.Room{
		MaxParticipants: uint32(r.MaxParticipants), Metadata: r.Metadata,
		Sid: r.SID, Name: r.Name, EmptyTimeout: uint32(r.EmptyFor.Seconds()), DepartureTimeout: uint32(r.DepartedFor.Seconds()),
		CreationTime: r.Created.Unix(), CreationTimeMs: r.Created.UnixMilli(), NumParticipants: uint32(r.Participants),
		NumPublishers: uint32(r.Publishers), EnabledCodecs: publishCodecs(),
	}
}

func (s *session) joinResponse(self sfu.Info, others []sfu.Info, room sfu.RoomInfo) *wire.SignalResponse {
	cfg := s.server.cfg
	return &wire.SignalResponse{Message: &wire.SignalResponse_Join{Join: &wire.JoinResponse{
		Room: s.room(room), Participant: participant(self), OtherParticipants: participants(others),
		ServerVersion: cfg.Version, ServerRegion: cfg.Region, ServerInfo: s.server.info(), IceServers: s.iceServers(),
		SubscriberPrimary: !s.join.single, PingInterval: int32(cfg.PingEvery.Seconds()), PingTimeout: int32(cfg.PingTimeout.Seconds()),
		SifTrailer: s.server.trailer, EnabledPublishCodecs: publishCodecs(), FastPublish: self.Permissions.Publish,
	}}}
}

func participants(infos []sfu.Info) []*wire.ParticipantInfo {
	out := make([]*wire.ParticipantInfo, 0, len(infos))
	for _, i := range infos {
		out = append(out, participant(i))
	}
	return out
}

var states = map[sfu.State]wire.ParticipantInfo_State{
	sfu.Joining: wire.ParticipantInfo_JOINING, sfu.Joined: wire.ParticipantInfo_JOINED,
	sfu.Active: wire.ParticipantInfo_ACTIVE, sfu.Disconnected: wire.ParticipantInfo_DISCONNECTED,
}

var reasons = map[sfu.Reason]wire.DisconnectReason{
	sfu.Left: wire.DisconnectReason_CLIENT_INITIATED, sfu.Duplicate: wire.DisconnectReason_DUPLICATE_IDENTITY,
	sfu.Shutdown: wire.DisconnectReason_SERVER_SHUTDOWN, sfu.Removed: wire.DisconnectReason_PARTICIPANT_REMOVED,
	sfu.RoomClosed: wire.DisconnectReason_ROOM_DELETED, sfu.Failed: wire.DisconnectReason_STATE_MISMATCH,
	sfu.TimedOut: wire.DisconnectReason_CONNECTION_TIMEOUT,
}

var qualities = map[congest.Quality]wire.ConnectionQuality{
	congest.Poor: wire.ConnectionQuality_POOR, congest.Good: wire.ConnectionQuality_GOOD,
	congest.Excellent: wire.ConnectionQuality_EXCELLENT, congest.Lost: wire.ConnectionQuality_LOST,
}

func participant(i sfu.Info) *wire.ParticipantInfo {
	p := &wire.ParticipantInfo{
		Sid: i.SID, Identity: i.Identity, State: states[i.State], Metadata: i.Metadata, Name: i.Name, Attributes: i.Attributes,
		JoinedAt: i.Joined.Unix(), JoinedAtMs: i.Joined.UnixMilli(), Version: i.Version, IsPublisher: i.Publisher,
		Permission: &wire.ParticipantPermission{
			CanSubscribe: i.Permissions.Subscribe, CanPublish: i.Permissions.Publish, CanPublishData: i.Permissions.Data,
			Hidden: i.Permissions.Hidden, CanUpdateMetadata: i.Permissions.UpdateMetadata,
		},
	}
	for _, source := range i.Permissions.Sources {
		for number, name := range sources {
			if name == source {
				p.Permission.CanPublishSources = append(p.Permission.CanPublishSources, number)
			}
		}
	}
	if i.State == sfu.Disconnected {
		p.DisconnectReason = reasons[i.Reason]
	}
	for _, t := range i.Tracks {
		p.Tracks = append(p.Tracks, track(t))
	}
	return p
}

// track describes a track: what the publisher said, carried along word for word where receivers rely on it (encryption above all).
func track(t sfu.TrackInfo) *wire.TrackInfo {
	i := &wire.TrackInfo{Sid: t.SID, Muted: t.Muted, MimeType: t.MIME, Mid: t.MID}
	if t.Video {
		i.Type = wire.TrackType_VIDEO
	}
	d, ok := t.Detail.(*wire.AddTrackRequest)
	if !ok {
		return i
	}
	i.Name, i.Source, i.Width, i.Height, i.Stream = d.GetName(), d.GetSource(), d.GetWidth(), d.GetHeight(), d.GetStream()
	i.Encryption, i.DisableRed, i.DisableDtx, i.Stereo = d.GetEncryption(), d.GetDisableRed(), d.GetDisableDtx(), d.GetStereo()
	i.AudioFeatures, i.BackupCodecPolicy, i.Layers = d.GetAudioFeatures(), d.GetBackupCodecPolicy(), d.GetLayers()
	i.Simulcast = t.Video && len(d.GetLayers()) > 1
	if t.Video {
		c := &wire.SimulcastCodecInfo{MimeType: t.MIME, Mid: t.MID, Cid: d.GetCid(), Layers: d.GetLayers()}
		if s := d.GetSimulcastCodecs(); len(s) > 0 && len(s[0].GetLayers()) > 0 {
			c.Layers, c.VideoLayerMode = s[0].GetLayers(), s[0].GetVideoLayerMode()
			i.Layers = c.Layers
		}
		if c.VideoLayerMode == wire.VideoLayer_MODE_UNUSED {
			c.VideoLayerMode = wire.VideoLayer_ONE_SPATIAL_LAYER_PER_STREAM
		}
		i.Codecs = []*wire.SimulcastCodecInfo{c}
		if t.Second != "" {
			i.Codecs = append(i.Codecs, second(t))
		}
	}
	return i
}

// second describes a track in its second codec.
func second(t sfu.TrackInfo) *wire.SimulcastCodecInfo {
	c := &wire.SimulcastCodecInfo{MimeType: t.Second, VideoLayerMode: wire.VideoLayer_ONE_SPATIAL_LAYER_PER_STREAM}
	if b := t.Backup; b != nil {
		c.Mid, c.Cid = b.MID, b.CID
		if d, ok := b.Detail.(*wire.AddTrackRequest); ok {
			c.Layers = layersOf(d)
		}
	}
	return c
}

func update(infos []sfu.Info) *wire.SignalResponse {
	return &wire.SignalResponse{Message: &wire.SignalResponse_Update{Update: &wire.ParticipantUpdate{Participants: participants(infos)}}}
}

func description(kind string, d sfu.Description) *wire.SessionDescription {
	return &wire.SessionDescription{Type: kind, Sdp: d.SDP, Id: d.ID, MidToTrackId: d.Tracks}
}

func leave(reason wire.DisconnectReason, action wire.LeaveRequest_Action) *wire.SignalResponse {
	return &wire.SignalResponse{Message: &wire.SignalResponse_Leave{Leave: &wire.LeaveRequest{
		Reason: reason, Action: action, CanReconnect: action != wire.LeaveRequest_DISCONNECT,
	}}}
}

// convert makes a message of an event; nil if there is nothing to say.
func (s *session) convert(e sfu.Event) *wire.SignalResponse {
	switch e := e.(type) {
	case sfu.Changed:
		return update(e.Participants)
	case sfu.Published:
		return &wire.SignalResponse{Message: &wire.SignalResponse_TrackPublished{TrackPublished: &wire.TrackPublishedResponse{
			Cid: e.Track.CID, Track: track(e.Track),
		}}}
	case sfu.Unpublished:
		return &wire.SignalResponse{Message: &wire.SignalResponse_TrackUnpublished{TrackUnpublished: &wire.TrackUnpublishedResponse{TrackSid: e.SID}}}
	case sfu.Offer:
		return &wire.SignalResponse{Message: &wire.SignalResponse_Offer{Offer: description("offer", e.Description)}}
	case sfu.Sections:
		return &wire.SignalResponse{Message: &wire.SignalResponse_MediaSectionsRequirement{MediaSectionsRequirement: &wire.MediaSectionsRequirement{
			NumAudios: uint32(e.Audio), NumVideos: uint32(e.Video),
		}}}
	case sfu.Speakers:
		m := &wire.SpeakersChanged{}
		for _, c := range e.Changed {
			m.Speakers = append(m.Speakers, &wire.SpeakerInfo{Sid: c.ID, Level: float32(c.Level), Active: c.Active})
		}
		return &wire.SignalResponse{Message: &wire.SignalResponse_SpeakersChanged{SpeakersChanged: m}}
	case sfu.Wanted:
		u := &wire.SubscribedQualityUpdate{TrackSid: e.SID}
		for _, c := range e.Codecs {
			var q []*wire.SubscribedQuality
			for i := wire.VideoQuality_LOW; i <= wire.VideoQuality_HIGH; i++ {
				q = append(q, &wire.SubscribedQuality{Quality: i, Enabled: int(i) <= c.Layer})
			}
			_, name, _ := strings.Cut(strings.ToLower(c.MIME), "/")
			u.SubscribedCodecs = append(u.SubscribedCodecs, &wire.SubscribedCodec{Codec: name, Qualities: q})
		}
		u.SubscribedQualities = u.SubscribedCodecs[0].Qualities // for clients of before
		return &wire.SignalResponse{Message: &wire.SignalResponse_SubscribedQualityUpdate{SubscribedQualityUpdate: u}}
	case sfu.StreamState:
		state := wire.StreamState_ACTIVE
		if e.Paused {
			state = wire.StreamState_PAUSED
		}
		return &wire.SignalResponse{Message: &wire.SignalResponse_StreamStateUpdate{StreamStateUpdate: &wire.StreamStateUpdate{
			StreamStates: []*wire.StreamStateInfo{{ParticipantSid: e.Publisher, TrackSid: e.SID, State: state}},
		}}}
	case sfu.Qualities:
		m := &wire.ConnectionQualityUpdate{}
		for _, q := range e.Changed {
			m.Updates = append(m.Updates, &wire.ConnectionQualityInfo{ParticipantSid: q.SID, Quality: qualities[q.Quality], Score: float32(q.Score)})
		}
		return &wire.SignalResponse{Message: &wire.SignalResponse_ConnectionQuality{ConnectionQuality: m}}
	case sfu.RoomChanged:
		return &wire.SignalResponse{Message: &wire.SignalResponse_RoomUpdate{RoomUpdate: &wire.RoomUpdate{Room: s.room(e.Room)}}}
	case sfu.Silenced:
		return &wire.SignalResponse{Message: &wire.SignalResponse_Mute{Mute: &wire.MuteTrackRequest{Sid: e.SID, Muted: true}}}
	case sfu.Permitted:
		return &wire.SignalResponse{Message: &wire.SignalResponse_SubscriptionPermissionUpdate{
			SubscriptionPermissionUpdate: &wire.SubscriptionPermissionUpdate{ParticipantSid: e.Publisher, TrackSid: e.SID, Allowed: e.Allowed},
		}}
	case sfu.Subscribed:
		return &wire.SignalResponse{Message: &wire.SignalResponse_TrackSubscribed{TrackSubscribed: &wire.TrackSubscribed{TrackSid: e.SID}}}
	case sfu.Refused:
		return &wire.SignalResponse{Message: &wire.SignalResponse_SubscriptionResponse{SubscriptionResponse: &wire.SubscriptionResponse{
			TrackSid: e.SID, Err: wire.SubscriptionError_SE_CODEC_UNSUPPORTED,
		}}}
	case sfu.Gone:
		action := wire.LeaveRequest_DISCONNECT
		if e.Reason == sfu.Failed || e.Reason == sfu.TimedOut || e.Reason == sfu.Shutdown {
			action = wire.LeaveRequest_RECONNECT
		}
		return leave(reasons[e.Reason], action)
	}
	return nil
}
