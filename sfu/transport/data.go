// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/pion/datachannel"
	"github.com/pion/sctp"
)

// Limits of data channels (RFC 8831).
const (
	MaxMessage     = 64 << 10 // bytes of a message
	maxChannels    = 16
	maxStreamsEver = 256 // opened by the client in one session
	firstBuffer    = 2 << 10
	reliableQueue  = 1 << 20  // bytes waiting to be sent to a client before messages to it are refused
	lossyQueue     = 64 << 10 // the same for channels whose messages may be lost: there they are dropped
)

// ErrSlow is returned when a client does not take its messages.
var ErrSlow = errors.New("transport: the client does not keep up with its data channel")

// ErrNoChannel is returned when the client has no data channel of that label open.
var ErrNoChannel = errors.New("transport: no such data channel")

// channel is an open data channel.
type channel struct {
	*datachannel.DataChannel
	lossy bool
}

// serveData runs SCTP on conn until it ends.
func (s *Session) serveData(conn net.Conn, labels []string) error {
	assoc, err := sctp.ServerWithOptions(sctp.WithLoggerFactory(pionLog{s.t.log}), sctp.WithNetConn(conn), sctp.WithMaxMessageSize(MaxMessage), sctp.WithMaxReceiveBufferSize(1<<20), sctp.WithMTU(1200))
	if err != nil {
		return fmt.Errorf("transport: SCTP: %w", err)
	}
	s.dataMu.Lock()
	s.assoc = assoc
	s.dataMu.Unlock()
	if s.ctx.Err() != nil {
		assoc.Abort("closed")
	}
	defer func() { _ = assoc.Close() }()
	for i, label := range labels {
		cfg := &datachannel.Config{LoggerFactory: pionLog{s.t.log}, Label: label, ChannelType: datachannel.ChannelTypeReliable}
		if label == Lossy {
			cfg.ChannelType = datachannel.ChannelTypePartialReliableRexmitUnordered
		}
		// The DTLS server's streams are the odd ones (RFC 8832 section 6).
		d, err := datachannel.Dial(assoc, uint16(2*i+1), cfg)
		if err != nil {
			return fmt.Errorf("transport: opening data channel %q: %w", label, err)
		}
		s.serveChannel(d)
	}
	for accepted := 0; ; accepted++ {
		stream, err := assoc.AcceptStream()
		if err != nil {
			return err
		}
		if accepted >= maxStreamsEver {
			return errors.New("transport: too many data channels")
		}
		stream.SetDefaultPayloadType(sctp.PayloadTypeWebRTCBinary)
		s.wait.Go(func() {
			d, err := datachannel.Server(stream, &datachannel.Config{LoggerFactory: pionLog{s.t.log}})
			if err != nil {
				_ = stream.Close()
				return
			}
			s.serveChannel(d)
		})
	}
}

// Labels of the data channels that LiveKit's clients use; Lossy ones lose messages instead of delaying them.
const (
	Reliable = "_reliable"
	Lossy    = "_lossy"
)

// serveChannel reads a channel until it is closed.
func (s *Session) serveChannel(d *datachannel.DataChannel) {
	label := d.Config.Label
	lossy := d.Config.ChannelType != datachannel.ChannelTypeReliable && d.Config.ChannelType != datachannel.ChannelTypeReliableUnordered
	c := &channel{d, lossy}
	if !s.enlist(label, c) {
		_ = d.Close()
		return
	}
	s.wait.Go(func() {
		defer s.unlist(label, c)
		// Most channels never carry a large message: the buffer grows when one comes. It waits in SCTP's queue until then.
		b := make([]byte, firstBuffer)
		for {
			n, _, err := d.ReadDataChannel(b)
			if errors.Is(err, io.ErrShortBuffer) && len(b) < MaxMessage {
				b = make([]byte, MaxMessage)
				continue
			}
			if err != nil {
				return
			}
			s.handler.Data(label, b[:n])
		}
	})
}

// enlist makes c the channel of a label, in place of another perhaps; false if there are too many.
func (s *Session) enlist(label string, c *channel) bool {
	s.toldMu.Lock()
	defer s.toldMu.Unlock()
	s.dataMu.Lock()
	full := len(s.channels) >= maxChannels
	if !full {
		s.channels[label] = c
	}
	s.dataMu.Unlock()
	if !full {
		s.handler.Channel(label, true)
	}
	return !full
}

// unlist forgets a channel that was closed, unless another has taken its place.
func (s *Session) unlist(label string, c *channel) {
	s.toldMu.Lock()
	defer s.toldMu.Unlock()
	s.dataMu.Lock()
	last := s.channels[label] == c
	if last {
		delete(s.channels, label)
	}
	s.dataMu.Unlock()
	if last {
		s.handler.Channel(label, false)
	}
}

// SendData sends a message on the channel with that label. Lossy channels drop what does not fit; on a reliable one ErrSlow says
// that the client must be let go.
func (s *Session) SendData(label string, message []byte) error {
	s.dataMu.Lock()
	c := s.channels[label]
	s.dataMu.Unlock()
	if c == nil {
		return ErrNoChannel
	}
	waiting := c.BufferedAmount()
	switch {
	case c.lossy && waiting > lossyQueue:
		return nil
	case waiting > reliableQueue:
		return ErrSlow
	}
	_, err := c.WriteDataChannel(message, false)
	return err
}
