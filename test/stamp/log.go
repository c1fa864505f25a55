package stamp

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"time"
)

// Log is when operations were durable, by the writer's clock. Entries may be missing:
// what is not known to have been durable is not asked for. The zero value is empty.
type Log struct {
	ended map[uint64]time.Time
	last  uint64
}

// Entry is a line of the log: an operation that is durable. Its end tells that it is
// whole.
func Entry(number uint64, at time.Time) string {
	return fmt.Sprintf("done %d %d.\n", number, at.UnixNano())
}

// Begin goes before the first entry of a writer: what another one left unfinished
// does not become a part of it.
const Begin = "\n"

// ReadLog reads the lines of a log. Lines that were cut off, as a machine that lost its
// power leaves them, are passed over.
func ReadLog(r io.Reader) (*Log, error) {
	l := &Log{ended: map[uint64]time.Time{}}
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		if err == io.EOF {
			return l, nil
		}
		if err != nil {
			return nil, err
		}
		var number uint64
		var at int64
		if n, err := fmt.Sscanf(line, "done %d %d.\n", &number, &at); n != 2 || err != nil {
			continue
		}
		// An operation that is done again after a restart was durable before.
		if _, known := l.ended[number]; !known {
			l.ended[number] = time.Unix(0, at)
		}
		l.last = max(l.last, number)
	}
}

// Last is the latest operation known to be durable; 0: none.
func (l *Log) Last() uint64 { return l.last }

// At returns what an image of a moment must hold: at least done operations, and none
// beyond begun. The moment is known to the given precision: it may be as much later.
func (l *Log) At(t time.Time, precision time.Duration) (done, begun uint64) {
	begun = math.MaxUint64
	for number, ended := range l.ended {
		if !ended.After(t) {
			done = max(done, number)
		}
		if ended.After(t.Add(precision)) {
			begun = min(begun, number)
		}
	}
	return done, begun
}
