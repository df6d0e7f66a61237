// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trunkboard/trunkboard/turn/relay"
)

// refusal is why a request was refused, for the metrics.
type refusal int

// Refusals. The names say the STUN error code where there is one.
const (
	refusedBadRequest refusal = iota
	refusedUnauthorized
	refusedForbidden
	refusedUnknownAttribute
	refusedMismatch
	refusedStaleNonce
	refusedFamily
	refusedWrongCredentials
	refusedTransport
	refusedPeerFamily
	refusedUserQuota
	refusedCapacity
	refusedMobility
	refusedConnectionExists
	refusedConnectionFailure
	refusedConnection
	refusedRate
	refusals
)

var refusalNames = [refusals]string{
	"400_bad_request", "401_unauthorized", "403_forbidden_peer", "420_unknown_attribute", "437_allocation_mismatch", "438_stale_nonce",
	"440_address_family", "441_wrong_credentials", "442_transport", "443_peer_family", "486_user_quota", "508_capacity",
	"405_mobility", "446_connection_exists", "447_connection_failure",
	"connection_limit", "rate_limit",
}

var refusalCodes = map[int]refusal{
	400: refusedBadRequest, 401: refusedUnauthorized, 403: refusedForbidden, 420: refusedUnknownAttribute, 437: refusedMismatch,
	438: refusedStaleNonce, 440: refusedFamily, 441: refusedWrongCredentials, 442: refusedTransport, 443: refusedPeerFamily,
	486: refusedUserQuota, 508: refusedCapacity,
	405: refusedMobility, 446: refusedConnectionExists, 447: refusedConnectionFailure,
}

// counts are what the control plane counts; the data plane has its own (relay.Counts).
type counts struct {
	allocated atomic.Uint64
	bindings  atomic.Uint64
	tokens    atomic.Uint64 // requests that came with a good token
	moved     atomic.Uint64 // allocations whose client came back from another address
	bound     atomic.Uint64 // connections joined with a peer's
	refusals  [refusals]atomic.Uint64
}

// Descriptions of the metrics.
var (
	descAllocations = prometheus.NewDesc("trunkboard_turn_allocations", "Live allocations.", nil, nil)
	descAllocated   = prometheus.NewDesc("trunkboard_turn_allocations_total", "Allocations made.", nil, nil)
	descConnections = prometheus.NewDesc("trunkboard_turn_connections", "Open TCP and TLS connections of clients.", nil, nil)
	descBindings    = prometheus.NewDesc("trunkboard_turn_bindings_total", "STUN Binding requests answered.", nil, nil)
	descPackets     = prometheus.NewDesc("trunkboard_turn_relayed_packets_total", "Packets relayed.", []string{"direction"}, nil)
	descBytes       = prometheus.NewDesc("trunkboard_turn_relayed_bytes_total", "Payload bytes relayed.", []string{"direction"}, nil)
	descDropped     = prometheus.NewDesc("trunkboard_turn_dropped_packets_total", "Packets not relayed.", []string{"reason"}, nil)
	desc401         = prometheus.NewDesc("trunkboard_turn_unauthorized_total", "Requests without valid credentials (401), the first one of every client included.", nil, nil)
	descRefused     = prometheus.NewDesc("trunkboard_turn_refusals_total", "Requests and connections refused.", []string{"reason"}, nil)
)

// The same under the names that coturn gives them, for dashboards that know those. coturn counts a session's packets when it has ended, here
// they are counted as they go.
var (
	aliasAllocations = prometheus.NewDesc("turn_total_allocations", "Live allocations (coturn's name).", []string{"type"}, nil)
	aliasCounters    = []alias{
		{"stun_binding_request", "STUN Binding requests", func(s *Server) uint64 { return s.counts.bindings.Load() }},
		{"stun_binding_response", "STUN Binding answers", func(s *Server) uint64 { return s.counts.bindings.Load() }},
		{"turn_unauthenticated_401_requests", "requests answered 401", func(s *Server) uint64 { return s.counts.refusals[refusedUnauthorized].Load() }},
		{"turn_unauthenticated_401_dropped_responses", "refusals not sent for want of rate", func(s *Server) uint64 { return s.counts.refusals[refusedRate].Load() }},
		{"turn_packet_processed", "packets relayed", func(s *Server) uint64 {
			return s.plane.Counts.ToPeer.Packets.Load() + s.plane.Counts.ToClient.Packets.Load()
		}},
		{"turn_packet_dropped", "packets not relayed", func(s *Server) (n uint64) {
			for i := range s.plane.Counts.Dropped {
				n += s.plane.Counts.Dropped[i].Load()
			}
			return n
		}},
		{"turn_total_traffic_rcvp", "packets from clients", func(s *Server) uint64 { return s.plane.Counts.ToPeer.Packets.Load() }},
		{"turn_total_traffic_rcvb", "bytes from clients", func(s *Server) uint64 { return s.plane.Counts.ToPeer.Bytes.Load() }},
		{"turn_total_traffic_sentp", "packets to clients", func(s *Server) uint64 { return s.plane.Counts.ToClient.Packets.Load() }},
		{"turn_total_traffic_sentb", "bytes to clients", func(s *Server) uint64 { return s.plane.Counts.ToClient.Bytes.Load() }},
		{"turn_total_traffic_peer_rcvp", "packets from peers", func(s *Server) uint64 { return s.plane.Counts.ToClient.Packets.Load() }},
		{"turn_total_traffic_peer_rcvb", "bytes from peers", func(s *Server) uint64 { return s.plane.Counts.ToClient.Bytes.Load() }},
		{"turn_total_traffic_peer_sentp", "packets to peers", func(s *Server) uint64 { return s.plane.Counts.ToPeer.Packets.Load() }},
		{"turn_total_traffic_peer_sentb", "bytes to peers", func(s *Server) uint64 { return s.plane.Counts.ToPeer.Bytes.Load() }},
	}
)

// alias is a counter under coturn's name.
type alias struct {
	name, help string
	read       func(*Server) uint64
}

func (a alias) desc() *prometheus.Desc {
	return prometheus.NewDesc(a.name, "Relay: "+a.help+" (coturn's name).", nil, nil)
}

// socketTypes are the values of coturn's label type.
var socketTypes = map[string]string{"udp": "UDP", "tcp": "TCP", "tls": "TLS/TCP", "dtls": "DTLS"}

// collector reads the counters when Prometheus asks; counting itself is one atomic addition for each run of packets.
type collector struct{ s *Server }

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descAllocations, descAllocated, descConnections, descBindings, descPackets, descBytes, descDropped, desc401, descRefused, aliasAllocations} {
		out <- d
	}
	for _, a := range aliasCounters {
		out <- a.desc()
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	s := c.s
	out <- prometheus.MustNewConstMetric(descAllocations, prometheus.GaugeValue, float64(s.AllocationCount()))
	out <- prometheus.MustNewConstMetric(descConnections, prometheus.GaugeValue, float64(s.gate.Open()))
	counter(descAllocated, s.counts.allocated.Load())
	counter(descBindings, s.counts.bindings.Load())
	p := &s.plane.Counts
	counter(descPackets, p.ToPeer.Packets.Load(), "to_peer")
	counter(descPackets, p.ToClient.Packets.Load(), "to_client")
	counter(descBytes, p.ToPeer.Bytes.Load(), "to_peer")
	counter(descBytes, p.ToClient.Bytes.Load(), "to_client")
	for i, name := range relay.Drops {
		counter(descDropped, p.Dropped[i].Load(), name)
	}
	counter(desc401, s.counts.refusals[refusedUnauthorized].Load())
	for i, name := range refusalNames {
		counter(descRefused, s.counts.refusals[i].Load(), name)
	}
	for _, a := range aliasCounters {
		counter(a.desc(), a.read(s))
	}
	live := make(map[string]int)
	for _, x := range s.Sessions() {
		live[x.Transport]++
	}
	for transport, label := range socketTypes {
		out <- prometheus.MustNewConstMetric(aliasAllocations, prometheus.GaugeValue, float64(live[transport]), label)
	}
}
