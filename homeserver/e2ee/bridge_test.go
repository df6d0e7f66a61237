// SPDX-License-Identifier: Apache-2.0

package e2ee_test

import (
	"context"
	"encoding/json"

	"github.com/trunkboard/trunkboard/homeserver/e2ee"
	"github.com/trunkboard/trunkboard/homeserver/storage"
)

// bridge reaches the service of another server directly, where federation would go over HTTP.
type bridge struct{ there *e2ee.Service }

func (b bridge) QueryKeys(ctx context.Context, _, _ string, users map[string][]string) (*e2ee.Keys, error) {
	return b.there.LocalKeys(ctx, users)
}

func (b bridge) ClaimKeys(ctx context.Context, _ string, claims map[string]map[string]string) (map[string]map[string]map[string]json.RawMessage, error) {
	got, err := b.there.Claim(ctx, claims)
	if err != nil {
		return nil, err
	}
	return got.OneTimeKeys, nil
}

func (b bridge) QueueToDevice(_ *storage.Tx, _, sender, typ, txn string, messages map[string]map[string]json.RawMessage) error {
	return b.there.Receive(context.Background(), sender, typ, txn, messages)
}
