// SPDX-License-Identifier: Apache-2.0

package livekit

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/trunkboard/trunkboard/sfu"
	"github.com/trunkboard/trunkboard/sfu/livekit/wire"
	"google.golang.org/protobuf/proto"
)

// Limits of what a participant says of itself and its tracks.
const (
	maxName       = 512
	maxMetadata   = 64 << 10
	maxAttributes = 64 << 10
	maxListed     = 1000 // tracks in one message
)

// handle does what the client asks; false ends the connection.
func (s *session) handle(m *wire.SignalRequest) bool {
	switch m := m.GetMessage().(type) {
	case *wire.SignalRequest_Offer:
		return s.offer(m.Offer)
	case *wire.SignalRequest_Answer:
		if err := s.p.Answered(m.Answer.GetSdp(), m.Answer.GetId()); err != nil {
			return s.refuse(err)
		}
	case *wire.SignalRequest_Trickle: // we are the lite end: the client's checks tell us where it is
	case *wire.SignalRequest_AddTrack:
		s.addTrack(m.AddTrack)
	case *wire.SignalRequest_Mute:
		_ = s.p.Mute(m.Mute.GetSid(), m.Mute.GetMuted())
	case *wire.SignalRequest_Subscription:
		s.subscribe(m.Subscription)
	case *wire.SignalRequest_TrackSetting:
		s.settings(m.TrackSetting)
	case *wire.SignalRequest_SubscriptionPermission:
		s.audience(m.SubscriptionPermission)
	case *wire.SignalRequest_UpdateAudioTrack:
		s.updateAudio(m.UpdateAudioTrack)
	case *wire.SignalRequest_UpdateVideoTrack:
		s.updateVideo(m.UpdateVideoTrack)
	case *wire.SignalRequest_Leave:
		s.p.Leave(sfu.Left)
		return false
	case *wire.SignalRequest_UpdateMetadata:
		s.updateMetadata(m.UpdateMetadata)
	case *wire.SignalRequest_SyncState:
		s.sync(m.SyncState)
	case *wire.SignalRequest_Ping:
		s.send(&wire.SignalResponse{Message: &wire.SignalResponse_Pong{Pong: time.Now().UnixMilli()}})
	case *wire.SignalRequest_PingReq:
		s.send(&wire.SignalResponse{Message: &wire.SignalResponse_PongResp{PongResp: &wire.Pong{
			LastPingTimestamp: m.PingReq.GetTimestamp(), Timestamp: time.Now().UnixMilli(),
		}}})
	}
	return true
}

// refuse ends a connection whose client sent what cannot be made sense of; it may join anew.
func (s *session) refuse(err error) bool {
	s.server.log.Debug("description refused", "participant", s.p.SID(), "error", err)
	if !errors.Is(err, sfu.ErrGone) {
		s.p.Leave(sfu.Failed)
	}
	return false
}

func (s *session) offer(d *wire.SessionDescription) bool {
	err := s.p.Offered(d.GetSdp(), d.GetId(), func(a sfu.Description) {
		s.send(&wire.SignalResponse{Message: &wire.SignalResponse_Answer{Answer: description("answer", a)}})
	})
	if err != nil {
		return s.refuse(err)
	}
	return true
}

func (s *session) addTrack(t *wire.AddTrackRequest) {
	if t.GetCid() == "" || len(t.GetCid()) > maxName || len(t.GetName()) > maxName || len(t.GetLayers()) > 8 || len(t.GetSimulcastCodecs()) > 8 || len(t.GetStream()) > maxName {
		s.requestFailed(0, wire.RequestResponse_INVALID_REQUEST, t)
		return
	}
	i := sfu.TrackInfo{
		CID: t.GetCid(), Video: t.GetType() == wire.TrackType_VIDEO, Muted: t.GetMuted(), Source: sources[t.GetSource()], Detail: t,
	}
	for _, l := range layersOf(t) {
		i.Layers = append(i.Layers, sfu.Layer{Index: int(l.GetQuality()), Width: l.GetWidth(), Height: l.GetHeight()})
	}
	if t.GetSid() != "" {
		s.addSecond(t, i)
		return
	}
	if c := t.GetSimulcastCodecs(); len(c) > 0 {
		i.MIME = codecMIME(i.Video, c[0].GetCodec())
		if len(c) > 1 && i.Video && t.GetEncryption() == wire.Encryption_NONE { // else nobody would know whether the second one is encrypted
			if second := secondMIME(c[1].GetCodec()); !strings.EqualFold(second, i.MIME) {
				i.Second, i.Policy = second, policies[t.GetBackupCodecPolicy()]
			}
		}
	}
	if !i.Video {
		i.Format = opusFormat(t)
		i.Redundant = redundant(t)
	}
	switch err := s.p.Publish(i); {
	case errors.Is(err, sfu.ErrForbidden):
		s.requestFailed(0, wire.RequestResponse_NOT_ALLOWED, t)
	case errors.Is(err, sfu.ErrFull):
		s.requestFailed(0, wire.RequestResponse_LIMIT_EXCEEDED, t)
	}
}

var policies = map[wire.BackupCodecPolicy]sfu.Policy{
	wire.BackupCodecPolicy_PREFER_REGRESSION: sfu.PreferRegression, wire.BackupCodecPolicy_SIMULCAST: sfu.Simulcast, wire.BackupCodecPolicy_REGRESSION: sfu.Regression,
}

// codecMIME is the MIME type of a codec that may be named without its kind; "" for none.
func codecMIME(video bool, name string) string {
	if name == "" {
		return ""
	}
	if _, after, found := strings.Cut(name, "/"); found {
		name = after
	}
	return kindOf(video) + "/" + name
}

// secondMIME is the MIME type of the second codec of a picture; "" if it is none that everybody could show instead of the first.
func secondMIME(name string) string {
	for _, mime := range []string{"video/VP8", "video/H264"} {
		if strings.EqualFold(codecMIME(true, name), mime) {
			return mime
		}
	}
	return ""
}

// layersOf are the layers of a track's codec.
func layersOf(t *wire.AddTrackRequest) []*wire.VideoLayer {
	if c := t.GetSimulcastCodecs(); len(c) > 0 && len(c[0].GetLayers()) > 0 {
		return c[0].GetLayers()
	}
	return t.GetLayers()
}

// addSecond takes the second codec of a track, of which the first one said that there may be one.
func (s *session) addSecond(t *wire.AddTrackRequest, i sfu.TrackInfo) {
	switch err := s.p.PublishSecond(t.GetSid(), i); {
	case errors.Is(err, sfu.ErrNoTrack):
		s.requestFailed(0, wire.RequestResponse_NOT_FOUND, t)
	case errors.Is(err, sfu.ErrForbidden):
		s.requestFailed(0, wire.RequestResponse_NOT_ALLOWED, t)
	}
}

// redundant reports whether a track of sound may be redundant (RFC 2198), which the protocol treats as a codec: "red". Encrypted sound
// may not, whatever its publisher says; livekit-client says so itself.
func redundant(t *wire.AddTrackRequest) bool {
	if t.GetEncryption() != wire.Encryption_NONE {
		return false
	}
	if c := t.GetSimulcastCodecs(); len(c) > 0 && c[0].GetCodec() != "" {
		name := strings.ToLower(c[0].GetCodec())
		return name == "red" || name == "audio/red"
	}
	return !t.GetDisableRed()
}

// opusFormat gives the parameters that a publisher of audio is asked to use.
func opusFormat(t *wire.AddTrackRequest) string {
	stereo, noDTX := t.GetStereo(), t.GetDisableDtx()
	for _, f := range t.GetAudioFeatures() {
		stereo = stereo || f == wire.AudioTrackFeature_TF_STEREO
		noDTX = noDTX || f == wire.AudioTrackFeature_TF_NO_DTX
	}
	var f []string
	if !noDTX {
		f = append(f, "usedtx=1")
	}
	if stereo {
		f = append(f, "stereo=1;maxaveragebitrate=510000")
	}
	return strings.Join(f, ";")
}

func (s *session) requestFailed(id uint32, reason wire.RequestResponse_Reason, t *wire.AddTrackRequest) {
	s.send(&wire.SignalResponse{Message: &wire.SignalResponse_RequestResponse{RequestResponse: &wire.RequestResponse{
		RequestId: id, Reason: reason, Request: &wire.RequestResponse_AddTrack{AddTrack: t},
	}}})
}

func (s *session) subscribe(u *wire.UpdateSubscription) {
	sids := u.GetTrackSids()
	for _, t := range u.GetParticipantTracks() {
		sids = append(sids, t.GetTrackSids()...)
	}
	for _, sid := range sids[:min(len(sids), maxListed)] {
		if err := s.p.Subscribe(sid, u.GetSubscribe()); errors.Is(err, sfu.ErrNoTrack) && u.GetSubscribe() {
			s.send(&wire.SignalResponse{Message: &wire.SignalResponse_SubscriptionResponse{SubscriptionResponse: &wire.SubscriptionResponse{
				TrackSid: sid, Err: wire.SubscriptionError_SE_TRACK_NOTFOUND,
			}}})
		}
	}
}

// sync takes what a client that has come back knows. Of tracks and subscriptions we know ourselves.
func (s *session) sync(u *wire.SyncState) {
	states := u.GetDatachannelReceiveStates()
	last := map[string]uint32{}
	for _, r := range states[:min(len(states), maxListed)] {
		if sid := r.GetPublisherSid(); len(sid) <= maxName {
			last[sid] = r.GetLastSeq()
		}
	}
	s.p.Heard(last)
}

// audience takes who may receive the participant's tracks.
func (s *session) audience(u *wire.SubscriptionPermission) {
	a := sfu.Audience{Everybody: u.GetAllParticipants()}
	for _, g := range u.GetTrackPermissions()[:min(len(u.GetTrackPermissions()), maxListed)] {
		sids := g.GetTrackSids()
		a.Grants = append(a.Grants, sfu.AudienceGrant{
			Identity: g.GetParticipantIdentity(), SID: g.GetParticipantSid(), All: g.GetAllTracks(), Tracks: sids[:min(len(sids), maxListed)],
		})
	}
	s.p.SetAudience(a)
}

func (s *session) settings(u *wire.UpdateTrackSettings) {
	for _, sid := range u.GetTrackSids()[:min(len(u.GetTrackSids()), maxListed)] {
		_ = s.p.Set(sid, sfu.Settings{
			Disabled: u.GetDisabled() || u.GetQuality() == wire.VideoQuality_OFF,
			Layer:    int(u.GetQuality()), Width: u.GetWidth(), Height: u.GetHeight(), FPS: u.GetFps(),
			// Larger is more important, as in LiveKit's server (the comment in the protocol says the opposite).
			Priority: u.GetPriority(),
		})
	}
}

// maxFeatures bounds what a sound is said to be.
const maxFeatures = 16

// updateAudio takes what its publisher says of a sound now.
func (s *session) updateAudio(u *wire.UpdateLocalAudioTrack) {
	err := s.p.Describe(u.GetTrackSid(), false, func(i *sfu.TrackInfo) {
		if d, ok := i.Detail.(*wire.AddTrackRequest); ok {
			d = proto.Clone(d).(*wire.AddTrackRequest) // others may be reading it
			d.AudioFeatures = u.GetFeatures()[:min(len(u.GetFeatures()), maxFeatures)]
			d.Stereo = slices.Contains(d.AudioFeatures, wire.AudioTrackFeature_TF_STEREO)
			d.DisableDtx = slices.Contains(d.AudioFeatures, wire.AudioTrackFeature_TF_NO_DTX)
			i.Detail = d
		}
	})
	if err != nil {
		s.answer(&wire.RequestResponse{Reason: wire.RequestResponse_NOT_FOUND, Request: &wire.RequestResponse_UpdateAudioTrack{UpdateAudioTrack: u}})
	}
}

// updateVideo takes how large a picture is now.
func (s *session) updateVideo(u *wire.UpdateLocalVideoTrack) {
	err := s.p.Describe(u.GetTrackSid(), true, func(i *sfu.TrackInfo) {
		if d, ok := i.Detail.(*wire.AddTrackRequest); ok {
			d = proto.Clone(d).(*wire.AddTrackRequest)
			d.Width, d.Height = u.GetWidth(), u.GetHeight()
			i.Detail = d
		}
	})
	if err != nil {
		s.answer(&wire.RequestResponse{Reason: wire.RequestResponse_NOT_FOUND, Request: &wire.RequestResponse_UpdateVideoTrack{UpdateVideoTrack: u}})
	}
}

func (s *session) answer(r *wire.RequestResponse) {
	s.send(&wire.SignalResponse{Message: &wire.SignalResponse_RequestResponse{RequestResponse: r}})
}

func (s *session) updateMetadata(u *wire.UpdateParticipantMetadata) {
	reason := wire.RequestResponse_OK
	size := 0
	for k, v := range u.GetAttributes() {
		size += len(k) + len(v)
	}
	if len(u.GetName()) > maxName || len(u.GetMetadata()) > maxMetadata || size > maxAttributes {
		reason = wire.RequestResponse_LIMIT_EXCEEDED
	} else {
		// The protocol cannot tell "leave it" from "make it empty"; clients send what they have.
		var name, metadata *string
		if u.GetName() != "" {
			name = &u.Name
		}
		if u.GetMetadata() != "" {
			metadata = &u.Metadata
		}
		if err := s.p.Update(name, metadata, u.GetAttributes()); err != nil {
			reason = wire.RequestResponse_NOT_ALLOWED
		}
	}
	s.send(&wire.SignalResponse{Message: &wire.SignalResponse_RequestResponse{RequestResponse: &wire.RequestResponse{
		RequestId: u.GetRequestId(), Reason: reason, Request: &wire.RequestResponse_UpdateMetadata{UpdateMetadata: u},
	}}})
}
