// SPDX-License-Identifier: Apache-2.0

package livekit

import (
	"bufio"
	"net"
	"net/http"
)

// While somebody speaks and many listen, what wakes the server besides sounds are the clients' pings, some ten a second for fifty clients. A
// ping that is read and answered the usual way costs as much as a sound to twenty of them: each system call that may block wakes the
// runtime's monitor thread, deadlines are timers that wake the process when they are long void, and answers go through another goroutine.
// So a WebSocket's connection is a line: a net.Conn that asks the kernel directly and sets deadlines only where something has to wait.

// hijacker is a ResponseWriter whose connection becomes a line when it is taken over.
type hijacker struct{ http.ResponseWriter }

// Hijack implements http.Hijacker.
func (h hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	return newLine(c), rw, nil
}
