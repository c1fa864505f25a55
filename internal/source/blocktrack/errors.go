package blocktrack

import "fmt"

// GoneError: the disk is not where it was. Replication goes on once it is back.
type GoneError struct {
	Device string // empty: it is the machine that is not there, with all of them
	Err    error
}

func (e *GoneError) Error() string {
	if e.Device == "" {
		return "the machine is not there: " + e.Err.Error()
	}
	return fmt.Sprintf("disk %s is gone: %v", e.Device, e.Err)
}

func (e *GoneError) Unwrap() error { return e.Err }

// ShrunkError: the disk is smaller than what was replicated of it.
type ShrunkError struct {
	Device   string
	Was, Now int64 // bytes
}

func (e *ShrunkError) Error() string {
	return fmt.Sprintf("disk %s shrank from %d to %d bytes", e.Device, e.Was, e.Now)
}

// ReadError: some bytes of the disk cannot be read.
type ReadError struct {
	Device string
	Offset int64 // where the read that hit it began
	Err    error
}

func (e *ReadError) Error() string {
	return fmt.Sprintf("disk %s cannot be read at byte %d: %v", e.Device, e.Offset, e.Err)
}
func (e *ReadError) Unwrap() error { return e.Err }

// HinderedError: the tracker cannot tell what changed for now, and nothing is lost by
// it. It is the user who can help.
type HinderedError struct {
	Err      error
	NextStep string
}

func (e *HinderedError) Error() string { return e.Err.Error() }
func (e *HinderedError) Unwrap() error { return e.Err }
