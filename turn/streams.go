// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"net"
	"net/netip"

	"github.com/trunkboard/trunkboard/turn/listen"
	"github.com/trunkboard/trunkboard/turn/relay"
	"github.com/trunkboard/trunkboard/turn/stunmsg"
)

// serveStream serves a connection until it ends, and its allocation with it (RFC 8656, section 4: the allocation belongs to the
// 5-tuple).
func (s *Server) serveStream(conn net.Conn, remote netip.AddrPort, transport string) {
	st, ok := s.track(conn, transport == "dtls")
	if !ok {
		_ = conn.Close()
		return
	}
	h := newHandler(s)
	c := &client{remote: remote, transport: transport, stream: st}
	_ = st.Read(
		func(p []byte) { h.handle(p, c) },
		func(frames [][]byte) {
			a := c.allocation()
			if a == nil {
				s.plane.Counts.Dropped[relay.DropNoChannel].Add(uint64(len(frames)))
				return
			}
			b := s.plane.Lease()
			a.session.FromStream(b, frames)
			s.plane.Return(b)
		})
	if c.data != nil {
		if conn, first := st.Detached(); conn != nil {
			c.data.pipe(conn, first)
		} else {
			c.data.relay.drop(c.data)
		}
		_ = conn.Close() // what was detached is ours to close
	}
	if a := c.allocation(); a != nil {
		s.leave(a, c)
	}
	s.untrack(st)
}

// track makes a stream that Close ends and waits for.
func (s *Server) track(conn net.Conn, datagrams bool) (*listen.Stream, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, false
	}
	wrap := listen.NewStream
	if datagrams {
		wrap = listen.NewDatagrams
	}
	st := wrap(conn, s.limits)
	s.streams[st] = struct{}{}
	s.tracked.Add(1)
	return st, true
}

func (s *Server) untrack(st *listen.Stream) {
	s.mu.Lock()
	delete(s.streams, st)
	s.mu.Unlock()
	s.tracked.Done()
}

// serveDTLS serves a client whose handshake is made.
func (s *Server) serveDTLS(conn net.Conn, remote netip.AddrPort) {
	if !s.gate.Enter(remote.Addr()) {
		s.counts.refusals[refusedConnection].Add(1)
		_ = conn.Close()
		return
	}
	defer s.gate.Leave(remote.Addr())
	s.serveStream(conn, remote, "dtls")
}

// udpWorker is one UDP socket's goroutine: its handler's working memory is its own.
type udpWorker struct {
	handler *handler
	table   *relay.Table
	socket  relay.Socket
	reply   []byte
	run     [1][]byte

	discovery *discovery // nil: none
	place     place
}

// control handles what is not ChannelData. Binding requests never become state.
func (w *udpWorker) control(b *relay.Batch, p []byte, from netip.AddrPort) {
	if stunmsg.IsBindingRequest(p) {
		if w.discovery != nil {
			w.handler.answerDiscovery(w.discovery, w.place, p, from)
			return
		}
		if w.reply = w.handler.binding(w.reply[:0], p, from); len(w.reply) > 0 {
			w.run[0] = w.reply
			w.socket.SendRun(b, w.run[:], from)
		}
		return
	}
	c := client{remote: from, transport: "udp", table: w.table, socket: w.socket}
	w.handler.handle(p, &c)
}

// other takes packets of DTLS.
func (w *udpWorker) other(p []byte, from netip.AddrPort) bool {
	if !listen.IsDTLS(p) {
		return false
	}
	w.handler.s.dtls.Packet(p, w.socket.Addr(), from, func(p []byte) { w.socket.Send(p, from, false) })
	return true
}
