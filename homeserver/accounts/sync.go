// SPDX-License-Identifier: Apache-2.0

package accounts

import (
	"context"

	"github.com/trunkboard/trunkboard/homeserver/syncapi"
)

// syncData is account data as sync reads it.
type syncData struct{ s *Service }

// ForSync gives the account data to sync.
func (s *Service) ForSync() syncapi.AccountData { return syncData{s} }

// AccountData gives what changed with from < position <= to.
func (d syncData) AccountData(ctx context.Context, userID string, from, to int64) ([]syncapi.AccountEvent, error) {
	rows, err := d.s.store.AccountDataSince(ctx, userID, from, to)
	out := make([]syncapi.AccountEvent, len(rows))
	for i, r := range rows {
		out[i] = syncapi.AccountEvent{Room: r.RoomID, Type: r.Type, Content: r.Content}
	}
	return out, err
}
