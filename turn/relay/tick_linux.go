// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// tick is a timer that a goroutine waits for in the runtime's own poller. Where Go has one processor only, a nap that is a system call makes the
// scheduler's watchman hand the processor to another thread and take it back, every time: a sixth of what such a relay costs. A goroutine that
// is parked here gives the processor up without any of that, and whoever else has something to do is heard. No call below tells the scheduler of
// a system call, for that alone wakes the watchman. A nil tick cannot be started.
type tick struct {
	file    *os.File
	raw     syscall.RawConn
	read    func(fd uintptr) bool
	running bool
}

// newTick makes a timer; nil: there is none to be had.
func newTick() *tick {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil
	}
	t := &tick{file: os.NewFile(uintptr(fd), "timerfd")}
	if t.raw, err = t.file.SyscallConn(); err != nil {
		_ = t.file.Close()
		return nil
	}
	var times [8]byte
	t.read = func(fd uintptr) bool {
		_, _, e := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&times)), uintptr(len(times)))
		return e != unix.EAGAIN
	}
	return t
}

// every makes the timer tick with this period, or not at all (0). It tells whether it ticks.
func (t *tick) every(d time.Duration) bool {
	if t == nil || t.running == (d > 0) {
		return t != nil && t.running
	}
	spec := unix.ItimerSpec{Interval: unix.NsecToTimespec(int64(d)), Value: unix.NsecToTimespec(int64(d))}
	var set error
	if err := t.raw.Control(func(fd uintptr) { set = unix.TimerfdSettime(int(fd), 0, &spec, nil) }); err == nil && set == nil {
		t.running = d > 0
	}
	return t.running
}

// wait waits for the next tick, or returns at once if one has gone by.
func (t *tick) wait() { _ = t.raw.Read(t.read) } // fails only when it is closed, and the loop closes it

func (t *tick) close() {
	if t != nil {
		_ = t.file.Close()
	}
}
