package server

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"lifeboat/internal/durable"
)

// databaseFiles are what SQLite keeps beside a database.
func databaseFiles(path string) []string { return []string{path, path + "-wal", path + "-shm"} }

func removeDatabase(path string) error {
	var errs []error
	for _, file := range databaseFiles(path) {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// place gives a complete database its name, after what has it was set aside.
func place(temp, path, aside string) error {
	var files durable.Files
	if aside != "" {
		old, to := databaseFiles(path), databaseFiles(aside)
		for i := range slices.Backward(old) { // the database itself goes last: without it there is none
			if err := os.Rename(old[i], to[i]); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("set the database aside: %w", err)
			}
		}
	}
	f, err := os.OpenFile(temp, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(files.Sync("rebuild: sync database", f), f.Close()); err != nil {
		return err
	}
	if err := files.Rename("rebuild: place database", temp, path); err != nil {
		return err
	}
	return files.SyncDir("rebuild: sync directory", filepath.Dir(path))
}
