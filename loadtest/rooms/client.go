// SPDX-License-Identifier: Apache-2.0

package rooms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/gorilla/websocket"
	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v4"
	"github.com/trunkboard/trunkboard/sfu/livekit"
	"github.com/trunkboard/trunkboard/sfu/livekit/wire"
	"google.golang.org/protobuf/proto"
)

// patience bounds each step of a client.
const patience = 30 * time.Second

// client is one participant, on the path with two connections that every server of the protocol has.
type client struct {
	run      *run
	identity string
	ws       *websocket.Conn
	writing  sync.Mutex
	pub, sub *webrtc.PeerConnection

	began                    time.Time
	joined, connected, heard once
	published                chan *wire.TrackPublishedResponse

	mu      sync.Mutex
	held    map[wire.SignalTarget][]webrtc.ICECandidateInit // until the description is there
	arrived []*arrival
	keys    chan struct{} // somebody wants a key frame

	ctx  context.Context
	stop context.CancelFunc
	wait sync.WaitGroup
}

// once is a moment that is noted the first time.
type once struct {
	sync.Once
	at   time.Duration
	done chan struct{}
}

func (o *once) note(began time.Time) {
	o.Do(func() { o.at = time.Since(began); close(o.done) })
}

func (r *run) newClient(ctx context.Context, identity string, listens bool) (*client, error) {
	token, err := livekit.Keys{r.s.Key: r.s.Secret}.Sign(r.s.Key, livekit.Claims{
		RegisteredClaims: jwt.RegisteredClaims{Subject: identity}, Video: &livekit.Grant{RoomJoin: true, Room: r.room},
	}, time.Hour)
	if err != nil {
		return nil, err
	}
	c := &client{run: r, identity: identity, published: make(chan *wire.TrackPublishedResponse, 4), held: map[wire.SignalTarget][]webrtc.ICECandidateInit{}, keys: make(chan struct{}, 1)}
	c.joined.done, c.connected.done, c.heard.done = make(chan struct{}), make(chan struct{}), make(chan struct{})
	c.ctx, c.stop = context.WithCancel(ctx)
	listen := "0"
	if listens {
		listen = "1"
	}
	q := url.Values{"access_token": {token}, "auto_subscribe": {listen}, "sdk": {"go"}, "version": {"1.0.0"}, "protocol": {"15"}}
	c.began = time.Now()
	if c.ws, _, err = websocket.DefaultDialer.DialContext(ctx, r.s.URL+"/rtc?"+q.Encode(), nil); err != nil {
		c.stop()
		return nil, fmt.Errorf("%s: %w", identity, err)
	}
	for _, p := range []struct {
		to     **webrtc.PeerConnection
		target wire.SignalTarget
	}{{&c.pub, wire.SignalTarget_PUBLISHER}, {&c.sub, wire.SignalTarget_SUBSCRIBER}} {
		pc, err := r.api.NewPeerConnection(webrtc.Configuration{})
		if err != nil {
			c.close()
			return nil, err
		}
		*p.to = pc
		pc.OnICECandidate(func(i *webrtc.ICECandidate) {
			if i == nil {
				return
			}
			b, err := json.Marshal(i.ToJSON())
			if err != nil {
				return
			}
			c.say(&wire.SignalRequest{Message: &wire.SignalRequest_Trickle{Trickle: &wire.TrickleRequest{CandidateInit: string(b), Target: p.target}}})
		})
	}
	c.sub.OnConnectionStateChange(func(s webrtc.PeerConnectionState) {
		if s == webrtc.PeerConnectionStateConnected {
			c.connected.note(c.began)
		}
	})
	c.sub.OnTrack(c.listen)
	c.wait.Go(c.read)
	return c, wait(c.ctx, c.joined.done, identity+" to be let in")
}

// wait waits for done.
func wait[T any](ctx context.Context, done <-chan T, what string) error {
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return fmt.Errorf("waited too long for %s", what)
	}
}

func (c *client) say(m *wire.SignalRequest) {
	b, err := proto.Marshal(m)
	if err != nil {
		return
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	_ = c.ws.WriteMessage(websocket.BinaryMessage, b)
}

// read follows the server's messages until the connection ends.
func (c *client) read() {
	for {
		_, b, err := c.ws.ReadMessage()
		if err != nil {
			return
		}
		m := &wire.SignalResponse{}
		if proto.Unmarshal(b, m) != nil {
			continue
		}
		if err := c.follow(m); err != nil {
			c.run.fail(fmt.Errorf("%s: %w", c.identity, err))
		}
	}
}

func (c *client) follow(m *wire.SignalResponse) error {
	switch {
	case m.GetJoin() != nil:
		c.joined.note(c.began)
		if every := time.Duration(m.GetJoin().GetPingInterval()) * time.Second; every > 0 {
			c.wait.Go(func() { c.ping(every) })
		}
	case m.GetOffer() != nil:
		if err := c.sub.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: m.GetOffer().GetSdp()}); err != nil {
			return c.unlessStopped(err)
		}
		c.release(c.sub, wire.SignalTarget_SUBSCRIBER)
		a, err := c.sub.CreateAnswer(nil)
		if err != nil {
			return c.unlessStopped(err)
		}
		if err := c.sub.SetLocalDescription(a); err != nil {
			return c.unlessStopped(err)
		}
		c.say(&wire.SignalRequest{Message: &wire.SignalRequest_Answer{Answer: &wire.SessionDescription{Type: "answer", Sdp: a.SDP, Id: m.GetOffer().GetId()}}})
	case m.GetAnswer() != nil:
		if err := c.pub.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: m.GetAnswer().GetSdp()}); err != nil {
			return c.unlessStopped(err)
		}
		c.release(c.pub, wire.SignalTarget_PUBLISHER)
	case m.GetTrickle() != nil:
		var i webrtc.ICECandidateInit
		if err := json.Unmarshal([]byte(m.GetTrickle().GetCandidateInit()), &i); err != nil {
			return err
		}
		pc := c.sub
		if m.GetTrickle().GetTarget() == wire.SignalTarget_PUBLISHER {
			pc = c.pub
		}
		c.mu.Lock()
		c.held[m.GetTrickle().GetTarget()] = append(c.held[m.GetTrickle().GetTarget()], i)
		c.mu.Unlock()
		if pc.RemoteDescription() != nil {
			c.release(pc, m.GetTrickle().GetTarget())
		}
	case m.GetTrackPublished() != nil:
		select {
		case c.published <- m.GetTrackPublished():
		default:
		}
	case m.GetLeave() != nil && c.ctx.Err() == nil && m.GetLeave().GetReason() != wire.DisconnectReason_CLIENT_INITIATED:
		return fmt.Errorf("sent away: %v", m.GetLeave().GetReason())
	}
	return nil
}

// unlessStopped drops the errors of a client that goes.
func (c *client) unlessStopped(err error) error {
	if c.ctx.Err() != nil {
		return nil
	}
	return err
}

// release gives a connection the candidates that came before its description.
func (c *client) release(pc *webrtc.PeerConnection, t wire.SignalTarget) {
	c.mu.Lock()
	all := c.held[t]
	delete(c.held, t)
	c.mu.Unlock()
	for _, i := range all {
		_ = pc.AddICECandidate(i)
	}
}

func (c *client) ping(every time.Duration) {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-t.C:
			c.say(&wire.SignalRequest{Message: &wire.SignalRequest_Ping{Ping: time.Now().UnixMilli()}})
		}
	}
}

// listen counts what arrives of a track.
func (c *client) listen(tr *webrtc.TrackRemote, r *webrtc.RTPReceiver) {
	if tr.Kind() == webrtc.RTPCodecTypeVideo {
		_ = c.sub.WriteRTCP([]rtcp.Packet{&rtcp.PictureLossIndication{MediaSSRC: uint32(tr.SSRC())}})
	}
	c.wait.Go(func() { // what the interceptors have to see
		b := make([]byte, 1500)
		for {
			if _, _, err := r.Read(b); err != nil {
				return
			}
		}
	})
	a := &arrival{}
	c.mu.Lock()
	c.arrived = append(c.arrived, a)
	c.mu.Unlock()
	b := make([]byte, 1500)
	for {
		n, _, err := tr.Read(b)
		if err != nil {
			return
		}
		c.heard.note(c.began)
		if n >= 4 {
			a.note(uint16(b[2])<<8|uint16(b[3]), n)
		}
	}
}

// publish announces a track, negotiates it, and sends on it until the client goes.
func (c *client) publish(kind string, kbps int) error {
	cid := c.identity + "-" + kind
	request := &wire.AddTrackRequest{Cid: cid, Name: kind, Source: wire.TrackSource_MICROPHONE, DisableRed: true}
	mime := webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2}
	if kind == "video" {
		request.Type, request.Source, request.Width, request.Height = wire.TrackType_VIDEO, wire.TrackSource_CAMERA, 1280, 720
		request.Layers = []*wire.VideoLayer{{Quality: wire.VideoQuality_HIGH, Width: 1280, Height: 720, Bitrate: uint32(kbps * 1000)}}
		mime = webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8, ClockRate: 90000}
	}
	c.say(&wire.SignalRequest{Message: &wire.SignalRequest_AddTrack{AddTrack: request}})
	if err := wait(c.ctx, c.published, cid+" to be published"); err != nil {
		return err
	}
	tr, err := webrtc.NewTrackLocalStaticRTP(mime, cid, c.identity)
	if err != nil {
		return err
	}
	t, err := c.pub.AddTransceiverFromTrack(tr, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
	if err != nil {
		return err
	}
	c.wait.Go(func() {
		for {
			all, _, err := t.Sender().ReadRTCP()
			if err != nil {
				return
			}
			if slices.ContainsFunc(all, wantsKeyFrame) {
				select {
				case c.keys <- struct{}{}:
				default:
				}
			}
		}
	})
	up, stable := make(chan struct{}), make(chan struct{})
	var first, settled sync.Once
	look := func() {
		if c.pub.ConnectionState() == webrtc.PeerConnectionStateConnected {
			first.Do(func() { close(up) })
		}
	}
	c.pub.OnConnectionStateChange(func(webrtc.PeerConnectionState) { look() })
	c.pub.OnSignalingStateChange(func(s webrtc.SignalingState) {
		if s == webrtc.SignalingStateStable {
			settled.Do(func() { close(stable) })
		}
	})
	look()
	offer, err := c.pub.CreateOffer(nil)
	if err != nil {
		return err
	}
	if err := c.pub.SetLocalDescription(offer); err != nil {
		return err
	}
	c.say(&wire.SignalRequest{Message: &wire.SignalRequest_Offer{Offer: &wire.SessionDescription{Type: "offer", Sdp: offer.SDP}}})
	if err := errors.Join(wait(c.ctx, stable, "the answer to "+cid), wait(c.ctx, up, "the connection of "+cid)); err != nil {
		return err
	}
	c.wait.Go(func() {
		if kind == "video" {
			c.sendPictures(tr, kbps)
		} else {
			c.sendSound(tr)
		}
	})
	return nil
}

func wantsKeyFrame(p rtcp.Packet) bool {
	switch p.(type) {
	case *rtcp.PictureLossIndication, *rtcp.FullIntraRequest:
		return true
	}
	return false
}

// close leaves and waits for what runs.
func (c *client) close() {
	c.stop()
	c.say(&wire.SignalRequest{Message: &wire.SignalRequest_Leave{Leave: &wire.LeaveRequest{Reason: wire.DisconnectReason_CLIENT_INITIATED}}})
	for _, pc := range []*webrtc.PeerConnection{c.pub, c.sub} {
		if pc != nil {
			_ = pc.Close()
		}
	}
	_ = c.ws.Close()
	c.wait.Wait()
}
