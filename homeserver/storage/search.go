// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"strings"
)

// SearchDoc is what /search finds an event by.
type SearchDoc struct {
	NID, RoomNID      int64
	Body, Name, Topic string
}

// SearchKeys says where to look for words.
type SearchKeys struct{ Body, Name, Topic bool }

// SearchHit is an event that was found.
type SearchHit struct {
	NID, RoomNID, Pos int64

	Rank float64 // the higher the better
}

// SearchPos is the position up to which events are in the search index.
func (s *Store) SearchPos(ctx context.Context) (pos int64, err error) {
	err = s.row(ctx, []any{&pos}, `SELECT value FROM counters WHERE name = 'search'`)
	return pos, err
}

// SearchSource lists what the index has to take in: messages, names, topics and redactions with from < position <= to, oldest first.
func (s *Store) SearchSource(ctx context.Context, from, to int64, limit int) (out []EventRow, err error) {
	err = s.rows(ctx, func(r *sql.Rows) error {
		e, err := scanEvent(r)
		out = append(out, e)
		return err
	}, `SELECT `+eventRead+` FROM events WHERE stream_pos > $1 AND stream_pos <= $2 AND status = 0
		AND type IN ('m.room.message', 'm.room.name', 'm.room.topic', 'm.room.redaction') ORDER BY stream_pos LIMIT $3`, from, to, limit)
	return out, err
}

// IndexSearch moves the index on from one position to another; false when another node has moved it.
func (tx *Tx) IndexSearch(from, to int64, docs []SearchDoc, redacted []string) (bool, error) {
	n, err := tx.Exec(`UPDATE counters SET value = $1 WHERE name = 'search' AND value = $2`, to, from)
	if err != nil || n == 0 {
		return false, err
	}
	for _, d := range docs {
		if tx.w.engine == postgres {
			_, err = tx.Exec(`INSERT INTO search_words (event_nid, room_nid, words)
				VALUES ($1, $2, setweight(to_tsvector('simple', $3), 'A') || setweight(to_tsvector('simple', $4), 'B') || setweight(to_tsvector('simple', $5), 'C')) ON CONFLICT DO NOTHING`,
				d.NID, d.RoomNID, d.Body, d.Name, d.Topic)
		} else {
			_, err = tx.Exec(`INSERT INTO search_words (rowid, body, name, topic, room) VALUES ($1, $2, $3, $4, $5)`, d.NID, d.Body, d.Name, d.Topic, roomWord(d.RoomNID))
		}
		if err != nil {
			return false, err
		}
	}
	for _, id := range redacted {
		key := `event_nid`
		if tx.w.engine != postgres {
			key = `rowid`
		}
		if _, err := tx.Exec(`DELETE FROM search_words WHERE `+key+` IN (SELECT event_nid FROM events WHERE event_id = $1 AND redacted_by <> '')`, id); err != nil {
			return false, err
		}
	}
	return true, nil
}

// roomWord is a room as a word of the index.
func roomWord(nid int64) string { return "r" + strconv.FormatInt(nid, 10) }

// Search finds events of some rooms in which every word begins some word of one of keys; words hold letters and digits only. The
// order is by rank, or with recent by position, the newest first.
func (s *Store) Search(ctx context.Context, rooms []int64, words []string, keys SearchKeys, recent bool, limit int) (out []SearchHit, err error) {
	scan := func(r *sql.Rows) error {
		var h SearchHit
		err := r.Scan(&h.NID, &h.RoomNID, &h.Pos, &h.Rank)
		out = append(out, h)
		return err
	}
	if s.engine == postgres {
		weights := ""
		for _, k := range []struct {
			on     bool
			weight string
		}{{keys.Body, "A"}, {keys.Name, "B"}, {keys.Topic, "C"}} {
			if k.on {
				weights += k.weight
			}
		}
		terms := make([]string, len(words))
		for i, w := range words {
			terms[i] = "'" + w + "':*" + weights
		}
		nids := make([]string, len(rooms))
		for i, n := range rooms {
			nids[i] = strconv.FormatInt(n, 10)
		}
		query := `SELECT e.event_nid, e.room_nid, e.stream_pos, ts_rank(w.words, q.q) FROM search_words w JOIN events e ON e.event_nid = w.event_nid, to_tsquery('simple', $1) AS q(q)
			WHERE w.words @@ q.q AND w.room_nid = ANY(CAST($2 AS BIGINT[])) AND e.redacted_by = ''`
		if recent {
			query += ` ORDER BY e.stream_pos DESC LIMIT $3`
		} else {
			query += ` ORDER BY 4 DESC, e.stream_pos DESC LIMIT $3`
		}
		return out, s.rows(ctx, scan, query, strings.Join(terms, " & "), "{"+strings.Join(nids, ",")+"}", limit)
	}
	var in []string
	for _, k := range []struct {
		on   bool
		name string
	}{{keys.Body, "body"}, {keys.Name, "name"}, {keys.Topic, "topic"}} {
		if k.on {
			in = append(in, k.name)
		}
	}
	terms := make([]string, len(words))
	for i, w := range words {
		terms[i] = `"` + w + `"*`
	}
	where := make([]string, len(rooms))
	for i, n := range rooms {
		where[i] = roomWord(n)
	}
	match := fmt.Sprintf(`{%s} : (%s) AND room : (%s)`, strings.Join(in, " "), strings.Join(terms, " AND "), strings.Join(where, " OR "))
	query := `SELECT e.event_nid, e.room_nid, e.stream_pos, -bm25(search_words, 1.0, 1.0, 1.0, 0.0) FROM search_words JOIN events e ON e.event_nid = search_words.rowid
		WHERE search_words MATCH $1 AND e.redacted_by = ''`
	if recent {
		query += ` ORDER BY e.stream_pos DESC LIMIT $2`
	} else {
		query += ` ORDER BY bm25(search_words, 1.0, 1.0, 1.0, 0.0), e.stream_pos DESC LIMIT $2`
	}
	return out, s.rows(ctx, scan, query, match, limit)
}
