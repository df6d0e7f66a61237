// SPDX-License-Identifier: Apache-2.0

package syncapi

import (
	"crypto/rand"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/trunkboard/trunkboard/homeserver/syncapi/filter"
	"github.com/trunkboard/trunkboard/signalling"
)

// Bounds of what is remembered for sliding sync. Beyond them the connection that was quiet for longest is forgotten; its client is
// told M_UNKNOWN_POS and starts anew.
const (
	maxConnections     = 20_000
	maxDeviceConns     = 16        // of one device
	maxRemembered      = 1_000_000 // rooms, over all connections
	maxMembersPerRoom  = 1000      // memberships of a room that a connection is known to have; beyond, they are told again
	placeMark          = "-"
	connectionIDLength = 255
)

// live says that everything of a kind that happened in a room was told, up to where the connection stands.
const live = math.MaxInt64

// sent is what a connection was told of a room. It never changes: an answer puts another in its place.
//
// The four positions say how far: 0 for nothing ever, live, or where the room was left behind because it was out of the window.
type sent struct {
	membership                        string
	told                              int64 // the reader's member event
	events, receipts, account, typing int64
	cfg                               *roomConfig
	limit                             int // as many of the newest events the client has without a gap
	members                           map[string]int64
	bump                              int64
	notify, highlight                 int64
	joined, invited                   int
	dm                                bool
}

// connection is one sync loop of a client ("Connections" of MSC4186).
//
// The state belongs to answer n, which the client is known to have: it has asked on from there. What answer n+1 changes waits in
// next, because the client may not have received it and ask from n again.
type connection struct {
	serial string
	gone   chan struct{} // closed when another request takes over

	mu      sync.Mutex
	n       int64
	at      Token
	rooms   map[string]*sent
	devices int64 // device lists were told up to here; 0: never
	account int64 // global account data was told up to here; 0: never
	threads int64 // thread subscriptions were told up to here; 0: never
	sticky  stuck
	next    *step
	own     *personal
	order   []string // the user's rooms as they were sorted last
	width   int      // how many were in the window
}

// step is what an answer changes.
type step struct {
	at                        Token
	rooms                     map[string]*sent
	devices, account, threads int64
	sticky                    stuck
}

func (c *connection) take(st *step) {
	for id, r := range st.rooms {
		c.rooms[id] = r
	}
	c.at, c.devices, c.account, c.threads, c.sticky = st.at, st.devices, st.account, st.threads, st.sticky
}

// pos names answer n of the connection.
func (c *connection) pos(n int64, at Token) string {
	b := at.append(nil)
	b = append(append(append(b, placeMark...), c.serial...), placeMark...)
	return string(strconv.AppendInt(b, n, 10))
}

// parsePos reads what pos wrote.
func parsePos(s string) (serial string, n int64, ok bool) {
	_, rest, ok := strings.Cut(s, placeMark)
	if !ok || len(s) > 128 {
		return "", 0, false
	}
	serial, num, ok := strings.Cut(rest, placeMark)
	if !ok {
		return "", 0, false
	}
	n, err := strconv.ParseInt(num, 10, 64)
	return serial, n, err == nil && n > 0
}

// errUnknownPos tells the client to start a new connection.
func errUnknownPos() error {
	return signalling.Refuse(http.StatusBadRequest, "M_UNKNOWN_POS", "this position is not known any more; begin again without one")
}

// errTakenOver answers a request that waits while its client has sent another one on the same connection.
func errTakenOver() error {
	return signalling.Refuse(http.StatusConflict, "M_UNKNOWN", "another request on this connection has taken the place of this one")
}

type deviceKey struct{ user, device string }

type connKey struct {
	deviceKey
	conn string
}

// connections are all the connections of this node.
type connections struct {
	filter *filter.Filter

	mu       sync.Mutex
	all      *simplelru.LRU[connKey, *connection]
	byDevice map[deviceKey]map[string]struct{}
	rooms    int
	sizes    map[connKey]int
}

func newConnections() *connections {
	x := &connections{filter: slidingFilter(), byDevice: map[deviceKey]map[string]struct{}{}, sizes: map[connKey]int{}}
	x.all, _ = simplelru.NewLRU(maxConnections, func(k connKey, c *connection) {
		close(c.gone)
		x.rooms -= x.sizes[k]
		delete(x.sizes, k)
		of := x.byDevice[k.deviceKey]
		if delete(of, k.conn); len(of) == 0 {
			delete(x.byDevice, k.deviceKey)
		}
	})
	return x
}

// open finds the connection of a request, or makes it when the request has no pos. gone is closed when another request takes over.
// The connection is locked. Errors: M_UNKNOWN_POS.
func (x *connections) open(q *SlidingRequest) (c *connection, gone chan struct{}, err error) {
	key := connKey{deviceKey{q.User, q.Device}, q.Conn}
	if q.Pos == "" {
		c = &connection{serial: rand.Text()[:10], gone: make(chan struct{}), rooms: map[string]*sent{}}
		x.mu.Lock()
		x.all.Remove(key)
		of := x.byDevice[key.deviceKey]
		if len(of) >= maxDeviceConns {
			x.dropOldest(key.deviceKey, of)
		}
		x.all.Add(key, c)
		if of = x.byDevice[key.deviceKey]; of == nil {
			of = map[string]struct{}{}
			x.byDevice[key.deviceKey] = of
		}
		of[key.conn] = struct{}{}
		gone = c.gone
		x.mu.Unlock()
		c.mu.Lock()
		return c, gone, nil
	}
	serial, n, ok := parsePos(q.Pos)
	if !ok {
		return nil, nil, errUnknownPos()
	}
	x.mu.Lock()
	c, ok = x.all.Get(key)
	if !ok || c.serial != serial {
		x.mu.Unlock()
		return nil, nil, errUnknownPos()
	}
	close(c.gone)
	gone = make(chan struct{})
	c.gone = gone
	x.mu.Unlock()
	c.mu.Lock()
	switch {
	case n == c.n:
		c.next = nil // the client did not get the answer to its last request
	case n == c.n+1 && c.next != nil:
		c.take(c.next)
		c.n, c.next = n, nil
		size := len(c.rooms)
		x.resized(key, c, size)
	default:
		c.mu.Unlock()
		return nil, nil, errUnknownPos()
	}
	return c, gone, nil
}

// overtaken is the error for a request on c that may not go on: another request goes on with c, or c is forgotten.
func (x *connections) overtaken(q *SlidingRequest, c *connection) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if cur, ok := x.all.Peek(connKey{deviceKey{q.User, q.Device}, q.Conn}); ok && cur == c {
		return errTakenOver()
	}
	return errUnknownPos()
}

// dropOldest makes room for one more connection of a device. The lock is held.
func (x *connections) dropOldest(d deviceKey, of map[string]struct{}) {
	for _, k := range x.all.Keys() { // oldest first
		if _, ok := of[k.conn]; ok && k.deviceKey == d {
			x.all.Remove(k)
			return
		}
	}
}

// resized counts the rooms of a connection, and forgets the oldest ones of others when there are too many.
func (x *connections) resized(key connKey, c *connection, size int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if cur, ok := x.all.Peek(key); !ok || cur != c {
		return
	}
	x.rooms += size - x.sizes[key]
	x.sizes[key] = size
	for x.rooms > maxRemembered && x.all.Len() > 1 {
		x.all.RemoveOldest()
	}
}
