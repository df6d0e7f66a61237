// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Snapshot writes the SQLite database at url, as it stands at one moment, into file, whole and on disk, or not at all; what was in file
// before is replaced. A server that uses the database goes on meanwhile. The schema is left as it is. PostgreSQL has tools of its own for
// this. Errors: ErrNotFound when there is no database.
func Snapshot(ctx context.Context, dburl, file string) error {
	from, ok := strings.CutPrefix(dburl, "sqlite:")
	if !ok {
		return fmt.Errorf("no snapshots of %s", redactURL(dburl))
	}
	if _, err := os.Stat(from); errors.Is(err, fs.ErrNotExist) {
		return ErrNotFound
	} else if err != nil {
		return err
	}
	if _, err := os.Stat(file + "-wal"); err == nil { // it would be read as a part of what comes
		return fmt.Errorf("a server runs on %s, or did not end well there; choose another place", file)
	}
	young := file + ".new"
	if err := os.Remove(young); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("what is left of an earlier snapshot: %w", err)
	}
	// A file that is there is filled and not made anew, so nobody else ever may read it.
	empty, err := os.OpenFile(young, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := empty.Close(); err != nil {
		return err
	}
	db, err := sql.Open("sqlite", "file:"+from+"?_pragma=busy_timeout(10000)")
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, `VACUUM INTO $1`, young)
	if err := errors.Join(err, db.Close()); err != nil {
		return errors.Join(fmt.Errorf("snapshot: %w", err), os.Remove(young))
	}
	if err := flush(young); err != nil {
		return err
	}
	if err := os.Rename(young, file); err != nil {
		return err
	}
	return flush(filepath.Dir(file))
}
