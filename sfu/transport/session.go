// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/sctp"
	"github.com/trunkboard/trunkboard/sfu/congest"
	"github.com/trunkboard/trunkboard/sfu/forward"
)

// Handler hears what happens on a session. RTP, RTCP and Data must not block; their bytes are the caller's.
type Handler interface {
	// Connected is called once, when packets can flow.
	Connected()
	// RTP takes unsealed packets that arrived one after the other. Answers that are ready go into out.
	RTP(run [][]byte, out *Batch)
	// RTCP takes an unsealed compound packet.
	RTCP(compound []byte, out *Batch)
	// Data takes a message of the data channel with that label.
	Data(label string, message []byte)
	// Channel is called when the data channel with that label can be written to, and when it was closed; another may come for it.
	Channel(label string, open bool)
	// Closed is called once, when the client has closed the session or it failed; not after Session.Close.
	Closed(reason error)
}

// Limits of one session.
const (
	maxAddrs   = 8    // addresses known for one client: it moves between networks
	maxStreams = 1024 // RTP streams a client may send in one session, those that have ended counted: each share of a screen brings some
	MaxRTCP    = 1200 // bytes of a compound packet that is sent
)

// Session is the transport of one peer connection. It implements forward.Peer.
type Session struct {
	// What every packet that goes out needs stands together, so that it is found in few lines of the processor's cache, and on one page.
	sealer   atomic.Pointer[sealer] // keys; nil until they are agreed upon
	path     atomic.Pointer[path]   // where packets go; mostly first
	numbered atomic.Bool
	pacer    atomic.Pointer[congest.Pacer] // nil while nothing speaks against the path
	came     atomic.Bool                   // first is in use
	t        *Transport
	keys     sealer
	first    path

	// Path is what is known of the way to the client.
	Path *congest.Estimator

	handler Handler

	// Guarded by t.mu.
	name, password string // our ICE credentials
	signer         *signer
	addrs          []netip.AddrPort

	theirs    atomic.Pointer[credentials] // the client's, nil while unknown
	nominated atomic.Bool                 // the client has chosen a path
	seen      atomic.Int64                // time of the last good check
	handshake *inbox

	inMu  sync.Mutex // of what comes in
	in    *unsealer
	clear [receiveBatch][]byte

	outMu sync.Mutex // of RTCP that goes out
	out   *reports

	toldMu   sync.Mutex // of what the handler is told of channels: in the order in which they come and go. Taken before dataMu
	dataMu   sync.Mutex
	channels map[string]*channel
	assoc    *sctp.Association

	started   atomic.Bool
	ctx       context.Context
	cancel    context.CancelFunc
	closeOnce sync.Once
	wait      sync.WaitGroup
}

// path is an address of the client and the way it is reached.
type path struct {
	to netip.AddrPort
	way
	name peerName
}

var _ forward.Peer = (*Session)(nil)

// Open makes a session. It answers checks from now on; Start does the rest.
func (t *Transport) Open(h Handler) (*Session, error) {
	s := &Session{t: t, Path: new(congest.Estimator), handler: h, channels: map[string]*channel{}}
	s.invent()
	s.ctx, s.cancel = context.WithCancel(t.ctx)
	s.handshake = newInbox(s)
	s.numbered.Store(true)
	s.seen.Store(int64(t.Now()))
	if err := t.add(s); err != nil {
		s.cancel()
		return nil, err
	}
	return s, nil
}

// Credentials are our ICE user fragment and password.
func (s *Session) Credentials() (name, password string) {
	s.t.mu.RLock()
	defer s.t.mu.RUnlock()
	return s.name, s.password
}

// Fingerprint is the SHA-256 fingerprint of our certificate, as in SDP.
func (t *Transport) Fingerprint() string { return t.fingerprint }

// credentials are an ICE user fragment and password.
type credentials struct{ name, password string }

// Peer tells the session the client's ICE credentials. Others than before are an ICE restart: ours change too, and the client's new
// checks move the session to its new address.
func (s *Session) Peer(name, password string) {
	s.t.Hasten()
	before := s.theirs.Swap(&credentials{name, password})
	switch {
	case before == nil: // its checks may have come before its description
		if p := s.path.Load(); p != nil {
			s.t.Do(func(out *Batch) { s.probe(p, out) })
		}
	case before.name != name:
		s.rename()
	}
}

// probe checks a path that the client has not chosen yet.
func (s *Session) probe(p *path, out *Batch) {
	theirs := s.theirs.Load()
	if theirs == nil || s.nominated.Load() {
		return
	}
	ours, _ := s.Credentials()
	out.clear(p, copy(out.Slot(), probe(theirs.name+":"+ours, newSigner(theirs.password))))
}

// Restart changes our ICE credentials; the client's are unknown until the next Peer.
func (s *Session) Restart() {
	s.theirs.Store(nil)
	s.rename()
}

func (s *Session) rename() {
	s.nominated.Store(false)
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	if s.t.byName[s.name] != s {
		return
	}
	delete(s.t.byName, s.name)
	s.invent()
	s.t.byName[s.name] = s
}

// invent makes new credentials.
func (s *Session) invent() {
	s.name, s.password = token(8), token(24)
	s.signer = newSigner(s.password)
}

// expects reports whether a check may come from that user fragment.
func (s *Session) expects(name string) bool {
	theirs := s.theirs.Load()
	return theirs == nil || theirs.name == name
}

// learn adds an address; the oldest is forgotten when there are too many. The caller holds t.mu.
func (s *Session) learn(a netip.AddrPort) {
	s.addrs = append(s.addrs, a)
	if len(s.addrs) > maxAddrs {
		if s.t.byAddr[s.addrs[0]] == s {
			delete(s.t.byAddr, s.addrs[0])
		}
		s.addrs = s.addrs[1:]
	}
}

// Open implements forward.Peer.
func (s *Session) Open() bool { return s.sealer.Load() != nil }

// Fetch implements forward.Peer.
func (s *Session) Fetch() (n int) {
	if k := s.sealer.Load(); k != nil {
		n = int(k.salt[0])
		if k.aead != nil {
			n += k.aead.NonceSize()
		}
	}
	if p := s.path.Load(); p != nil {
		n += p.fetch()
	}
	return n
}

// Suspect notes that something may be wrong with the path: from now on the client is asked what arrives.
func (s *Session) Suspect() {
	s.Path.Suspect(s.t.Now())
	s.numbered.Store(true)
}

// Numbered implements forward.Peer; Listen and Suspect set it.
func (s *Session) Numbered() bool { return s.numbered.Load() }

// Listen looks whether feedback from the client is wanted. It is called now and then.
func (s *Session) Listen() {
	if now := s.Path.Listening(s.t.Now()); now != s.numbered.Load() {
		s.numbered.Store(now)
	}
}

// Silent is how long the client has not been heard.
func (s *Session) Silent() time.Duration { return s.t.Now() - time.Duration(s.seen.Load()) }

// rtp unseals a run of packets and hands it on.
func (s *Session) rtp(sealed [][]byte, out *Batch) {
	s.inMu.Lock()
	defer s.inMu.Unlock()
	if s.in == nil {
		return
	}
	n := 0
	for _, b := range sealed {
		if clear := s.in.RTP(b); clear != nil {
			s.clear[n] = clear
			n++
		}
	}
	if n > 0 {
		s.handler.RTP(s.clear[:n], out)
	}
}

// rtcp unseals a compound packet and hands it on.
func (s *Session) rtcp(b []byte, out *Batch) {
	s.inMu.Lock()
	defer s.inMu.Unlock()
	if s.in == nil {
		return
	}
	if clear := s.in.RTCP(b); clear != nil {
		s.handler.RTCP(clear, out)
	}
}

// SendRTCP seals a compound packet of up to 1200 bytes and queues it in out. It does nothing before the session is connected.
func (s *Session) SendRTCP(b []byte, out *Batch) {
	p := s.path.Load()
	if p == nil || len(b) > MaxRTCP || len(b) < 8 {
		return
	}
	s.outMu.Lock()
	defer s.outMu.Unlock()
	if s.out == nil {
		return
	}
	if n := s.out.seal(out.Slot(), b); n > 0 {
		out.clear(p, n)
	}
}

// Close ends the session and waits for what runs. The handler hears nothing after it returns.
func (s *Session) Close() {
	s.end()
	s.wait.Wait()
}

// end stops everything without waiting.
func (s *Session) end() {
	s.closeOnce.Do(func() {
		s.t.remove(s)
		s.cancel()
		s.handshake.close()
		s.dataMu.Lock()
		assoc := s.assoc
		s.dataMu.Unlock()
		if assoc != nil {
			assoc.Abort("closed")
		}
		s.inMu.Lock()
		s.in = nil
		s.inMu.Unlock()
		s.outMu.Lock()
		s.out = nil
		s.outMu.Unlock()
		s.sealer.Store(nil)
		s.t.hangUp(s)
	})
}
