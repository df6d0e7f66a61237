// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// How a loop waits. Waking up costs more than a packet does: a thread that sleeps for every packet of a busy relay spends most of its
// time waking. Above coalesceRate it therefore lets packets gather before it looks, for gather since it looked last. What that adds to
// a packet's way is half of gather on average, a hundredth of what the network takes. Waiting never keeps a processor from others: it is done through
// system calls that the scheduler knows of, which leave ours alone while another one is idle, and where Go has one only, through its poller (tick).
const (
	coalesceRate = 4000 // packets a second
	gather       = 400 * time.Microsecond
	window       = 4 * time.Millisecond // over which the rate is measured
	quietRounds  = 6                    // looks that found nothing until a loop sleeps for as long as nothing comes
)

// maxEvents is how many sockets one look reports; maxBatches how many batches one socket may bring before the others have their turn.
const (
	maxEvents  = 128
	maxBatches = 4
)

// loops are the goroutines that serve the sockets of a plane, one for each processor.
type loops struct {
	all  []*loop
	next atomic.Uint32
	wg   sync.WaitGroup
}

// loop serves sockets: it waits until some can be read, reads batches, and hands them over, all in one goroutine.
type loop struct {
	epoll, event int // event is the eventfd that wakes the loop
	b            *Batch
	events       [maxEvents]unix.EpollEvent
	sockets      []*batched // by slot; nil where free
	vacant       []int
	again, more  []*batched // not drained yet; and the same of the round before, being drained

	// The measure of the traffic, for choosing how to wait.
	packets int
	since   time.Time
	rate    float64
	last    time.Time
	quiet   int
	nap     unix.Timespec
	tick    *tick // nil: naps are system calls

	mu       sync.Mutex
	inbox    []*batched // to begin with, or to end
	stopping bool
	posted   atomic.Bool
}

const wakeSlot = -1

// Workers is how many sockets should share a UDP port that clients send to: one for each loop.
func Workers(e Engine) int {
	if e == Linux {
		return runtime.GOMAXPROCS(0)
	}
	return 1
}

func (l *loops) start(n int) error {
	for range n {
		x := &loop{b: newBatch(batchSize)}
		var err error
		if x.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
			l.stop()
			return os.NewSyscallError("epoll_create1", err)
		}
		if x.event, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err == nil {
			err = unix.EpollCtl(x.epoll, unix.EPOLL_CTL_ADD, x.event, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: wakeSlot})
		}
		if err != nil {
			_ = unix.Close(x.epoll)
			l.stop()
			return os.NewSyscallError("eventfd", err)
		}
		if n == 1 {
			x.tick = newTick() // nil: then as with several
		}
		l.all = append(l.all, x)
		l.wg.Go(x.run)
	}
	return nil
}

func (l *loops) stop() {
	for _, x := range l.all {
		x.mu.Lock()
		x.stopping = true
		x.mu.Unlock()
		x.wake()
	}
	l.wg.Wait()
	for _, x := range l.all {
		_ = unix.Close(x.epoll)
		_ = unix.Close(x.event)
		x.tick.close()
	}
	l.all = nil
}

// pick chooses the loop for a socket: that of near if there is one, else each in its turn.
func (l *loops) pick(near Socket) *loop {
	if n, ok := near.(*batched); ok {
		if x := n.served(); x != nil {
			return x
		}
	}
	return l.all[int(l.next.Add(1))%len(l.all)]
}

// post tells the loop of a socket that begins or has ended.
func (x *loop) post(s *batched) {
	x.mu.Lock()
	x.inbox = append(x.inbox, s)
	x.mu.Unlock()
	x.wake()
}

// wake makes the loop look into its inbox.
func (x *loop) wake() {
	if !x.posted.Swap(true) {
		one := [8]byte{0: 1}
		_, _ = unix.Write(x.event, one[:]) // fails only if it would overflow, and then the loop wakes anyway
	}
}

// run serves until the loop is stopped.
func (x *loop) run() {
	x.since = time.Now()
	x.last = x.since
	x.nap = unix.NsecToTimespec(int64(gather))
	for {
		if x.posted.Load() && x.tidy() {
			return
		}
		n := x.wait()
		for _, e := range x.events[:n] {
			if e.Fd == wakeSlot {
				var drain [8]byte
				_, _ = unix.Read(x.event, drain[:])
				continue
			}
			if s := x.sockets[e.Fd]; s != nil {
				if e.Events&unix.EPOLLERR != 0 && s.heard != nil {
					s.readErrors()
				}
				x.drain(s)
			}
		}
		if len(x.again) > 0 {
			x.again, x.more = x.more[:0], x.again
			for _, s := range x.more {
				x.drain(s)
			}
		}
	}
}

// tidy takes in new sockets and lets closed ones go. It tells whether the loop shall end.
func (x *loop) tidy() (end bool) {
	x.mu.Lock()
	x.posted.Store(false)
	inbox := x.inbox
	x.inbox = nil
	end = x.stopping
	x.mu.Unlock()
	for _, s := range inbox {
		switch {
		case s.slot == gone: // closed before it was added
		case s.closed.Load():
			x.remove(s)
		case s.slot == coming:
			x.add(s)
		}
	}
	return end
}

func (x *loop) add(s *batched) {
	if n := len(x.vacant); n > 0 {
		s.slot = x.vacant[n-1]
		x.vacant = x.vacant[:n-1]
		x.sockets[s.slot] = s
	} else {
		s.slot = len(x.sockets)
		x.sockets = append(x.sockets, s)
	}
	// It can fail for want of memory only; then the socket is deaf, as one with a full buffer is, until it is closed.
	_ = unix.EpollCtl(x.epoll, unix.EPOLL_CTL_ADD, s.fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(s.slot)})
}

func (x *loop) remove(s *batched) {
	if s.slot >= 0 {
		_ = unix.EpollCtl(x.epoll, unix.EPOLL_CTL_DEL, s.fd, nil)
		x.sockets[s.slot] = nil
		x.vacant = append(x.vacant, s.slot)
	}
	s.slot = gone
	s.done()
}

// drain reads what the socket has, so much in one go that it cannot keep the others waiting. A batch that is not full has emptied
// the queue; what comes afterwards is a new edge.
func (x *loop) drain(s *batched) {
	for range maxBatches {
		if s.closed.Load() {
			return
		}
		e := x.b.sys.receive(x.b, s.fd)
		if e == unix.EAGAIN {
			return
		}
		if e != 0 { // a signal, or an ICMP error of an earlier packet: read on
			continue
		}
		n := x.b.n
		x.packets += n
		s.handle(x.b)
		if n < batchSize {
			return
		}
	}
	x.again = append(x.again, s)
}

// wait waits until sockets can be read, in the way that suits the traffic, and reports how many there are.
func (x *loop) wait() int {
	if len(x.again) > 0 {
		return x.look(0)
	}
	now := time.Now()
	if d := now.Sub(x.since); d >= window {
		x.rate = float64(x.packets) / d.Seconds()
		x.packets, x.since = 0, now
	}
	millis := -1
	if x.rate >= coalesceRate && x.quiet < quietRounds {
		if spent := now.Sub(x.last); spent < gather {
			x.rest(gather - spent)
			now = now.Add(gather - spent)
		}
		x.last = now
		millis = 0
		x.quiet++
	} else {
		x.tick.every(0)
	}
	n := x.look(millis)
	if n > 0 || millis < 0 {
		x.quiet = 0
	}
	return n
}

// rest lets packets gather.
func (x *loop) rest(d time.Duration) {
	if x.tick.every(gather) {
		x.tick.wait()
		return
	}
	x.nap.Nsec = int64(d)
	_ = unix.Nanosleep(&x.nap, nil) // a signal may end it early, and why not
}

// look asks which sockets can be read: it waits until there is one, or not at all. The latter is a raw call, of which the scheduler
// need not hear.
func (x *loop) look(millis int) int {
	if millis < 0 {
		n, err := unix.EpollWait(x.epoll, x.events[:], -1)
		if err != nil {
			return 0 // a signal
		}
		return n
	}
	n, _, e := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(x.epoll), uintptr(unsafe.Pointer(&x.events[0])), maxEvents, 0, 0, 0)
	if e != 0 {
		return 0
	}
	return int(n)
}
