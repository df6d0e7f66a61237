// SPDX-License-Identifier: Apache-2.0

package listen

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/pion/stun/v4"

	"github.com/trunkboard/trunkboard/turn/stunmsg"
)

var short = Limits{Frame: 300 * time.Millisecond, Idle: 300 * time.Millisecond, Queue: 64 << 10}

// pair is a stream and its other end, over TCP.
func pair(t testing.TB, limits Limits) (*Stream, *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	far, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	near, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return NewStream(near, limits), far.(*net.TCPConn)
}

func drop([]byte)    {}
func drops([][]byte) {}

func TestFramesAreFoundHoweverTheBytesCome(t *testing.T) {
	request := stun.MustBuild(stun.TransactionID, stun.BindingRequest, stun.NewSoftware("abc")).Raw
	data := append([]byte{0x40, 1, 0, 5, '1', '2', '3', '4', '5'}, 0, 0, 0) // padded
	long := append([]byte{0x40, 2, 0xff, 0xff}, make([]byte, 65536)...)
	empty := []byte{0x40, 3, 0, 0}
	want := bytes.Join([][]byte{request, data, data, long, empty, request, data}, nil)
	for _, piece := range []int{1, 7, 4096, len(want)} {
		s, far := pair(t, Limits{Frame: 10 * time.Second, Idle: 10 * time.Second, Queue: 1})
		go func() {
			for p := want; len(p) > 0; {
				n := min(piece, len(p))
				if _, err := far.Write(p[:n]); err != nil {
					return
				}
				p = p[n:]
			}
			far.CloseWrite()
		}()
		var got []byte
		var kinds string
		err := s.Read(func(p []byte) {
			got = append(got, p...)
			kinds += "s"
		}, func(frames [][]byte) {
			for _, p := range frames {
				got = append(got, p...)
				kinds += "c"
			}
		})
		if !errors.Is(err, io.EOF) || !bytes.Equal(got, want) || kinds != "scccc"+"sc" {
			t.Errorf("in pieces of %d: %q, %d bytes of %d, %v", piece, kinds, len(got), len(want), err)
		}
	}
}

func TestWhatIsNotTURNIsCutOff(t *testing.T) {
	for name, c := range map[string]struct {
		bytes string
		want  error
	}{
		"HTTP":                          {"POST / HTTP/1.1\r\n\r\n", ErrFraming},
		"TLS":                           {"\x16\x03\x01\x02\x00\x01\x00", ErrFraming},
		"RTP":                           {"\x80\x00\x00\x00\x00", ErrFraming},
		"STUN length not times 4":       {"\x00\x01\x00\x03\x21\x12\xa4\x42", ErrFraming},
		"ChannelData first":             {"\x40\x00\x00\x00", ErrFraming},
		"a long frame that never comes": {"\x00\x01\xff\xfc and then nothing", os.ErrDeadlineExceeded},
		"one byte":                      {"\x00", os.ErrDeadlineExceeded},
		"nothing":                       {"", os.ErrDeadlineExceeded},
	} {
		s, far := pair(t, short)
		if _, err := far.Write([]byte(c.bytes)); err != nil {
			t.Fatal(err)
		}
		if err := s.Read(drop, drops); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestADripOfBytesDoesNotProlongAFrame(t *testing.T) {
	s, far := pair(t, short)
	go func() {
		for _, b := range append([]byte{0, 1, 0xff, 0xfc}, make([]byte, 1000)...) {
			if _, err := far.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	began := time.Now()
	if err := s.Read(drop, drops); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) > 5*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}

func TestAPatientStreamMayBeIdle(t *testing.T) {
	s, far := pair(t, short)
	s.Patient(true)
	done := make(chan error, 1)
	seen := make(chan struct{})
	go func() { done <- s.Read(func([]byte) { close(seen) }, drops) }()
	select {
	case err := <-done:
		t.Fatal(err)
	case <-time.After(3 * short.Idle):
	}
	if _, err := far.Write(stun.MustBuild(stun.TransactionID, stun.BindingRequest).Raw); err != nil {
		t.Fatal(err)
	}
	<-seen
	s.Close()
	if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

func TestAReaderThatFallsBehindLosesPacketsAndThenTheConnection(t *testing.T) {
	s, _ := pair(t, Limits{Frame: 500 * time.Millisecond, Idle: time.Minute, Queue: 64 << 10})
	frame := make([]byte, 1204)
	stunmsg.PutChannelHeader(frame, 0x4000, 1200)
	done := make(chan error, 1)
	go func() { done <- s.Read(drop, drops) }()
	lost := 0
	for {
		if s.SendRun(nil, [][]byte{frame}) == 0 {
			lost++
			runtime.Gosched()
		}
		select {
		case <-done: // the writer has given up after its deadline
			if lost == 0 {
				t.Error("nothing was lost")
			}
			return
		default:
		}
	}
}

func TestTheGateCountsSources(t *testing.T) {
	g := NewGate(3, 2)
	a, b := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2") // one /64
	c := netip.MustParseAddr("192.0.2.1")
	for i, x := range []struct {
		addr netip.Addr
		want bool
	}{{a, true}, {b, true}, {a, false}, {c, true}, {c, false}} {
		if got := g.Enter(x.addr); got != x.want {
			t.Errorf("%d: %v", i, got)
		}
	}
	g.Leave(b)
	if !g.Enter(c) || g.Open() != 3 {
		t.Error("a place that was left is not free")
	}
}

func FuzzStream(f *testing.F) {
	f.Add([]byte{0x40, 1, 0, 5, 1, 2, 3, 4, 5, 0, 0, 0, 0x40, 2, 0, 0}, uint8(3))
	f.Add(stun.MustBuild(stun.TransactionID, stun.BindingRequest, stun.Fingerprint).Raw, uint8(1))
	f.Fuzz(func(t *testing.T, p []byte, piece uint8) {
		s := NewStream(&pieces{rest: bytes.Clone(p), n: int(piece)%64 + 1}, short)
		total := 0
		err := s.Read(func(p []byte) {
			if n, ok := stunmsg.FrameLen(p); !ok || n != len(p) || p[0]>>6 != 0 {
				t.Errorf("not a STUN frame: %x", p)
			}
			total += len(p)
		}, func(frames [][]byte) {
			for _, p := range frames {
				if n, ok := stunmsg.FrameLen(p); !ok || n != len(p) || p[0]>>6 != 1 {
					t.Errorf("not a ChannelData frame: %x", p)
				}
				total += len(p)
			}
		})
		if err == nil || total > len(p) {
			t.Fatalf("%v, %d of %d bytes", err, total, len(p))
		}
	})
}

// pieces is a connection that gives its bytes a few at a time.
type pieces struct {
	net.Conn
	rest []byte
	n    int
}

func (c *pieces) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), c.n)], c.rest)
	c.rest = c.rest[n:]
	return n, nil
}
func (c *pieces) Close() error                     { return nil }
func (c *pieces) SetReadDeadline(time.Time) error  { return nil }
func (c *pieces) SetWriteDeadline(time.Time) error { return nil }
