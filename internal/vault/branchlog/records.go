package branchlog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
)

// Record is one change of the branch, as it lies in the log.
type Record struct {
	Sequence uint64 // of its group; records of one group share it
	Kind     Kind
	Block    uint64 // first block of the disk
	Count    uint32 // blocks
	Data     []byte // of Data: Count blocks; valid until the next record
}

// Records yields the changes with a sequence above since, in the order in which
// they were made, up to the last one of this moment; whoever needs durable ones
// calls Flush first. Applied in order over the state at since they give the
// present state. What a later change made moot may be missing, and what the
// collector moved comes again. An error is the last thing yielded.
func (l *Log) Records(ctx context.Context, since uint64) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		if err := l.records(ctx, since, l.Sequence(), yield); err != nil {
			yield(Record{}, fmt.Errorf("read records since %d: %w", since, err))
		}
	}
}

func (l *Log) records(ctx context.Context, since, upTo uint64, yield func(Record, error) bool) error {
	if err := l.err(); err != nil {
		return err
	}
	l.mu.RLock()
	var files []*logFile
	for _, f := range l.logs {
		if f.last > since {
			files = append(files, f.acquire())
		}
	}
	l.mu.RUnlock()
	defer func() {
		for _, f := range files {
			f.release()
		}
	}()
	slices.SortFunc(files, func(a, b *logFile) int { return cmp.Compare(a.number, b.number) })

	buf := make([]byte, maxGroupBlocks*BlockSize)
	for _, f := range files {
		groups, end, why, err := l.scan(f)
		if err != nil {
			return err
		}
		// The end of the file that is being written may be half a group.
		if !errors.Is(why, io.EOF) && (len(groups) == 0 || groups[len(groups)-1].sequence < min(upTo, f.lastOf(l))) {
			return f.corrupt(end, why.Error())
		}
		for _, g := range groups {
			if g.sequence <= since {
				continue
			}
			if g.sequence > upTo {
				return nil
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			if more, err := f.records(g, buf, yield); !more || err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *logFile) lastOf(l *Log) uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return f.last
}

func (f *logFile) records(g placed, buf []byte, yield func(Record, error) bool) (more bool, err error) {
	if err := f.readBlocks(buf, g.pos+1, 0, uint32(g.blocks)); err != nil {
		return false, err
	}
	for _, s := range g.spans {
		r := Record{Sequence: g.sequence, Kind: s.kind, Block: s.first, Count: s.count}
		if s.kind == Data {
			n := int(s.count) * BlockSize
			r.Data, buf = buf[:n:n], buf[n:]
		}
		if !yield(r, nil) {
			return false, nil
		}
	}
	return true, nil
}
