package branchlog

import (
	"errors"
	"fmt"
	"syscall"
)

var (
	// ErrClosed is what a closed log answers.
	ErrClosed = errors.New("branch log is closed")

	// ErrInUse says that another process, or another Log of this one, has the
	// log open.
	ErrInUse = errors.New("branch log is in use by another process; stop that one first")

	// ErrWrongKey says that the log is whole but belongs to another key.
	ErrWrongKey = errors.New("branch log was written with another key")
)

// CorruptError is evidence of damage to what was durable.
type CorruptError struct {
	File   string // path
	Offset int64  // in bytes, where the damaged thing begins
	What   string // what is wrong with it
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("branch log %s is damaged at offset %d: %s", e.File, e.Offset, e.What)
}

// noSpace reports whether a write failed for want of space only, so that a
// later one may succeed.
func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}
