// Package db keeps the domain's resources in tables, on SQLite.
//
// The vault's objects are the truth about recovery points; the rows here are
// their catalogue, made again from the vault at start. Everything else (servers,
// configurations, jobs, instances) has its only home here, so a commit returns
// when it is durable.
//
// Reads and writes go through two pools: SQLite has one writer, and readers must
// not queue behind it.
package db

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"

	"github.com/pressly/goose/v3"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/sqlitedialect"
	_ "modernc.org/sqlite" // the driver, in pure Go

	"lifeboat/internal/drs"
)

//go:embed migrations/*.sql
var migrations embed.FS

// DB is safe for concurrent use.
type DB struct {
	write *bun.DB
	read  *bun.DB

	// Of listings, see listed.go.
	servers shelf[drs.SourceServer]
	jobs    shelf[drs.Job]
}

// ErrAbsent is returned where one row was asked for and there is none.
var ErrAbsent = errors.New("no such row")

// Create makes a new database file and its tables; one that exists is refused.
func Create(ctx context.Context, file string) (*DB, error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create database: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("create database: %w", err)
	}
	return Open(ctx, file)
}

// Open opens an existing database file and brings its tables up to date. A file
// that is missing, damaged or newer than this program is refused.
func Open(ctx context.Context, file string) (*DB, error) {
	if _, err := os.Stat(file); err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	write, err := pool(file, "rw", 1)
	if err != nil {
		return nil, err
	}
	d := &DB{write: write}
	if err := d.prepare(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open database %s: %w", file, err), write.Close())
	}
	if d.read, err = pool(file, "ro", 8); err != nil {
		return nil, errors.Join(err, write.Close())
	}
	return d, nil
}

// OpenReader opens a database for reading only, which a server may be using; nothing is
// changed, its tables least of all. Methods that write must not be called.
func OpenReader(file string) (*DB, error) {
	if _, err := os.Stat(file); err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	read, err := pool(file, "ro", 1)
	if err != nil {
		return nil, err
	}
	return &DB{read: read}, nil
}

// Close waits for what runs and closes both pools.
func (d *DB) Close() error {
	if d.write == nil {
		return d.read.Close()
	}
	return errors.Join(d.read.Close(), d.write.Close())
}

// SQL is the writing pool, for the job queue: its rows and ours must commit
// together.
func (d *DB) SQL() *sql.DB { return d.write.DB }

func pool(file, mode string, conns int) (*bun.DB, error) {
	query := url.Values{
		"mode":    {mode},
		"_txlock": {"immediate"},
		"_pragma": {"busy_timeout(10000)", "foreign_keys(1)", "synchronous(full)"},
	}
	if mode == "rw" {
		query["_pragma"] = append(query["_pragma"], "journal_mode(wal)")
	} else {
		query.Del("_txlock")
	}
	source := url.URL{Scheme: "file", Opaque: (&url.URL{Path: file}).EscapedPath(), RawQuery: query.Encode()}
	conn, err := sql.Open("sqlite", source.String())
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", file, err)
	}
	conn.SetMaxOpenConns(conns)
	conn.SetMaxIdleConns(conns)
	return bun.NewDB(conn, sqlitedialect.New()), nil
}

// prepare refuses a damaged file before anything is written to it.
func (d *DB) prepare(ctx context.Context) error {
	var verdict string
	if err := d.write.NewRaw("PRAGMA quick_check(1)").Scan(ctx, &verdict); err != nil {
		return fmt.Errorf("check: %w", err)
	}
	if verdict != "ok" {
		return fmt.Errorf("the file is damaged: %s", verdict)
	}
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, d.write.DB, dir)
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	current, target, err := provider.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("read schema version: %w", err)
	}
	if current > target {
		return fmt.Errorf("its schema is version %d, newer than the %d this program knows: run a newer lifeboat", current, target)
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

// Tx is one transaction; its methods see their own writes.
type Tx struct{ bun.Tx }

// InTx runs f in one transaction, durable when it returns nil. f must use only
// what it is given: the writing pool has one connection.
func (d *DB) InTx(ctx context.Context, f func(context.Context, Tx) error) error {
	return d.write.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error { return f(ctx, Tx{tx}) })
}

// absent turns the driver's word for no row into ours.
func absent(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return ErrAbsent
	}
	return err
}
