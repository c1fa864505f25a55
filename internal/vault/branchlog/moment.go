package branchlog

import (
	"context"
	"fmt"
	"iter"
)

// Moment is the state of several logs at one instant: what any write of one of
// them rests on in another is in it, too. All of it is durable. It must be closed,
// and the logs not before it: their collectors wait for it.
type Moment struct {
	logs      []*Log
	sequences []uint64
}

// Cut takes the moment of now. Writers wait for as long as it takes to look at
// each log, not for the disk. Only one Moment of a log exists at a time: the next
// waits, in the order of the arguments, so two callers must name them alike.
func Cut(logs ...*Log) (*Moment, error) {
	m := &Moment{logs: logs, sequences: make([]uint64, len(logs))}
	for _, l := range logs {
		l.clean.Lock() // what is superseded after the cut must be there to be read
	}
	for _, l := range logs {
		l.append.mu.Lock()
	}
	for i, l := range logs {
		m.sequences[i] = l.Sequence()
	}
	for _, l := range logs {
		l.append.mu.Unlock()
	}
	for _, l := range logs {
		if err := l.flush(); err != nil {
			m.Close()
			return nil, fmt.Errorf("cut branch log: %w", err)
		}
	}
	return m, nil
}

// Close lets the collectors go on. Closing twice is safe.
func (m *Moment) Close() {
	for _, l := range m.logs {
		l.clean.Unlock()
	}
	m.logs = nil
}

// Sequence is that of the last change of the i-th log in the moment.
func (m *Moment) Sequence(i int) uint64 { return m.sequences[i] }

// Records yields the changes of the i-th log with a sequence above since, in the
// order in which they were made. Applied over the log's state at an earlier Moment,
// or at any time between since and it, they give its state at this one. An error
// is the last thing yielded.
func (m *Moment) Records(ctx context.Context, i int, since uint64) iter.Seq2[Record, error] {
	l, upTo := m.logs[i], m.sequences[i]
	return func(yield func(Record, error) bool) {
		if err := l.records(ctx, since, upTo, yield); err != nil {
			yield(Record{}, fmt.Errorf("read records from %d to %d: %w", since, upTo, err))
		}
	}
}
