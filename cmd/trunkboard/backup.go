// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/trunkboard/trunkboard/homeserver/storage"
)

type backupCommand struct {
	settings
	Folder string `arg:"" help:"Where the copy goes: a folder that is made, or that an earlier backup made. Only what is new is copied into that."`
}

// Run copies what the server keeps, beside a server that runs or without one. The database comes first: the files that its rows name were
// there before them, and never change.
func (c *backupCommand) Run(to streams) error {
	cfg, err := c.load(to)
	if err != nil {
		return err
	}
	from, err := filepath.Abs(cfg.DataDir)
	if err != nil {
		return err
	}
	into, err := filepath.Abs(c.Folder)
	if err != nil {
		return err
	}
	if into == from || strings.HasPrefix(into+"/", from+"/") || strings.HasPrefix(from+"/", into+"/") {
		return fmt.Errorf("%s and the data folder, %s, lie in each other; a backup belongs elsewhere", into, from)
	}
	if _, err := os.Stat(from); err != nil {
		return fmt.Errorf("there is nothing to save; is data_dir right? %w", err)
	}
	if err := os.MkdirAll(into, 0o700); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()

	file, kept, err := databaseFile(cfg.DatabaseURL(), from)
	if err != nil {
		return err
	}
	if kept == "" {
		fmt.Fprintln(to.err, "note: the database is in PostgreSQL: save it with pg_dump before this command, so that no file that its rows name is missing")
	} else if err := snapshot(ctx, file, filepath.Join(into, kept)); err != nil {
		return err
	}
	copied := 0
	err = filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err = cmp.Or(err, ctx.Err()); err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch {
		case d.IsDir() && (rel == filepath.Join("media", "incoming") || rel == filepath.Join("media", "thumbnails")):
			return fs.SkipDir // not there yet, and made again
		case d.IsDir():
			return os.MkdirAll(filepath.Join(into, rel), 0o700)
		case path == file || strings.HasPrefix(path, file+"-") || path == file+".new" || !d.Type().IsRegular():
			return nil
		}
		more, err := copyNew(path, filepath.Join(into, rel))
		if more {
			copied++
		}
		return err
	})
	if err != nil {
		return err
	}
	what := fmt.Sprintf("%d new files", copied)
	try := "data_dir=" + into
	if kept != "" {
		what = "the database, " + what
	}
	if kept != "" && filepath.Join(from, kept) != file {
		try += " --set database.url=" + kept
	}
	_, err = fmt.Fprintf(to.out, "%s: %s. To go back to it: trunkboard serve --set %s\n", into, what, try)
	return err
}

// databaseFile is where an SQLite database lies, and its place in a copy of the folder data: the same, or beside the rest when it lies
// elsewhere. Both are empty for PostgreSQL.
func databaseFile(url, data string) (file, kept string, err error) {
	file, ok := strings.CutPrefix(url, "sqlite:")
	if !ok {
		return "", "", nil
	}
	if file, err = filepath.Abs(file); err != nil {
		return "", "", err
	}
	if kept, err = filepath.Rel(data, file); err != nil || !filepath.IsLocal(kept) {
		kept = filepath.Base(file)
	}
	return file, kept, nil
}

func snapshot(ctx context.Context, file, into string) error {
	if err := os.MkdirAll(filepath.Dir(into), 0o700); err != nil {
		return err
	}
	err := storage.Snapshot(ctx, "sqlite:"+file, into)
	if errors.Is(err, storage.ErrNotFound) {
		return fmt.Errorf("there is no database %s; has the server run with these settings?", file)
	}
	return err
}

// copyNew copies a file unless one of the same size and time, or newer, is there already. It is there whole or not at all.
func copyNew(from, to string) (copied bool, err error) {
	in, err := os.Open(from)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // deleted since the folder was read
	}
	if err != nil {
		return false, err
	}
	defer in.Close()
	now, err := in.Stat()
	if err != nil {
		return false, err
	}
	if had, err := os.Stat(to); err == nil && had.Size() == now.Size() && !had.ModTime().Before(now.ModTime()) {
		return false, nil
	}
	out, err := os.CreateTemp(filepath.Dir(to), ".new-*") // mode 0600
	if err != nil {
		return false, err
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Sync(), out.Close()); err == nil {
		err = os.Rename(out.Name(), to)
	}
	if err != nil {
		return false, errors.Join(err, os.Remove(out.Name()))
	}
	return true, nil
}
