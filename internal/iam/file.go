package iam

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"lifeboat/internal/durable"
)

// DamagedError tells that a file of this package is there but cannot be used.
// It is never an absence: nothing may be created in its place.
type DamagedError struct {
	Path   string
	Reason string
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("%s is damaged or foreign: %s; restore it from a backup of the data directory", e.Path, e.Reason)
}

// files makes the files of this package; it has no state.
var files durable.Files

const private = 0o600 // the mode of all of them

// maxFile bounds what is read of a key or certificate file.
const maxFile = 1 << 20

// readFile reads a file of this package; an absent one is fs.ErrNotExist.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, &DamagedError{Path: path, Reason: fmt.Sprintf("want a regular file of at most %d bytes", maxFile)}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return data, nil
}

func exists(path string) (bool, error) {
	_, err := os.Stat(path)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	}
	return false, fmt.Errorf("look for %s: %w", path, err)
}
