// SPDX-License-Identifier: Apache-2.0

// Package listen is the edge of the TURN server towards clients that come over a connection: it accepts TCP and TLS, tells the two
// apart on one port, cuts the byte stream into frames, and writes frames back through a bounded queue.
package listen

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/trunkboard/trunkboard/turn/relay"
	"github.com/trunkboard/trunkboard/turn/stunmsg"
)

// Limits of a connection.
type Limits struct {
	// Frame is how long a frame may take from its first byte to its last, and how long a TLS handshake and the first byte may take.
	Frame time.Duration
	// Idle closes a connection without an allocation on which nothing came for so long.
	Idle time.Duration
	// Queue is how many bytes may wait to be written; relayed packets beyond it are dropped, as on UDP.
	Queue int
}

// maxRun is how many ChannelData frames are handed over at once.
const maxRun = 32

// Buffers start small, for most connections are idle most of the time, and grow to one frame of the longest kind.
const (
	readBuffer    = 4 << 10
	maxReadBuffer = 64<<10 + stunmsg.HeaderSize + 3
	keepBuffer    = 64 << 10 // a write buffer that grew beyond this is given back when it has been written
)

// lastWrite is how long writing may go on after Close.
const lastWrite = time.Second

// Stream is a connection of a client. It implements relay.ClientSink.
type Stream struct {
	conn      net.Conn
	limits    Limits
	datagrams bool // each read and write of conn is one frame; nothing is queued

	mu      sync.Mutex
	queue   []byte
	spare   []byte
	closed  bool
	patient bool          // an allocation lives: no idle deadline
	detach  bool          // Read shall end and leave the connection open
	rest    []byte        // what Read had read already when it did
	wake    chan struct{} // capacity 1: there is something in queue, or the stream was closed
	done    chan struct{} // closed when the writer has ended
}

// NewStream wraps a connection and starts its writer, which ends when the stream is closed.
func NewStream(conn net.Conn, limits Limits) *Stream {
	s := &Stream{conn: conn, limits: limits, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go s.write()
	return s
}

// NewDatagrams wraps a connection that keeps datagrams apart, as DTLS does. Writing to it must not wait.
func NewDatagrams(conn net.Conn, limits Limits) *Stream {
	s := &Stream{conn: conn, limits: limits, datagrams: true, done: make(chan struct{}), wake: make(chan struct{}, 1)}
	close(s.done)
	return s
}

// Near is our end of the connection; the zero value if it has no address.
func (s *Stream) Near() netip.AddrPort {
	a, err := netip.ParseAddrPort(s.conn.LocalAddr().String())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// ErrFraming is what Read returns when the bytes are neither STUN nor ChannelData.
var ErrFraming = errors.New("listen: neither STUN nor ChannelData on the connection")

// Read reads frames until the connection ends, which it reports as an error. Runs of ChannelData frames, with their padding, go to
// channelData, single STUN messages to stun, both in order and lent for the time of the call. When it returns the stream is closed
// and its writer has ended.
func (s *Stream) Read(stun func(p []byte), channelData func(frames [][]byte)) error {
	if s.datagrams {
		return s.readDatagrams(stun, channelData)
	}
	defer func() {
		if !s.detached() {
			s.Close()
		}
		<-s.done
	}()
	buf := make([]byte, readBuffer)
	have := 0
	var frames [maxRun][]byte
	deadline := false // the frame whose start lies in buf has its deadline
	begun := false    // a STUN message has come
	for {
		if !deadline {
			s.setIdleDeadline()
		}
		n, err := s.conn.Read(buf[have:])
		have += n
		at, run := 0, 0
		for have-at >= 4 {
			size, ok := stunmsg.FrameLen(buf[at:have])
			if !ok || !begun && buf[at]>>6 != 0 { // ChannelData is nothing to begin with, and "POST" looks like it
				return ErrFraming
			}
			if have-at < size {
				break
			}
			frame := buf[at : at+size]
			at += size
			if frame[0]>>6 == 1 {
				if frames[run] = frame; run+1 == maxRun {
					channelData(frames[:])
					run = 0
				} else {
					run++
				}
				continue
			}
			if run > 0 {
				channelData(frames[:run])
				run = 0
			}
			begun = true
			stun(frame)
			if s.detached() {
				s.rest = append([]byte(nil), buf[at:have]...)
				return nil
			}
		}
		if run > 0 {
			channelData(frames[:run])
		}
		full := have == len(buf)
		have = copy(buf, buf[at:have])
		if err != nil {
			if errors.Is(err, io.EOF) && have > 0 {
				return io.ErrUnexpectedEOF
			}
			return err
		}
		if at > 0 || have == 0 {
			deadline = false
		}
		if have > 0 && !deadline {
			deadline = true
			if err := s.conn.SetReadDeadline(time.Now().Add(s.limits.Frame)); err != nil {
				return err
			}
		}
		if full && len(buf) < maxReadBuffer { // grown by what came, not by what a header claims
			grown := make([]byte, min(4*len(buf), maxReadBuffer))
			copy(grown, buf[:have])
			buf = grown
		}
	}
}

// readDatagrams is Read where frames come apart already. What is no frame is dropped, as on UDP.
func (s *Stream) readDatagrams(stun func(p []byte), channelData func(frames [][]byte)) error {
	defer s.conn.Close()
	defer s.Close()
	buf := make([]byte, maxReadBuffer)
	var frames [1][]byte
	for {
		s.setIdleDeadline()
		n, err := s.conn.Read(buf)
		if err != nil {
			return err
		}
		switch p := buf[:n]; stunmsg.Classify(p) {
		case stunmsg.STUN:
			stun(p)
		case stunmsg.Channel:
			frames[0] = p
			channelData(frames[:])
		}
	}
}

// Detach makes Read return nil after the message that it is at, with the connection open and everything that was queued written.
func (s *Stream) Detach() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.detach = true
		s.signal()
	}
}

func (s *Stream) detached() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.detach
}

// Detached gives the connection of a stream that was detached, and the bytes behind its last message, after Read has returned; nil if
// the stream was closed.
func (s *Stream) Detached() (net.Conn, []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.detach || s.closed {
		return nil, nil
	}
	_ = s.conn.SetDeadline(time.Time{})
	return s.conn, s.rest
}

func (s *Stream) setIdleDeadline() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return // Close has set one in the past
	}
	if s.patient {
		_ = s.conn.SetReadDeadline(time.Time{})
	} else {
		_ = s.conn.SetReadDeadline(time.Now().Add(s.limits.Idle))
	}
}

// Patient tells whether the connection may be idle for as long as it likes, because an allocation with a lifetime of its own hangs
// on it.
func (s *Stream) Patient(yes bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.patient = yes
}

// Stream implements relay.ClientSink.
func (s *Stream) Stream() bool { return !s.datagrams }

// SendRun implements relay.ClientSink: frames that find no room in the queue are dropped.
func (s *Stream) SendRun(_ *relay.Batch, frames [][]byte) (sent int) {
	if s.datagrams {
		for _, f := range frames {
			if !s.writeDatagram(f) {
				break
			}
			sent++
		}
		return sent
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range frames {
		if s.closed || len(s.queue)+len(f) > s.limits.Queue {
			break
		}
		s.queue = append(s.queue, f...)
		sent++
	}
	if sent > 0 {
		s.signal()
	}
	return sent
}

// Reply queues an answer of the control plane. A client that lets even those pile up reads nothing: it is disconnected, for over
// a connection answers are not asked for again.
func (s *Stream) Reply(p []byte) {
	if s.datagrams {
		s.writeDatagram(p)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	if len(s.queue)+len(p) > s.limits.Queue+(16<<10) {
		s.closeLocked()
		return
	}
	s.queue = append(s.queue, p...)
	s.signal()
}

func (s *Stream) writeDatagram(p []byte) bool {
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return false
	}
	_, err := s.conn.Write(p)
	return err == nil
}

func (s *Stream) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Close ends the stream: what is queued is still written if that goes at once.
func (s *Stream) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closeLocked()
}

func (s *Stream) closeLocked() {
	if s.closed {
		return
	}
	s.closed = true
	_ = s.conn.SetReadDeadline(time.Unix(1, 0))
	_ = s.conn.SetWriteDeadline(time.Now().Add(lastWrite))
	s.signal()
}

// write writes what is queued, as much as there is in one go, until the stream is closed.
func (s *Stream) write() {
	defer close(s.done)
	left := false // to somebody else
	defer func() {
		if !left {
			s.Close()
			_ = s.conn.Close()
		}
	}()
	for range s.wake {
		s.mu.Lock()
		out, closed, detach := s.queue, s.closed, s.detach
		s.queue, s.spare = s.spare[:0], nil
		if !closed {
			_ = s.conn.SetWriteDeadline(time.Now().Add(s.limits.Frame))
		}
		s.mu.Unlock()
		if len(out) > 0 {
			if err := s.writeFrames(out); err != nil {
				return
			}
		}
		if closed || detach {
			left = !closed
			return
		}
		s.mu.Lock()
		if cap(out) <= keepBuffer {
			s.spare = out[:0]
		}
		s.mu.Unlock()
	}
}

// writeFrames writes queued frames: over TLS each in a record of its own, for there are clients that take a record for a frame
// (coturn's test client), but the records in one go where that can be had.
func (s *Stream) writeFrames(out []byte) error {
	secure, ok := s.conn.(*tls.Conn)
	if !ok {
		_, err := s.conn.Write(out)
		return err
	}
	gather, _ := secure.NetConn().(*prefixed)
	if gather != nil {
		gather.cork()
	}
	for len(out) > 0 {
		n, ok := stunmsg.FrameLen(out)
		if !ok || n > len(out) {
			n = len(out) // cannot be: only whole frames are queued
		}
		if _, err := secure.Write(out[:n]); err != nil {
			return err
		}
		out = out[n:]
	}
	if gather != nil {
		return gather.uncork()
	}
	return nil
}
