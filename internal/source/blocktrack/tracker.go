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
	//
	// A write that is on its way during a Swap is in the next one too, so that a
	// reader who came before its data comes again.
	Swap(ctx context.Context) ([]Changes, error)
	Close() error
}

// Watcher is a Tracker that sees writes as they happen.
type Watcher interface {
	Tracker
	// Quiet tells whether no disk was written to since the last Swap began, and
	// no write is on its way. What was read in between is then what the disks
	// held at every moment of that time, this one included.
	Quiet() (bool, error)
}

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
