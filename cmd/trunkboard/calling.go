// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trunkboard/trunkboard/sfu"
	"github.com/trunkboard/trunkboard/sfu/transport"
)

// roomsTold bounds the series by room: the largest rooms are told, for a label's values must not grow without end.
const roomsTold = 100

// calling gives the SFU's metrics. They are counted when they are asked for; a packet costs nothing.
type calling struct {
	engine    *sfu.Engine
	transport *transport.Transport
}

var (
	callingRooms         = prometheus.NewDesc("trunkboard_sfu_rooms", "Rooms that exist.", nil, nil)
	callingParticipants  = prometheus.NewDesc("trunkboard_sfu_participants", "Participants in rooms.", nil, nil)
	callingTracks        = prometheus.NewDesc("trunkboard_sfu_tracks", "Tracks that are published.", nil, nil)
	callingSubscriptions = prometheus.NewDesc("trunkboard_sfu_subscriptions", "Tracks on their way to participants.", nil, nil)
	callingLimited       = prometheus.NewDesc("trunkboard_sfu_limited_participants", "Participants whose path does not carry all they ask for.", nil, nil)
	callingSessions      = prometheus.NewDesc("trunkboard_sfu_sessions", "Peer connections.", nil, nil)
	callingPackets       = prometheus.NewDesc("trunkboard_sfu_rtp_packets_total", "RTP packets received from publishers (in), sent to subscribers (out), and sent to them again (again).", []string{"direction"}, nil)
	callingBytes         = prometheus.NewDesc("trunkboard_sfu_rtp_bytes_total", "Bytes of RTP received (in, packets) and sent (out, payload).", []string{"direction"}, nil)
	callingRoom          = prometheus.NewDesc("trunkboard_sfu_room_participants", "Participants of the largest rooms, at most 100.", []string{"room"}, nil)
	callingRoomTracks    = prometheus.NewDesc("trunkboard_sfu_room_tracks", "Published tracks of the largest rooms, at most 100.", []string{"room"}, nil)
)

// Describe implements prometheus.Collector.
func (c calling) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{callingRooms, callingParticipants, callingTracks, callingSubscriptions, callingLimited, callingSessions, callingPackets, callingBytes, callingRoom, callingRoomTracks} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c calling) Collect(to chan<- prometheus.Metric) {
	t := c.engine.Totals()
	gauge := func(d *prometheus.Desc, n int, labels ...string) {
		if m, err := prometheus.NewConstMetric(d, prometheus.GaugeValue, float64(n), labels...); err == nil { // a room's name may be no label
			to <- m
		}
	}
	count := func(d *prometheus.Desc, n uint64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	gauge(callingRooms, t.Rooms)
	gauge(callingParticipants, t.Participants)
	gauge(callingTracks, t.Tracks)
	gauge(callingSubscriptions, t.Subscriptions)
	gauge(callingLimited, t.Limited)
	gauge(callingSessions, c.transport.Sessions())
	count(callingPackets, t.PacketsIn, "in")
	count(callingPackets, t.PacketsOut, "out")
	count(callingPackets, t.PacketsAgain, "again")
	count(callingBytes, t.BytesIn, "in")
	count(callingBytes, t.BytesOut, "out")
	slices.SortFunc(t.ByRoom, func(a, b sfu.RoomTotals) int {
		return cmp.Or(b.Participants-a.Participants, cmp.Compare(a.Name, b.Name))
	})
	for _, r := range t.ByRoom[:min(len(t.ByRoom), roomsTold)] {
		gauge(callingRoom, r.Participants, r.Name)
		gauge(callingRoomTracks, r.Tracks, r.Name)
	}
}
