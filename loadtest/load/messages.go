// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trunkboard/trunkboard/loadtest/figures"
	"github.com/trunkboard/trunkboard/loadtest/matrix"
)

// Messages is a load of m.room.message events that every member of a room gets by a sync of his own.
type Messages struct {
	Config
	Rooms   int
	Members int // of each room
	Senders int // at work at once; each takes the next room and member in turn
}

// sent is an event on its way.
type sent struct {
	due  time.Time
	left atomic.Int64 // members who have not seen it
}

// Run makes the accounts and rooms, then sends. An event counts when all members have seen it, and the time runs until the last
// one has.
func (m Messages) Run(ctx context.Context, s *matrix.Server) (Result, error) {
	users := make([]*matrix.User, m.Rooms*m.Members)
	if err := each(len(users), func(i int) (err error) {
		users[i], err = s.Register(ctx, "member"+strconv.Itoa(i))
		return err
	}); err != nil {
		return Result{}, fmt.Errorf("preparing: %w", err)
	}
	rooms := make([]string, m.Rooms)
	if err := each(m.Rooms, func(i int) (err error) {
		us := users[i*m.Members : (i+1)*m.Members]
		rooms[i], err = us[0].CreateRoom(ctx, us[1:]...)
		return err
	}); err != nil {
		return Result{}, fmt.Errorf("preparing: %w", err)
	}
	var bad faults
	var sends, deliveries, whole figures.Series
	var under sync.Map // number -> *sent
	var last atomic.Int64
	var open atomic.Int64
	stop := follow(ctx, users, &bad, func(_ int, mark string, at time.Time) {
		v, ok := under.Load(mark)
		if !ok {
			return
		}
		e := v.(*sent)
		deliveries.Add(at.Sub(e.due))
		if e.left.Add(-1) == 0 {
			whole.Add(at.Sub(e.due))
			last.Store(at.UnixNano())
			under.Delete(mark)
			open.Add(-1)
		}
	})
	used := startUsage(m.PIDs, os.Getpid())
	started := time.Now()
	var next atomic.Int64
	offer(ctx, m.Duration, m.Rate, m.Senders, func(_ int, due time.Time) {
		n := int(next.Add(1)) - 1
		room := n % m.Rooms
		u := users[room*m.Members+n/m.Rooms%m.Members]
		e := &sent{due: due}
		e.left.Store(int64(m.Members))
		name := strconv.Itoa(n)
		under.Store(name, e)
		open.Add(1)
		at := time.Now()
		if _, err := u.Send(ctx, rooms[room], "m.room.message", u.Txn(), []byte(`{"msgtype":"m.text","body":"`+matrix.Mark(name)+` a message of the usual length, as people write them all day"}`)); err != nil {
			bad.add("a message was refused")
			under.Delete(name)
			open.Add(-1)
			return
		}
		sends.Add(time.Since(at))
	})
	for end := time.Now().Add(patience); open.Load() > 0 && time.Now().Before(end) && ctx.Err() == nil; {
		time.Sleep(5 * time.Millisecond)
	}
	r := Result{Done: whole.Len(), Elapsed: time.Duration(last.Load() - started.UnixNano()), Notes: []string{used.note("event", whole.Len())}}
	stop()
	for range open.Load() {
		bad.add("an event did not reach all members")
	}
	load := fmt.Sprintf("%d x %d members, %s", m.Rooms, m.Members, m.text())
	r.Rows = figures.Row("messages", m.Label, load, "send", sends.Len(), r.Elapsed, &sends) +
		figures.Row("messages", m.Label, load, "send -> a member", deliveries.Len(), r.Elapsed, &deliveries) +
		figures.Row("messages", m.Label, load, "send -> all members", whole.Len(), r.Elapsed, &whole)
	r.Errors = bad.all()
	return r, nil
}
