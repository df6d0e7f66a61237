// SPDX-License-Identifier: Apache-2.0

package drills

import (
	"database/sql"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // the "pgx" driver
	_ "modernc.org/sqlite"             // the "sqlite" driver
)

// inspector looks at the database itself, read-only, beside the running server.
type inspector struct {
	t              *testing.T
	open           func() (*sql.DB, error)
	sqlite         bool
	base           int64 // stream position before the first message
	gaps, corrupt  int
	integrityCount int
}

func inspectSQLite(t *testing.T, file func() string) *inspector {
	return &inspector{t: t, sqlite: true, open: func() (*sql.DB, error) {
		return sql.Open("sqlite", "file:"+file()+"?mode=ro&_pragma=busy_timeout(10000)")
	}}
}

func inspectPostgres(t *testing.T, url func() string) *inspector {
	return &inspector{t: t, open: func() (*sql.DB, error) { return sql.Open("pgx", url()) }}
}

func (i *inspector) number(query string, args ...any) (n int64) {
	i.t.Helper()
	db, err := i.open()
	if err != nil {
		i.t.Fatal(err)
	}
	defer db.Close()
	if err := db.QueryRow(query, args...).Scan(&n); err != nil {
		i.t.Fatalf("%s: %v", query, err)
	}
	return n
}

// begin remembers where the stream stands: from here on only messages move it.
func (i *inspector) begin() { i.base = i.number(`SELECT value FROM counters WHERE name = 'stream'`) }

// stream checks that each position since begin belongs to an event.
func (i *inspector) stream() {
	i.t.Helper()
	top := i.number(`SELECT value FROM counters WHERE name = 'stream'`)
	events := i.number(`SELECT COUNT(DISTINCT stream_pos) FROM events WHERE stream_pos > $1 AND stream_pos <= $2`, i.base, top)
	if beyond := i.number(`SELECT COUNT(*) FROM events WHERE stream_pos > $1`, top); events != top-i.base || beyond != 0 {
		i.gaps++
		i.t.Errorf("positions %d to %d hold %d events, and %d stand beyond", i.base+1, top, events, beyond)
	}
}

// integrity has SQLite check its file.
func (i *inspector) integrity() {
	i.t.Helper()
	if !i.sqlite {
		return
	}
	db, err := i.open()
	if err != nil {
		i.t.Fatal(err)
	}
	defer db.Close()
	var said string
	if err := db.QueryRow(`PRAGMA integrity_check`).Scan(&said); err != nil || said != "ok" {
		i.corrupt++
		i.t.Errorf("integrity_check: %q %v", said, err)
	}
	i.integrityCount++
}
