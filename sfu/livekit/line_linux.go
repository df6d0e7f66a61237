// SPDX-License-Identifier: Apache-2.0

package livekit

import (
	"cmp"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// line is a TCP connection, read by one goroutine at a time and written by one at a time.
type line struct {
	net.Conn // and no more than that: net.Buffers, in which gorilla writes long messages, would go round Write if it saw a TCPConn
	raw      syscall.RawConn
	in       transfer
	out      transfer

	// till is the deadline of writes, which the connection itself is told only when a write has to wait.
	mu      sync.Mutex
	till    time.Time
	waiting bool
}

// transfer is one system call: the memory of its arguments and results, so that none is needed for each call.
type transfer struct {
	b   []byte
	n   int
	err unix.Errno
	do  func(fd uintptr) (done bool)
}

// newLine makes a line of a TCP connection; others, such as TLS, stay what they are.
func newLine(c net.Conn) net.Conn {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return c
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return c
	}
	_ = t.SetWriteDeadline(time.Time{})
	l := &line{Conn: t, raw: raw}
	l.in.do = func(fd uintptr) bool { return l.in.call(unix.SYS_RECVFROM, fd) }
	l.out.do = func(fd uintptr) bool {
		l.out.call(unix.SYS_SENDTO, fd)
		return true
	}
	return l
}

// call reads or writes what can be at once; false if that is nothing. Raw: it does not block, and telling the scheduler costs more.
func (t *transfer) call(number, fd uintptr) bool {
	for {
		n, _, e := unix.RawSyscall6(number, fd, uintptr(unsafe.Pointer(unsafe.SliceData(t.b))), uintptr(len(t.b)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		if e == unix.EINTR {
			continue
		}
		t.n, t.err = int(n), e
		if e != 0 {
			t.n = 0
		}
		return e != unix.EAGAIN
	}
}

// Read implements net.Conn.
func (l *line) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	l.in.b = b
	err := l.raw.Read(l.in.do)
	l.in.b = nil
	switch {
	case err != nil:
		return 0, err
	case l.in.err != 0:
		return 0, l.failed("read", os.NewSyscallError("recvfrom", l.in.err))
	case l.in.n == 0:
		return 0, io.EOF
	}
	return l.in.n, nil
}

// Write implements net.Conn.
func (l *line) Write(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	l.mu.Lock()
	till := l.till
	l.mu.Unlock()
	done := 0
	if till.IsZero() || time.Now().Before(till) {
		l.out.b = b
		err := l.raw.Write(l.out.do)
		l.out.b = nil
		switch {
		case err != nil:
			return 0, err
		case l.out.err != 0 && l.out.err != unix.EAGAIN:
			return 0, l.failed("write", os.NewSyscallError("sendto", l.out.err))
		}
		if done = l.out.n; done == len(b) {
			return done, nil
		}
	}
	if err := l.patience(true); err != nil {
		return done, err
	}
	n, err := l.Conn.Write(b[done:])
	return done + n, cmp.Or(err, l.patience(false))
}

// patience gives the connection the deadline while a write waits.
func (l *line) patience(waiting bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = waiting
	if waiting {
		return l.Conn.SetWriteDeadline(l.till)
	}
	return l.Conn.SetWriteDeadline(time.Time{})
}

func (l *line) failed(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: l.LocalAddr(), Addr: l.RemoteAddr(), Err: err}
}

// SetWriteDeadline implements net.Conn.
func (l *line) SetWriteDeadline(t time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.till = t
	if l.waiting {
		return l.Conn.SetWriteDeadline(t)
	}
	return nil
}

// SetDeadline implements net.Conn.
func (l *line) SetDeadline(t time.Time) error {
	return cmp.Or(l.Conn.SetReadDeadline(t), l.SetWriteDeadline(t))
}
