// SPDX-License-Identifier: Apache-2.0

package drills

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// disk is an ext4 file system in a file. A copy of the file, made while everything that writes is frozen, is what a disk holds
// when the power goes: what was synced, and of the rest what the kernel happened to have written.
type disk struct {
	t     *testing.T
	image string
	at    string // where it is mounted
}

// newDisk makes and mounts one; ok is false where this machine does not let us.
func newDisk(t *testing.T, dir string) (d *disk, why string) {
	t.Helper()
	d = &disk{t: t, image: filepath.Join(dir, "disk.img"), at: filepath.Join(dir, "disk")}
	f, err := os.Create(d.image)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(512 << 20); err != nil { // sparse: takes what is written
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0", d.image).CombinedOutput(); err != nil {
		return nil, fmt.Sprintf("mkfs.ext4: %v: %s", err, out)
	}
	return d, d.mount()
}

func (d *disk) mount() (why string) {
	if err := os.MkdirAll(d.at, 0o755); err != nil {
		d.t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-o", "loop", d.image, d.at).CombinedOutput(); err != nil {
		return strings.TrimSpace(fmt.Sprintf("mount -o loop: %v: %s", err, out))
	}
	d.t.Cleanup(func() { _ = exec.Command("umount", "-l", d.at).Run() })
	return ""
}

// remove unmounts it and gives back its room.
func (d *disk) remove() {
	d.t.Helper()
	var out []byte
	var err error
	for range 100 { // whoever was killed may take a moment to let go
		if out, err = exec.Command("umount", d.at).CombinedOutput(); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		d.t.Fatalf("umount: %v: %s", err, out)
	}
	if err := os.Remove(d.image); err != nil {
		d.t.Fatal(err)
	}
}

// afterPowerCut gives the disk as it would be found: a copy, not mounted yet.
func (d *disk) afterPowerCut(dir string) *disk {
	d.t.Helper()
	c := &disk{t: d.t, image: filepath.Join(dir, "found.img"), at: filepath.Join(dir, "found")}
	if out, err := exec.Command("cp", "--sparse=always", d.image, c.image).CombinedOutput(); err != nil {
		d.t.Fatalf("cp: %v: %s", err, out)
	}
	return c
}

// freeze stops the server where it is and waits until it stands still.
func (s *server) freeze() {
	s.t.Helper()
	s.signal(syscall.SIGSTOP)
	for i := 0; ; i++ {
		still := true
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", s.cmd.Process.Pid))
		for _, f := range tasks {
			b, _ := os.ReadFile(f)
			if j := strings.LastIndexByte(string(b), ')'); j < 0 || b[j+2] != 'T' {
				still = false
			}
		}
		if still {
			return
		}
		if i > 5000 {
			s.t.Fatal("the server does not stop")
		}
		time.Sleep(time.Millisecond)
	}
}

// powerCuts lets users send, cuts the power, and looks at what the disk has.
func powerCuts(t *testing.T, what string, n int, withPostgres bool) {
	t.Helper()
	started := time.Now()
	var acked, stored, lost, doubled, wrong, gaps, corrupt, uploads, spoilt int
	for range n {
		dir := tempDir(t)
		d, why := newDisk(t, dir)
		if why != "" {
			why = "this drill needs root and loop devices, and could not run: " + why
			if os.Getenv("TRUNKBOARD_TEST_LONG") != "" {
				t.Fatal(why)
			}
			t.Log(why)
			return
		}
		now := d // the disk in use
		data := func() string { return filepath.Join(now.at, "data") }
		var db *postgres
		url := func() string {
			if db == nil {
				return ""
			}
			return db.url()
		}
		look := inspectSQLite(t, func() string { return filepath.Join(data(), "trunkboard.db") })
		if withPostgres {
			at := filepath.Join(d.at, "postgres")
			if err := os.Mkdir(at, 0o700); err != nil {
				t.Fatal(err)
			}
			db = newPostgres(t, at)
			look = inspectPostgres(t, url)
		}
		s := newServer(t)
		s.start(data(), url())
		tr := newTraffic(t, s)
		look.begin()
		tr.resume()
		if !tr.sending(30 * time.Second) {
			t.Fatal("nothing was acknowledged for half a minute")
		}
		time.Sleep(time.Duration(200+rand.IntN(600)) * time.Millisecond)

		s.freeze()
		if db != nil {
			db.freeze()
		}
		found := d.afterPowerCut(dir)
		s.kill()
		tr.pause() // before anything is back: what the disk had is looked at as it is
		if db != nil {
			db.killFrozen()
		}
		d.remove()

		if now = found; found.mount() != "" {
			t.Fatal("what the disk had cannot be mounted")
		}
		if db != nil {
			db.dir = filepath.Join(found.at, "postgres")
			_ = os.Remove(filepath.Join(db.dir, "postmaster.pid")) // of a process that the power cut ended
			db.start()
		}
		s.start(data(), url())
		tr.check()
		look.stream()
		look.integrity()
		tr.checkAll()
		s.kill()
		if db != nil {
			db.crash()
		}
		found.remove()
		acked, stored = acked+tr.ackedCount(), stored+len(tr.seen)
		lost, doubled, wrong = lost+tr.lost, doubled+tr.doubled, wrong+tr.foreign
		gaps, corrupt = gaps+look.gaps, corrupt+look.corrupt
		uploads, spoilt = uploads+tr.uploads, spoilt+tr.spoilt
		if t.Failed() {
			break
		}
	}
	t.Logf("drill %s: cuts=%d acked=%d stored=%d lost=%d doubled=%d wrong=%d gaps=%d corrupt=%d, uploads=%d spoilt=%d, in %v",
		what, n, acked, stored, lost, doubled, wrong, gaps, corrupt, uploads, spoilt, time.Since(started).Round(time.Second))
}

func TestDrillPowerCutOnSQLite(t *testing.T) {
	powerCuts(t, "power cut on SQLite", rounds(1, 20), false)
}

func TestDrillPowerCutOnPostgres(t *testing.T) {
	powerCuts(t, "power cut on PostgreSQL", rounds(1, 20), true)
}
