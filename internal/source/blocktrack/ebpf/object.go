package ebpf

import (
	"bytes"
	_ "embed"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
)

// The programs, built ahead so that an agent needs no compiler. The second file
// holds the digest of the source that the first was made of.
//
//go:generate bpf/build.sh
//go:embed bpf/track.o
var object []byte

// maxDisks and inner must be what track.c says.
const maxDisks = 64

// programs is the loaded object. Its links keep the programs attached for as long
// as they can be reached: by this process, or by their pins.
type programs struct {
	collection *ebpf.Collection // nil: taken over from another process
	maps       map[string]*ebpf.Map
	links      map[string]link.Link
}

// attached are the programs, in the order in which they are attached.
var attached = []string{"rq_complete_1", "rq_complete_2", "rq_complete_3", "bio_remap", "bio_queue"}

// load loads the programs and attaches nothing yet.
func load(shift uint) (*programs, error) {
	if err := checkKernel(); err != nil {
		return nil, err
	}
	// Kernels before 5.11 count maps as locked memory. Where this is refused, the
	// limit there is may do.
	_ = rlimit.RemoveMemlock()
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		return nil, fmt.Errorf("ebpf tracker: read the programs: %w", err)
	}
	if err := spec.Variables["grain_shift"].Set(uint32(shift)); err != nil {
		return nil, fmt.Errorf("ebpf tracker: %w", err)
	}
	collection, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, explain(err)
	}
	return &programs{collection: collection, maps: collection.Maps, links: map[string]link.Link{}}, nil
}

// attach starts all programs. From its return on every write is seen.
func (p *programs) attach() error {
	for _, name := range attached {
		l, err := link.AttachTracing(link.TracingOptions{Program: p.collection.Programs[name]})
		if err != nil {
			return explain(err)
		}
		p.links[name] = l
	}
	return nil
}

func (p *programs) close() error {
	var first error
	for _, l := range p.links {
		if err := l.Close(); err != nil && first == nil {
			first = fmt.Errorf("ebpf tracker: detach: %w", err)
		}
	}
	if p.collection != nil {
		p.collection.Close()
		return first
	}
	for _, m := range p.maps {
		if err := m.Close(); err != nil && first == nil {
			first = fmt.Errorf("ebpf tracker: let go of the maps: %w", err)
		}
	}
	return first
}
