// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"github.com/trunkboard/trunkboard/homeserver/push"
	"github.com/trunkboard/trunkboard/homeserver/push/deliver"
	"github.com/trunkboard/trunkboard/homeserver/push/gateway"
	"github.com/trunkboard/trunkboard/homeserver/syncapi"
)

// withPushRules shows push rules to sync, as the piece of account data that clients take them for.
type withPushRules struct {
	others syncapi.AccountData
	rules  *push.Service
}

// AccountData gives a user's account data that changed with from < position <= to, push rules included.
func (w withPushRules) AccountData(ctx context.Context, user string, from, to int64) ([]syncapi.AccountEvent, error) {
	events, err := w.others.AccountData(ctx, user, from, to)
	if err != nil {
		return nil, err
	}
	rules, err := w.rules.RulesSince(ctx, user, from, to)
	if err == nil && rules != nil {
		events = append(events, syncapi.AccountEvent{Type: "m.push_rules", Content: rules})
	}
	return events, err
}

// openPushes delivers pushes to the gateways of applications.
func (a *App) openPushes(d deliver.Deps) *deliver.Service {
	d.Gateways, d.Log, d.Metrics = gateway.New(a.cfg.Push.GatewayAllow), a.log.With("part", "push"), a.meters.registry
	d.Rules.UseGateways(d.Gateways)
	s := deliver.New(d)
	a.running = append(a.running, component{name: "push gateways", run: s.Run})
	return s
}
