// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/trunkboard/trunkboard/configs"
)

// newLogger writes to w as the configuration says.
func newLogger(c configs.Log, w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		return nil, err
	}
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return slog.New(slog.NewTextHandler(w, options)), nil
}

// meters are the App's own metrics, on a registry that no other App shares.
type meters struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
}

func newMeters() *meters {
	m := &meters{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "trunkboard_http_requests_total",
			Help: "HTTP requests answered, by the part that answered (api, web, health) and status code.",
		}, []string{"part", "code"}),
	}
	version, commit, goVersion := build()
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "trunkboard_build_info", Help: "Always 1; the labels say what this binary was made from.",
		ConstLabels: prometheus.Labels{"version": version, "commit": commit, "go": goVersion},
	})
	info.Set(1)
	m.registry.MustRegister(m.requests, info, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}
