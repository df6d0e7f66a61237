// SPDX-License-Identifier: Apache-2.0

package calls

import (
	"context"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/storage"
)

// record is a call that has ended, on its way to the store.
type record struct {
	row   storage.CallRecord
	users []string // who find it in their history
	glare bool
	noted bool // in calls_in_progress
}

const (
	writeBatch = 128  // records in one write
	pruneBatch = 1000 // records deleted in one write
)

// write hands the oldest records to the store, unless some are on their way. Records stay in facts until they are durable.
func (s *Service) write(ctx context.Context) {
	if s.writing != nil || len(s.facts) == 0 {
		return
	}
	batch := s.facts[:min(len(s.facts), writeBatch)]
	for i := range batch {
		if batch[i].row.ID != 0 {
			continue
		}
		id, err := s.Store.NID(ctx)
		if err != nil {
			s.unwritten(err)
			return
		}
		batch[i].row.ID = id
	}
	added := make([]bool, len(batch))
	done := make(chan error, 1)
	err := s.Store.Enqueue(func(tx *storage.Tx) error {
		for i := range batch {
			r := &batch[i]
			var err error
			if added[i], err = tx.InsertCall(r.row, r.users); err != nil {
				return err
			}
			if r.noted {
				if err := tx.ForgetCallInProgress(r.row.RoomNID, r.row.CallID); err != nil {
					return err
				}
			}
		}
		return nil
	}, func(err error) { done <- err })
	if err != nil {
		s.unwritten(err)
		return
	}
	s.writing, s.inFlight, s.added = done, len(batch), added
}

// wrote is the end of a write.
func (s *Service) wrote(err error) {
	s.writing = nil
	if err != nil {
		s.unwritten(err)
		return
	}
	for i, r := range s.facts[:s.inFlight] {
		if s.added[i] {
			s.metrics.recorded(&r)
		}
	}
	if s.facts = s.facts[s.inFlight:]; len(s.facts) == 0 {
		s.facts = nil
	}
	s.nextRead = time.Time{}
}

func (s *Service) unwritten(err error) {
	s.Log.Error("records of calls could not be written; trying again", "records", len(s.facts), "err", err)
	s.nextTry = s.Clock.Now().Add(retryAfter)
}

// pruneOld deletes some records past their time.
func (s *Service) pruneOld(now time.Time) {
	before := now.AddDate(0, 0, -s.Config.RetentionDays).UnixMilli()
	var n int64
	err := s.Store.Enqueue(func(tx *storage.Tx) (err error) {
		n, err = tx.PruneCalls(before, pruneBatch)
		return err
	}, func(err error) {
		if err != nil {
			s.Log.Error("old records of calls could not be deleted", "err", err)
		} else if n == pruneBatch {
			s.unpruned.Store(true)
			s.nudge()
		}
	})
	if err != nil {
		s.Log.Error("old records of calls could not be deleted", "err", err)
	}
}
