// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
)

//go:embed schema/*.sql
var schemaFiles embed.FS

// forEngine keeps the lines of a schema text that are meant for an engine: a line that ends in "-- only: sqlite" or
// "-- only: postgres" is dropped for the other one.
func forEngine(text string, e engine) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if i := strings.Index(line, "-- only: "); i >= 0 && strings.TrimSpace(line[i+len("-- only: "):]) != string(e) {
			continue
		}
		b.WriteString(line)
	}
	return b.String()
}

// makeSQLite makes a database that is not there yet. It is made under another name and given its own when it is whole and on disk, so
// that none of the many steps of the schema need wait for the disk, and a power cut leaves nothing half made.
func makeSQLite(ctx context.Context, file string) error {
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	young := file + ".new"
	if err := os.Remove(young); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("what is left of an earlier start: %w", err)
	}
	db, err := sql.Open("sqlite", "file:"+young+"?_pragma=journal_mode(MEMORY)&_pragma=synchronous(OFF)&_txlock=immediate")
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	if err := errors.Join(migrate(ctx, db, sqlite), db.Close()); err != nil {
		return err
	}
	if err := flush(young); err != nil {
		return err
	}
	if err := os.Rename(young, file); err != nil {
		return err
	}
	return flush(filepath.Dir(file))
}

// flush puts a file or folder on disk.
func flush(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// migrate brings the schema to the newest version; each step is one transaction.
func migrate(ctx context.Context, db *sql.DB, e engine) error {
	names, err := fs.Glob(schemaFiles, "schema/*.sql")
	if err != nil {
		return err
	}
	var steps []*goose.Migration
	for _, name := range names {
		num, _, _ := strings.Cut(path.Base(name), "_")
		version, err := strconv.ParseInt(num, 10, 64)
		if err != nil {
			return fmt.Errorf("schema file %s: %w", name, err)
		}
		raw, err := schemaFiles.ReadFile(name)
		if err != nil {
			return err
		}
		text := forEngine(string(raw), e)
		steps = append(steps, goose.NewGoMigration(version, &goose.GoFunc{RunTx: func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, text)
			return err
		}}, nil))
	}
	dialect := database.DialectSQLite3
	if e == postgres {
		dialect = database.DialectPostgres
	}
	p, err := goose.NewProvider(dialect, db, nil, goose.WithGoMigrations(steps...), goose.WithDisableGlobalRegistry(true), goose.WithTableName("schema_versions"))
	if err != nil {
		return fmt.Errorf("schema: %w", err)
	}
	have, newest, err := p.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("schema: %w", err)
	}
	if have > newest {
		return fmt.Errorf("the database is of a newer version of this program (its schema is %d, this one knows %d): run that version again, or go back to a backup", have, newest)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("schema: %w", err)
	}
	return nil
}
