// SPDX-License-Identifier: Apache-2.0

package sender

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"

	"github.com/trunkboard/trunkboard/homeserver/federation"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// transaction is the body of PUT /send.
type transaction struct {
	Origin string            `json:"origin"`
	TS     int64             `json:"origin_server_ts"`
	PDUs   []json.RawMessage `json:"pdus"`
	EDUs   []json.RawMessage `json:"edus,omitempty"`
}

// compose makes a transaction of rows, in their order.
func (l *lane) compose(ctx context.Context, rows []storage.Queued) (t *transaction, lost int, err error) {
	t = &transaction{Origin: l.s.Server, TS: l.s.Clock.Now().UnixMilli(), PDUs: []json.RawMessage{}}
	var nids []int64
	for _, q := range rows {
		if q.EventNID != 0 {
			nids = append(nids, q.EventNID)
		}
	}
	events := map[int64]json.RawMessage{}
	if len(nids) > 0 {
		list, err := l.s.Store.EventsByNID(ctx, nids)
		if err != nil {
			return nil, 0, err
		}
		for _, e := range list {
			events[e.NID] = e.JSON
		}
	}
	for _, q := range rows {
		if q.EventNID == 0 {
			t.EDUs = append(t.EDUs, q.Payload)
		} else if raw, ok := events[q.EventNID]; ok {
			t.PDUs = append(t.PDUs, raw)
		} else {
			lost++
		}
	}
	return t, lost, nil
}

// addMoments takes EDUs of the moment along, as far as there is room.
func (l *lane) addMoments(t *transaction) (keys []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.order) > 0 && len(t.EDUs) < federation.MaxEDUs {
		key := l.order[0]
		l.order = l.order[1:]
		t.EDUs = append(t.EDUs, l.moments[key])
		delete(l.moments, key)
		keys = append(keys, key)
	}
	return keys
}

// put sends a transaction. Its id is a hash of what it holds, not of when it is sent.
func (s *Sender) put(ctx context.Context, server string, t *transaction) error {
	h := sha256.New()
	for _, raw := range t.PDUs {
		h.Write(raw)
		h.Write([]byte{0})
	}
	h.Write([]byte{1})
	for _, raw := range t.EDUs {
		h.Write(raw)
		h.Write([]byte{0})
	}
	id := base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:18])
	body, err := json.Marshal(t)
	if err != nil {
		return err
	}
	answer, err := s.Client.Do(ctx, federation.Ask{Server: server, Method: http.MethodPut, Path: "/_matrix/federation/v1/send/" + url.PathEscape(id), Body: body, Timeout: sendTime})
	if err != nil {
		if e := signalling.AsError(err); e.Status == http.StatusBadRequest || e.Status == http.StatusRequestEntityTooLarge {
			return &refusal{err}
		}
		return err
	}
	var results struct {
		PDUs map[string]struct {
			Error string `json:"error"`
		} `json:"pdus"`
	}
	if json.Unmarshal(answer, &results) == nil {
		for event, r := range results.PDUs {
			if r.Error != "" {
				s.Log.Debug("a server does not take an event", "server", server, "event", event, "err", r.Error)
			}
		}
	}
	return nil
}
