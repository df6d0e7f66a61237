// SPDX-License-Identifier: Apache-2.0

package media

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/trunkboard/trunkboard/signalling"
)

// disk keeps contents under names that are their own hashes:
//
//	DIR/content/ab/cd/abcd…       64 hex digits, never changed once there
//	DIR/thumbnails/ab/cd/abcd…/32x32-crop.jpg
//	DIR/incoming/…                uploads that are still coming in
//
// No part of a path is ever taken from a request.
type disk struct {
	dir string
	// mu makes "is this file unused? then remove it" and "this file is there, I use it" exclude each other.
	mu sync.Mutex
	// known are the folders whose own names are durable, as far as this process has seen to it: at most 65,793 of them.
	known map[string]bool
}

func openDisk(dir string) (*disk, error) {
	d := &disk{dir: dir, known: map[string]bool{}}
	for _, sub := range []string{"content", "thumbnails", "incoming"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, fmt.Errorf("media folder: %w", err)
		}
	}
	return d, nil
}

func (d *disk) contentPath(sum string) string {
	return filepath.Join(d.dir, "content", sum[:2], sum[2:4], sum)
}

func (d *disk) thumbnailDir(sum string) string {
	return filepath.Join(d.dir, "thumbnails", sum[:2], sum[2:4], sum)
}

// receive streams body to disk and gives its hash and size once the file and its name are durable. More than max bytes is
// M_TOO_LARGE and leaves nothing behind.
func (d *disk) receive(body io.Reader, max int64) (sum string, size int64, err error) {
	f, err := os.CreateTemp(filepath.Join(d.dir, "incoming"), "upload-*")
	if err != nil {
		return "", 0, diskError(err)
	}
	defer func() {
		_ = f.Close()
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	w := &hashingWriter{f: f, h: sha256.New()}
	size, err = io.Copy(w, io.LimitReader(body, max+1))
	switch {
	case w.err != nil:
		return "", 0, diskError(w.err)
	case err != nil:
		return "", 0, signalling.Refuse(http.StatusBadRequest, "M_UNKNOWN", "the upload ended before its end").Because(err)
	case size > max:
		return "", 0, signalling.TooLarge("an upload may have %d bytes", max)
	}
	if err := f.Sync(); err != nil {
		return "", 0, diskError(err)
	}
	sum = hex.EncodeToString(w.h.Sum(nil))
	if err := d.place(f.Name(), sum); err != nil {
		return "", 0, diskError(err)
	}
	return sum, size, nil
}

// hashingWriter tells the errors of the disk from those of the reader.
type hashingWriter struct {
	f   *os.File
	h   hash.Hash
	err error
}

func (w *hashingWriter) Write(p []byte) (n int, err error) {
	if n, err = w.f.Write(p); err != nil {
		w.err = err
		return n, err
	}
	_, _ = w.h.Write(p)
	return n, nil
}

// place gives the finished file tmp its name. Equal content that is there already is kept, and marked as used a moment ago.
func (d *disk) place(tmp, sum string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	name := d.contentPath(sum)
	now := time.Now()
	if err := os.Chtimes(name, now, now); err == nil {
		return os.Remove(tmp)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(name)
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return err
	}
	if err := os.Rename(tmp, name); err != nil {
		return err
	}
	// The name is durable when its folder is synced, and that folder's name when the folder above is.
	for p := parent; ; p = filepath.Dir(p) {
		if err := syncDir(p); err != nil {
			return err
		}
		if d.known[p] || p == d.dir {
			return nil
		}
		d.known[p] = true
	}
}

func syncDir(p string) error {
	f, err := os.Open(p)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// sweep removes uploads that never ended and contents that no row names (a crash between the file and the row leaves one), both
// only when nobody touched them for a day.
func (d *disk) sweep(ctx context.Context, now time.Time, used func(ctx context.Context, sum string) (bool, error)) (removed int, err error) {
	const rest = 24 * time.Hour
	old := func(e fs.DirEntry) bool {
		i, err := e.Info()
		return err == nil && now.Sub(i.ModTime()) > rest
	}
	incoming, err := os.ReadDir(filepath.Join(d.dir, "incoming"))
	if err != nil {
		return 0, err
	}
	for _, e := range incoming {
		if old(e) && os.Remove(filepath.Join(d.dir, "incoming", e.Name())) == nil {
			removed++
		}
	}
	err = filepath.WalkDir(filepath.Join(d.dir, "content"), func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !old(e) {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		gone, err := d.removeUnused(ctx, e.Name(), now.Add(-rest), used)
		if gone {
			removed++
		}
		return err
	})
	return removed, err
}

func (d *disk) removeUnused(ctx context.Context, sum string, before time.Time, used func(ctx context.Context, sum string) (bool, error)) (bool, error) {
	if len(sum) != 2*sha256.Size {
		return false, nil // not a file of ours
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	name := d.contentPath(sum)
	i, err := os.Stat(name)
	if err != nil || i.ModTime().After(before) {
		return false, nil //nolint:nilerr // gone or used by now: nothing to do
	}
	if u, err := used(ctx, sum); err != nil || u {
		return false, err
	}
	_ = os.RemoveAll(d.thumbnailDir(sum))
	return true, os.Remove(name)
}

// diskError says what a stranger may know of a failed write.
func diskError(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return signalling.Refuse(http.StatusInsufficientStorage, "M_UNKNOWN", "the server has no room for uploads; try again later").Because(err)
	}
	return signalling.Internal(err)
}
