package blocktrack

import "context"

// Tracker says which parts of a server's disks may have changed. One goroutine
// uses it at a time.
type Tracker interface {
	// Name is what the API and logs call it: scan, ebpf, qemu.
	Name() string
	// Swap returns what may have changed since the last Swap, in the order of
	// the disks, and starts to collect anew. The first Swap returns everything,
	// and so does any after which the tracker cannot vouch for completeness.
	Swap(ctx context.Context) ([]Changes, error)
	Close() error
}

// Changes are the parts of one disk that may have changed.
type Changes struct {
	All    bool
	Ranges []Range // sorted and apart from each other; nil with All
}

// Range is a run of bytes.
type Range struct{ Offset, Length int64 }

// Scan is the tracker that knows nothing and so names everything: the content
// digests find the changes. It needs no help from the machine.
type Scan struct{ Disks int }

func (Scan) Name() string { return "scan" }
func (Scan) Close() error { return nil }

func (s Scan) Swap(context.Context) ([]Changes, error) {
	changes := make([]Changes, s.Disks)
	for i := range changes {
		changes[i].All = true
	}
	return changes, nil
}
