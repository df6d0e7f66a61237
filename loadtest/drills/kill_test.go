// SPDX-License-Identifier: Apache-2.0

package drills

import (
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"
)

// killRounds kills the server again and again while users send, and checks after each restart.
func killRounds(t *testing.T, what string, n int, data, database string, look *inspector) {
	t.Helper()
	started := time.Now()
	s := newServer(t)
	s.start(data, database)
	tr := newTraffic(t, s)
	look.begin()
	for i := range n {
		tr.resume()
		if !tr.sending(30 * time.Second) {
			t.Fatal("nothing was acknowledged for half a minute")
		}
		time.Sleep(time.Duration(20+rand.IntN(100)) * time.Millisecond)
		s.kill()
		tr.pause()
		s.start(data, database)
		tr.check()
		look.stream()
		if i%10 == 9 || i == n-1 {
			look.integrity()
		}
		if t.Failed() {
			break
		}
	}
	tr.checkAll()
	s.kill()
	t.Logf("drill %s: kills=%d acked=%d stored=%d lost=%d doubled=%d wrong=%d gaps=%d corrupt=%d (integrity checks %d), uploads=%d spoilt=%d, in %v",
		what, n, tr.ackedCount(), len(tr.seen), tr.lost, tr.doubled, tr.foreign, look.gaps, look.corrupt, look.integrityCount, tr.uploads, tr.spoilt, time.Since(started).Round(time.Second))
}

func TestDrillKillOnSQLite(t *testing.T) {
	data := t.TempDir()
	look := inspectSQLite(t, func() string { return filepath.Join(data, "trunkboard.db") })
	killRounds(t, "kill -9 on SQLite", rounds(10, 200), data, "", look)
	if look.integrityCount == 0 {
		t.Error("the file was never checked")
	}
}

func TestDrillKillOnPostgres(t *testing.T) {
	db := newPostgres(t, tempDir(t))
	killRounds(t, "kill -9 on PostgreSQL", rounds(10, 200), t.TempDir(), db.url(), inspectPostgres(t, db.url))
}

func TestDrillPostgresCrashes(t *testing.T) {
	n := rounds(3, 50)
	started := time.Now()
	db := newPostgres(t, tempDir(t))
	look := inspectPostgres(t, db.url)
	s := newServer(t)
	s.start(t.TempDir(), db.url())
	tr := newTraffic(t, s)
	look.begin()
	var longest time.Duration
	for range n {
		tr.resume()
		if !tr.sending(30 * time.Second) {
			t.Fatal("nothing was acknowledged for half a minute")
		}
		time.Sleep(time.Duration(20+rand.IntN(100)) * time.Millisecond)
		db.restart()
		back, before := time.Now(), tr.ackedCount()
		for tr.ackedCount() == before { // the server finds the database again by itself
			if time.Since(back) > 30*time.Second {
				t.Fatal("nothing was acknowledged for half a minute after PostgreSQL was back")
			}
			time.Sleep(5 * time.Millisecond)
		}
		longest = max(longest, time.Since(back))
		tr.pause()
		tr.check()
		look.stream()
		if t.Failed() {
			break
		}
	}
	tr.checkAll()
	t.Logf("drill PostgreSQL crashes: crashes=%d acked=%d stored=%d lost=%d doubled=%d wrong=%d gaps=%d, uploads=%d spoilt=%d, writing again %v after the database at the latest, in %v",
		n, tr.ackedCount(), len(tr.seen), tr.lost, tr.doubled, tr.foreign, look.gaps, tr.uploads, tr.spoilt, longest.Round(time.Millisecond), time.Since(started).Round(time.Second))
}
