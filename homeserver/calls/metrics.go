// SPDX-License-Identifier: Apache-2.0

package calls

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/trunkboard/trunkboard/signalling/callflow"
)

// meters are the metrics of calls. Those of ended calls are counted when the record is written, by the node that wrote it: once,
// also across restarts. The gauges say what this node knows of; all nodes that share a store know of the same calls.
type meters struct {
	ended     map[[2]string]prometheus.Counter // by outcome and kind
	setup     prometheus.Histogram
	glare     prometheus.Counter
	overflows prometheus.Counter
	resyncs   prometheus.Counter
}

func newMeters(to prometheus.Registerer, t *callflow.Tracker) *meters {
	total := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "trunkboard_calls_total", Help: "1:1 calls that have ended, by outcome and kind; calls in encrypted rooms cannot be seen.",
	}, []string{"outcome", "kind"})
	m := &meters{
		ended: map[[2]string]prometheus.Counter{},
		setup: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "trunkboard_calls_setup_seconds", Help: "From the invite to the first answer of a 1:1 call; mostly the time until somebody takes it.",
			Buckets: []float64{.25, .5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 45, 60, 90},
		}),
		glare:     prometheus.NewCounter(prometheus.CounterOpts{Name: "trunkboard_calls_glare_total", Help: "Pairs of 1:1 calls whose invites crossed."}),
		overflows: prometheus.NewCounter(prometheus.CounterOpts{Name: "trunkboard_calls_queue_full_total", Help: "Times that the queue of call events was full; they are then read from the store."}),
		resyncs:   prometheus.NewCounter(prometheus.CounterOpts{Name: "trunkboard_calls_resyncs_total", Help: "Times that call events were read from the store: after a full queue, or because another node wrote."}),
	}
	for _, o := range []callflow.Outcome{callflow.OutcomeAnswered, callflow.OutcomeMissed, callflow.OutcomeDeclined, callflow.OutcomeBusy, callflow.OutcomeFailed, callflow.OutcomeCancelled} {
		for _, k := range []callflow.Media{callflow.Audio, callflow.Video} {
			m.ended[[2]string{string(o), string(k)}] = total.WithLabelValues(string(o), string(k))
		}
	}
	if to == nil {
		return m
	}
	to.MustRegister(total, m.setup, m.glare, m.overflows, m.resyncs,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "trunkboard_calls_ringing", Help: "1:1 calls that ring."}, func() float64 { return float64(t.Stats().Ringing) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "trunkboard_calls_active", Help: "1:1 calls that were answered and go on."}, func() float64 { return float64(t.Stats().Answered) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "trunkboard_calls_untracked_total", Help: "Invites that were not followed, because a bound of calls in progress was met."}, func() float64 { return float64(t.Stats().Refused) }),
	)
	return m
}

func (m *meters) recorded(r *record) {
	if c := m.ended[[2]string{r.row.Outcome, r.row.Kind}]; c != nil {
		c.Inc()
	}
	if r.row.Answered > 0 {
		m.setup.Observe(float64(r.row.Answered-r.row.Started) / 1000)
	}
	if r.glare {
		m.glare.Inc()
	}
}
