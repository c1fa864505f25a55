package stamp

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// Prefix is a state that an image may be in: all operations up to Ops, and none
// after them, but for the next one where Part is set: that one is there in part.
type Prefix struct {
	Ops  uint64
	Part bool
}

// Found are the states that an image may be in: more than one where an operation
// changes nothing.
type Found []Prefix

// Last is the most operations that the image may hold.
func (f Found) Last() uint64 { return f[len(f)-1].Ops }

// Between tells whether the image may be of a moment when done operations were
// durable and no more than begun had begun.
func (f Found) Between(done, begun uint64) bool {
	for _, p := range f {
		need := p.Ops
		if p.Part {
			need++
		}
		if p.Ops >= done && need <= begun {
			return true
		}
	}
	return false
}

func (f Found) String() string {
	part := ""
	if f[len(f)-1].Part {
		part = " and a part of the next"
	}
	if len(f) == 1 {
		return fmt.Sprintf("operations 1 to %d%s", f.Last(), part)
	}
	return fmt.Sprintf("operations 1 to between %d and %d%s", f[0].Ops, f.Last(), part)
}

// Check finds the prefixes of the plan that an image may hold, which are none beyond
// upTo operations, or beyond the last one that left a stamp there if that is more. The
// readers are the targets in the plan's order; nil stands for a file that is not
// there, and what is beyond a reader's end for zeros. An image that is no prefix at
// all is an *Error.
func (p Plan) Check(targets []io.ReaderAt, upTo uint64) (Found, error) {
	if err := p.valid(); err != nil {
		return nil, err
	}
	image, last, err := p.load(targets)
	if err != nil {
		return nil, err
	}
	c := comparison{plan: p, image: image, state: make([][]uint64, len(image))}
	for t := range image {
		c.state[t] = make([]uint64, len(image[t]))
		for at := range image[t] {
			c.wrong += c.differs(t, int64(at))
		}
	}
	best, bestWrong := uint64(0), c.wrong+1
	var found Found
	for k := uint64(0); ; k++ {
		if k > 0 {
			c.apply(p.Op(k))
		}
		wrong := c.wrong
		next := p.Op(k + 1)
		inNext := c.wrongIn(next)
		switch {
		case wrong == 0:
			found = append(found, Prefix{Ops: k})
		case wrong == inNext && next.Way != Replace && c.partOf(next):
			found = append(found, Prefix{Ops: k, Part: true})
		}
		if wrong-inNext < bestWrong {
			best, bestWrong = k, wrong-inNext
		}
		if k >= max(last, upTo) {
			break
		}
	}
	if len(found) > 0 {
		return found, nil
	}
	return nil, c.explain(best, last)
}

// load reads a whole image, and the number of the latest operation that left a stamp.
func (p Plan) load(targets []io.ReaderAt) (image [][]held, last uint64, err error) {
	if len(targets) != len(p.Targets) {
		return nil, 0, fmt.Errorf("%d targets to check, the plan has %d", len(targets), len(p.Targets))
	}
	buf := make([]byte, 64*BlockSize)
	for t, target := range p.Targets {
		blocks := make([]held, target.Blocks)
		image = append(image, blocks)
		if targets[t] == nil {
			continue
		}
		for first := int64(0); first < target.Blocks; first += 64 {
			part := buf[:min(64, target.Blocks-first)*BlockSize]
			n, err := targets[t].ReadAt(part, first*BlockSize)
			if err != nil && !errors.Is(err, io.EOF) {
				return nil, 0, fmt.Errorf("read target %d (%s) at block %d: %w", t, target.Path, first, err)
			}
			clear(part[n:])
			for i := int64(0); i*BlockSize < int64(len(part)); i++ {
				h := p.read(part[i*BlockSize:][:BlockSize], t, first+i)
				blocks[first+i] = h
				last = max(last, h.number)
			}
		}
	}
	return image, last, nil
}

// comparison is an image beside the state that operations 1..k leave.
type comparison struct {
	plan  Plan
	image [][]held
	state [][]uint64 // number of the operation by target and block; 0: zeros
	wrong int64      // blocks that differ
}

func (c *comparison) differs(target int, at int64) int64 {
	if h := c.image[target][at]; h.other == nil && h.number == c.state[target][at] {
		return 0
	}
	return 1
}

// leaves is what an operation leaves in its blocks.
func (o Op) leaves() uint64 {
	if o.Way == Punch {
		return 0
	}
	return o.Number
}

func (c *comparison) apply(o Op) {
	for at := o.First; at < o.First+o.Count; at++ {
		c.wrong -= c.differs(o.Target, at)
		c.state[o.Target][at] = o.leaves()
		c.wrong += c.differs(o.Target, at)
	}
}

func (c *comparison) wrongIn(o Op) (n int64) {
	for at := o.First; at < o.First+o.Count; at++ {
		n += c.differs(o.Target, at)
	}
	return n
}

// partOf tells whether the blocks of an operation that has not been applied hold
// what was there before, or what it writes, or both.
func (c *comparison) partOf(o Op) bool {
	for at := o.First; at < o.First+o.Count; at++ {
		if !c.plan.mixes(c.image[o.Target][at], o.Target, at, c.state[o.Target][at], o.leaves()) {
			return false
		}
	}
	return true
}

// Error tells why an image is no prefix.
type Error struct {
	Seed uint64
	Best uint64 // the number of operations that fewest blocks contradict
	Last uint64 // the latest operation that left a stamp
	// Wrong are blocks that contradict Best, told for people; at most a few of Count.
	Wrong []string
	Count int64
}

func (e *Error) Error() string {
	return fmt.Sprintf("seed %d: the image is no prefix: the latest stamp is of operation %d; after operation %d, which comes nearest, %d blocks are wrong:\n  %s",
		e.Seed, e.Last, e.Best, e.Count, strings.Join(e.Wrong, "\n  "))
}

const toldBlocks = 12

// explain says what contradicts the best prefix.
func (c *comparison) explain(best, last uint64) error {
	p := c.plan
	again := comparison{plan: p, image: c.image, state: make([][]uint64, len(c.image))}
	for t := range again.state {
		again.state[t] = make([]uint64, len(c.image[t]))
	}
	for k := uint64(1); k <= best; k++ {
		again.apply(p.Op(k))
	}
	e := &Error{Seed: p.Seed, Best: best, Last: last}
	for t := range again.state {
		for at := range again.state[t] {
			if again.differs(t, int64(at)) == 0 {
				continue
			}
			if e.Count++; len(e.Wrong) < toldBlocks {
				e.Wrong = append(e.Wrong, fmt.Sprintf("%s block %d holds %s, expected %s",
					p.Targets[t].Path, at, c.image[t][at].describe(), held{number: again.state[t][at]}.describe()))
			}
		}
	}
	e.Wrong = append(e.Wrong, "the next one would be "+p.Op(best+1).String())
	return e
}

func (h held) describe() string {
	switch {
	case h.other != nil:
		return fmt.Sprintf("no whole stamp (%x...)", h.other[:headSize])
	case h.number == 0:
		return "zeros"
	}
	return fmt.Sprintf("operation %d", h.number)
}
