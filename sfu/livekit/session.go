// SPDX-License-Identifier: Apache-2.0

package livekit

import (
	"bytes"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
	"github.com/trunkboard/trunkboard/sfu"
	"github.com/trunkboard/trunkboard/sfu/livekit/wire"
	"golang.org/x/time/rate"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// Limits of a connection.
const (
	queueLength  = 1024             // messages that wait to be written; a client that lets more gather is cut off
	writeTime    = 10 * time.Second // for one message
	messageRate  = 200              // messages a second that a client may send, on average
	messageBurst = 1000
	refreshEvery = 5 * time.Minute
	refreshFor   = 10 * time.Minute
	maxKept      = 16 << 10 // bytes of a buffer for a message that is kept for the next one
)

// session is a participant's WebSocket. It implements sfu.Observer.
type session struct {
	server *Server
	ws     *websocket.Conn
	join   *join
	p      *sfu.Participant
	queue  chan any // sfu.Event or *wire.SignalResponse
	end    chan struct{}
	once   sync.Once
	text   atomic.Bool // the client writes JSON

	heard   atomic.Int64 // when the client was last heard, Unix time in ns
	waiting atomic.Int64 // messages queued or being written
	writing sync.Mutex   // of messages to ws
	pong    [longestPong]byte
}

var _ sfu.Observer = (*session)(nil)

func newSession(s *Server, ws *websocket.Conn, j *join) *session {
	return &session{server: s, ws: ws, join: j, queue: make(chan any, queueLength), end: make(chan struct{})}
}

// Tell implements sfu.Observer.
func (s *session) Tell(e sfu.Event) { s.put(e) }

// put queues a message; a client whose queue is full is cut off, for what it has missed cannot be made up.
func (s *session) put(m any) {
	s.waiting.Add(1)
	select {
	case s.queue <- m:
	default:
		s.cut()
	}
}

func (s *session) send(m *wire.SignalResponse) { s.put(m) }

// cut ends the connection at once.
func (s *session) cut() { s.once.Do(func() { close(s.end) }) }

// run serves the connection until it ends.
func (s *session) run() {
	var writer sync.WaitGroup
	writer.Go(s.write)
	if s.enter() {
		s.read()
	}
	if s.p != nil && s.p.Observes(s) {
		// The participant may come back on another connection.
		s.server.wait.Go(func() {
			t := time.NewTimer(s.server.cfg.ResumeWithin)
			defer t.Stop()
			select {
			case <-t.C:
			case <-s.server.ctx.Done():
			}
			if s.p.Observes(s) {
				s.p.Leave(sfu.Failed)
			}
		})
	}
	s.put(closing{})
	writer.Wait()
	_ = s.ws.Close()
}

// closing is the last message of a queue.
type closing struct{}

// enter joins or resumes; false if the client was sent away.
func (s *session) enter() bool {
	j := s.join
	if j.request.GetReconnect() {
		return s.resume()
	}
	profile := j.claims.profile()
	if j.single {
		if m := j.request.GetMetadata(); m != "" && profile.Permissions.UpdateMetadata && !profile.Permissions.KeepMetadata {
			profile.Metadata = m
		}
		if a := j.request.GetParticipantAttributes(); len(a) > 0 && profile.Permissions.UpdateMetadata {
			profile.Attributes = a
		}
	}
	o := sfu.Options{TwoConnections: !j.single, AutoSubscribe: j.request.GetConnectionSettings().GetAutoSubscribe(), MayPause: j.request.GetConnectionSettings().GetSubscriberAllowPause()}
	_, err := j.room.Join(profile, o, s, func(p *sfu.Participant, self sfu.Info, others []sfu.Info, room sfu.RoomInfo) {
		s.p = p
		s.send(s.joinResponse(self, others, room))
	})
	if err != nil {
		s.send(leave(wire.DisconnectReason_JOIN_FAILURE, wire.LeaveRequest_DISCONNECT))
		return false
	}
	for _, t := range j.request.GetAddTrackRequests() {
		s.addTrack(t)
	}
	if offer := j.request.GetPublisherOffer(); offer.GetSdp() != "" {
		return s.offer(offer)
	}
	return true
}

// resume takes over a participant whose connection broke.
func (s *session) resume() bool {
	j := s.join
	p := j.room.Find(j.claims.Subject)
	if p == nil || (j.resuming != "" && p.SID() != j.resuming) {
		s.send(leave(wire.DisconnectReason_STATE_MISMATCH, wire.LeaveRequest_RECONNECT))
		return false
	}
	before, err := p.Resume(s, func(self sfu.Info, others []sfu.Info, room sfu.RoomInfo, said uint32) {
		s.p = p
		s.send(&wire.SignalResponse{Message: &wire.SignalResponse_Reconnect{Reconnect: &wire.ReconnectResponse{
			IceServers: s.iceServers(), ServerInfo: s.server.info(), LastMessageSeq: said,
		}}})
		s.send(update(append(others, self)))
		s.send(&wire.SignalResponse{Message: &wire.SignalResponse_RoomUpdate{RoomUpdate: &wire.RoomUpdate{Room: s.room(room)}}})
	})
	if err != nil {
		s.send(leave(wire.DisconnectReason_STATE_MISMATCH, wire.LeaveRequest_RECONNECT))
		return false
	}
	if old, ok := before.(*session); ok && old != s {
		old.cut()
	}
	p.Restart()
	return true
}

// read handles what the client sends until the connection ends.
func (s *session) read() {
	limit := rate.NewLimiter(messageRate, messageBurst)
	stop := make(chan struct{})
	defer close(stop)
	s.server.wait.Go(func() {
		select {
		case <-s.end:
		case <-s.server.ctx.Done():
			s.put(closing{})
			<-s.end // the writer takes its time, which is bounded
		case <-stop:
			return
		}
		_ = s.ws.Close() // wakes the reader; what was to be written is
	})
	s.heard.Store(time.Now().UnixNano())
	s.server.enter(s)
	defer s.server.leave(s)
	for s.next(limit) {
	}
}

// next handles one message; false ends the connection.
func (s *session) next(limit *rate.Limiter) bool {
	kind, r, err := s.ws.NextReader()
	if err != nil {
		return false
	}
	buffer, ok := s.server.buffers.Get().(*bytes.Buffer)
	if !ok {
		buffer = &bytes.Buffer{}
	}
	defer func() {
		if buffer.Cap() <= maxKept {
			buffer.Reset()
			s.server.buffers.Put(buffer)
		}
	}()
	now := time.Now()
	if _, err := buffer.ReadFrom(r); err != nil || !limit.AllowN(now, 1) {
		return false
	}
	s.heard.Store(now.UnixNano())
	s.p.Spoke()
	b := buffer.Bytes()
	m := &wire.SignalRequest{}
	switch kind {
	case websocket.BinaryMessage:
		s.text.Store(false)
		if answer, ok := pong(s.pong[:0], b, now); ok && s.waiting.Load() == 0 && s.writing.TryLock() {
			defer s.writing.Unlock()
			return s.emit(kind, answer)
		}
		err = proto.Unmarshal(b, m)
	case websocket.TextMessage:
		s.text.Store(true)
		err = protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(b, m)
	}
	return err == nil && s.handle(m) // a client that cannot speak is cut off
}

// write sends what is queued. It ends after the closing message, or when the client does not read.
func (s *session) write() {
	refresh := time.NewTicker(refreshEvery)
	defer refresh.Stop()
	defer s.cut()
	for {
		var m any
		select {
		case <-s.end:
			return
		case m = <-s.queue:
		case <-refresh.C:
			s.waiting.Add(1)
			m = s.refreshToken()
		}
		var out *wire.SignalResponse
		last := false
		switch m := m.(type) {
		case closing:
			_ = s.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(writeTime))
			return
		case *wire.SignalResponse:
			out = m
		case sfu.Event:
			out = s.convert(m)
			_, last = m.(sfu.Gone)
		}
		if out != nil && !s.writeOne(out) {
			return
		}
		s.waiting.Add(-1)
		if last {
			return
		}
	}
}

func (s *session) writeOne(m *wire.SignalResponse) bool {
	kind := websocket.BinaryMessage
	b, err := []byte(nil), error(nil)
	if s.text.Load() {
		kind = websocket.TextMessage
		b, err = protojson.Marshal(m)
	} else {
		b, err = proto.Marshal(m)
	}
	if err != nil {
		s.server.log.Error("encoding a signal", "error", err)
		return false
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	return s.emit(kind, b)
}

// emit writes a message. The caller holds writing.
func (s *session) emit(kind int, b []byte) bool {
	_ = s.ws.SetWriteDeadline(time.Now().Add(writeTime))
	return s.ws.WriteMessage(kind, b) == nil
}

// refreshToken makes a token for coming back later: the client's own may have run out by then.
func (s *session) refreshToken() *wire.SignalResponse {
	c := *s.join.claims
	validity := time.Duration(refreshFor)
	if c.ExpiresAt != nil {
		validity = max(validity, time.Until(c.ExpiresAt.Time))
	}
	if s.p != nil {
		i := s.p.Info()
		c.Name, c.Metadata, c.Attributes = i.Name, i.Metadata, i.Attributes
	}
	token, err := s.server.cfg.Keys.Sign(c.Issuer, c, validity)
	if err != nil {
		return nil
	}
	return &wire.SignalResponse{Message: &wire.SignalResponse_RefreshToken{RefreshToken: token}}
}

// Message implements sfu.Observer: a data packet is stamped with its sender and passed on.
func (s *session) Message(label string, b []byte) {
	if label != "_reliable" && label != "_lossy" {
		return
	}
	var m wire.DataPacket
	if proto.Unmarshal(b, &m) != nil {
		return
	}
	to := m.GetDestinationIdentities()
	m.ParticipantIdentity, m.ParticipantSid = s.join.claims.Subject, s.p.SID()
	out, err := proto.Marshal(&m)
	if err != nil {
		return
	}
	if err := s.p.Broadcast(sfu.Message{Label: label, Body: out, To: to, Number: m.GetSequence()}); err != nil && !errors.Is(err, sfu.ErrForbidden) {
		s.server.log.Debug("data packet", "error", err)
	}
}
