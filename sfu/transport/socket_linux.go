// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"cmp"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// How a socket waits. A call of five people wakes a sleeping server for every packet, some five hundred times a second, and waking up and
// finding cold caches costs more than the packets do. Above gatherRate the socket therefore sleeps by the clock: packets gather for at most
// gatherMost, less at higher rates, where less is enough. What that adds to a packet's way is a few milliseconds at most, half of that on
// average, which is below what the network's jitter is and far below what a jitter buffer holds.
const (
	gatherRate  = 300 // packets a second
	gatherMost  = 5 * time.Millisecond
	gatherWish  = 8 // packets
	rateWindow  = 20 * time.Millisecond
	quietRounds = 3 // looks that found nothing until the socket sleeps for as long as nothing comes

	// lateMost is how long a packet may wait on the late socket: for the next packet of a sound, which comes every 20 ms, or for the clock.
	lateMost = 25 * time.Millisecond
)

// socketSys is the socket without Go's poller, which would wake the process for every packet, wanted or not. Instead Go's poller looks
// after an epoll descriptor of our own, in which the socket is armed when it is to wake us, and a timer is set otherwise.
type socketSys struct {
	fd, late, epoll, timer int      // late: -1 if there is none, see sort_linux.go
	out                    int      // what is sent goes out here: mostly a socket of its own, see openLate
	file                   *os.File // of epoll
	wait                   syscall.RawConn

	users atomic.Int64 // who may be in a system call with fd, and shut
	once  sync.Once

	// The measure of the traffic.
	packets int
	since   time.Time
	rate    float64
	quiet   int
	last    time.Time // of media
	steady  bool      // media come one after the other
	armed   bool
	awaits  bool // a packet on late wakes us
}

const shut = 1 << 62

// open takes the socket out of Go's poller.
func (s *socket) open() (err error) {
	x := &s.sys
	x.fd, x.late, x.out, x.epoll, x.timer = -1, -1, -1, -1, -1
	defer func() {
		if err != nil {
			x.release()
		}
	}()
	if x.fd, err = bare(s.raw); err != nil {
		return err
	}
	x.out = x.fd
	if x.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	if x.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK); err != nil {
		return os.NewSyscallError("timerfd_create", err)
	}
	if err = unix.EpollCtl(x.epoll, unix.EPOLL_CTL_ADD, x.timer, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET}); err != nil {
		return os.NewSyscallError("epoll_ctl", err)
	}
	if err = unix.EpollCtl(x.epoll, unix.EPOLL_CTL_ADD, x.fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET}); err != nil {
		return os.NewSyscallError("epoll_ctl", err)
	}
	x.armed, x.awaits = true, true
	if err = unix.SetNonblock(x.epoll, true); err != nil { // os.NewFile asks
		return os.NewSyscallError("fcntl", err)
	}
	x.file = os.NewFile(uintptr(x.epoll), "epoll")
	if x.wait, err = x.file.SyscallConn(); err != nil {
		return err
	}
	_ = s.conn.Close()
	return nil
}

// bare gives a descriptor of the socket that Go's poller does not know of.
func bare(raw syscall.RawConn) (fd int, err error) {
	if e := raw.Control(func(of uintptr) { fd, err = unix.FcntlInt(of, unix.F_DUPFD_CLOEXEC, 0) }); e != nil || err != nil {
		return -1, cmp.Or(e, err)
	}
	return fd, nil
}

// release closes the descriptors.
func (x *socketSys) release() {
	x.once.Do(func() {
		if x.file != nil {
			_ = x.file.Close()
		} else if x.epoll >= 0 {
			_ = unix.Close(x.epoll)
		}
		if x.out != x.fd {
			_ = unix.Close(x.out)
		}
		for _, fd := range []int{x.fd, x.late, x.timer} {
			if fd >= 0 {
				_ = unix.Close(fd)
			}
		}
	})
}

// enter says that a system call with the descriptor follows; false if it is closed. leave must follow otherwise.
func (s *socket) enter() bool {
	if s.sys.users.Add(1)&shut == 0 {
		return true
	}
	s.leave()
	return false
}

func (s *socket) leave() {
	if s.sys.users.Add(-1) == shut {
		s.sys.release()
	}
}

// close ends receive; the descriptor is closed when nobody uses it any more.
func (s *socket) close() {
	if s.sys.users.Add(1)&shut != 0 {
		s.leave()
		return
	}
	s.sys.users.Add(shut)
	_ = s.sys.file.SetReadDeadline(time.Now()) // wakes receive
	s.leave()
}

// receive calls handle for every batch of packets until the socket is closed.
func (r *receiver) receive(s *socket, handle func()) {
	if !s.enter() {
		return
	}
	defer s.leave()
	x := &s.sys
	x.since = time.Now()
	call := func(uintptr) bool {
		for {
			if s.sys.users.Load()&shut != 0 {
				return true
			}
			n := r.read(x.fd)
			if n > 0 {
				handle()
			}
			if n == receiveBatch {
				x.packets += n
				continue
			}
			// The socket is empty.
			return !x.rest(n, x.catchUp(r, handle), s)
		}
	}
	_ = x.wait.Read(call) // ends with an error when the deadline is set
}

// catchUp reads what waits on the late socket.
func (x *socketSys) catchUp(r *receiver, handle func()) (all int) {
	for n := receiveBatch; x.late >= 0 && n == receiveBatch; all += n {
		if n = r.read(x.late); n > 0 {
			handle()
		}
	}
	return all
}

// rest prepares for waiting after n packets and late ones: for the clock while there is traffic, else for the next packet.
func (x *socketSys) rest(n, late int, s *socket) bool {
	x.packets += n + late
	now := time.Now()
	if d := now.Sub(x.since); d >= rateWindow {
		x.rate = (x.rate + float64(x.packets)/d.Seconds()) / 2
		x.packets, x.since = 0, now
	}
	x.quiet++
	if n+late > 0 {
		x.quiet = 0
	}
	if s.haste != nil {
		s.awake.give(now, s.haste.calm.Load())
	}
	if x.rate >= gatherRate && x.quiet < quietRounds && x.arm(false, false) && x.nap(min(gatherMost, time.Duration(gatherWish/x.rate*float64(time.Second)))) {
		return true
	}
	x.steady = n > 0 && (now.Sub(x.last) < lateMost || x.steady)
	if n > 0 {
		x.last = now
	}
	if x.late >= 0 && x.steady && s.haste.allows(now) && x.arm(true, false) && x.nap(lateMost) {
		return true
	}
	return x.arm(true, true)
}

// nap sets the timer.
func (x *socketSys) nap(d time.Duration) bool {
	return unix.TimerfdSettime(x.timer, 0, &unix.ItimerSpec{Value: unix.NsecToTimespec(int64(d))}, nil) == nil
}

// arm says whether a packet shall wake us, and whether one on the late socket shall. What has come already does so at once.
func (x *socketSys) arm(prompt, late bool) bool {
	return x.modify(x.fd, &x.armed, prompt) && (x.late < 0 || x.modify(x.late, &x.awaits, late))
}

func (x *socketSys) modify(fd int, is *bool, on bool) bool {
	if *is == on {
		return true
	}
	events := uint32(unix.EPOLLET)
	if on {
		events |= unix.EPOLLIN
	}
	if unix.EpollCtl(x.epoll, unix.EPOLL_CTL_MOD, fd, &unix.EpollEvent{Events: events}) != nil {
		return false
	}
	*is = on
	return true
}
