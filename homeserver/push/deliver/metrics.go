// SPDX-License-Identifier: Apache-2.0

package deliver

import "github.com/prometheus/client_golang/prometheus"

// meters count what became of notifications.
type meters struct{ results map[string]prometheus.Counter }

func newMeters(r prometheus.Registerer) *meters {
	all := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "trunkboard_push_notifications_total",
		Help: "Notifications for push gateways, by what became of them: delivered, rejected (the pushkey is gone), refused (for good), failed (tried again) or dropped (read, over or too old).",
	}, []string{"result"})
	if r != nil {
		r.MustRegister(all)
	}
	m := &meters{results: map[string]prometheus.Counter{}}
	for _, name := range []string{"delivered", "rejected", "refused", "failed", "dropped"} {
		m.results[name] = all.WithLabelValues(name)
	}
	return m
}

func (m *meters) done(result string) { m.results[result].Inc() }
