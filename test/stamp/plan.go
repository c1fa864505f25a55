package stamp

import (
	"fmt"
	"math/rand/v2"
)

// BlockSize is the unit of all positions and lengths, in bytes.
const BlockSize = 4096

// Kind is what a target is.
type Kind string

const (
	File   Kind = "file"   // a file of fixed length, sparse at first
	Leaf   Kind = "leaf"   // a file that is replaced as a whole, absent at first
	Device Kind = "device" // a block device, zeros at first
)

// Target is something to write to.
type Target struct {
	Path   string
	Kind   Kind
	Blocks int64 // from the start; at least 1
}

// Way is how an operation writes. Each is durable when it is done.
type Way byte

const (
	Direct   Way = 'd' // O_DIRECT and fsync
	Buffered Way = 'b' // write and fsync
	Mapped   Way = 'm' // through a memory map, and msync
	Punch    Way = 'p' // blocks are given back: a hole in a file, write zeroes on a device
	Replace  Way = 'r' // a new file is written, fsynced, renamed over the old one, and its directory fsynced
)

// Op is one operation.
type Op struct {
	Number       uint64 // from 1
	Target       int
	Way          Way
	First, Count int64 // blocks
}

func (o Op) String() string {
	return fmt.Sprintf("operation %d (%c, target %d, blocks %d to %d)", o.Number, o.Way, o.Target, o.First, o.First+o.Count-1)
}

// Plan says what every operation is. It is a value for any number of goroutines.
type Plan struct {
	Seed    uint64
	Targets []Target
}

// valid finds what no plan can be made of.
func (p Plan) valid() error {
	if len(p.Targets) == 0 {
		return fmt.Errorf("a plan without targets")
	}
	for _, t := range p.Targets {
		if t.Blocks < 1 || t.Kind != File && t.Kind != Leaf && t.Kind != Device {
			return fmt.Errorf("target %s: kind %q, %d blocks", t.Path, t.Kind, t.Blocks)
		}
	}
	return nil
}

// Ways of files and devices, as often as they are to be chosen.
const ways = "dddbbbmmpp"

// longest is the most blocks of an operation but Replace.
const longest = 48

// Op returns an operation by its number, the same one for the same seed.
func (p Plan) Op(number uint64) Op {
	rng := rand.New(rand.NewPCG(p.Seed, number)) //nolint:gosec // to be repeated
	o := Op{Number: number, Target: rng.IntN(len(p.Targets))}
	t := p.Targets[o.Target]
	if t.Kind == Leaf {
		o.Way, o.Count = Replace, t.Blocks
		return o
	}
	o.Way = Way(ways[rng.IntN(len(ways))])
	o.Count = 1 + rng.Int64N(3)
	if rng.IntN(8) == 0 {
		o.Count = 1 + rng.Int64N(longest)
	}
	o.Count = min(o.Count, t.Blocks)
	o.First = rng.Int64N(t.Blocks - o.Count + 1)
	return o
}
