package db

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/uptrace/bun"
)

// Listed is what a listing shows of one row, as of one version of it. Requests
// share it until the row changes: nobody may change V.
type Listed[T any] struct {
	V T

	written atomic.Pointer[Written]
}

// Written is what V looks like to clients, and when it did so.
type Written struct {
	Text []byte
	At   time.Time
}

// Written is what was last kept here; nil: nothing yet.
func (l *Listed[T]) Written() *Written { return l.written.Load() }

// Keep keeps it for the next to list the row. Nobody may change it any more.
func (l *Listed[T]) Keep(w *Written) { l.written.Store(w) }

// values are the resources of listed rows.
func values[T any](rows []*Listed[T]) []T {
	return convert(rows, func(l *Listed[T]) T { return l.V })
}

// mark is the place of a row in a listing, and the version that it has there.
type mark struct {
	cursor
	version int64
}

// marks runs a query that selects number, ID and version of rows, one more than the
// page has, and returns those of the page and the cursor of the next one.
func marks(ctx context.Context, q *bun.SelectQuery, page Page) ([]mark, string, error) {
	rows, err := q.Rows(ctx)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = rows.Close() }() // Err tells what went wrong
	all := make([]mark, 0, min(page.Limit, 1000)+1)
	for rows.Next() {
		var m mark
		var id sql.RawBytes
		if err := rows.Scan(&m.number, &id, &m.version); err != nil {
			return nil, "", err
		}
		m.id = string(id)
		all = append(all, m)
	}
	if err := rows.Err(); err != nil {
		return nil, "", err
	}
	all, next := cut(page, all, func(m mark) cursor { return m.cursor })
	return all, next, nil
}

// shelf remembers what rows of one table were made into, by their versions. A row
// that changed has a version that is not known: there is nothing to invalidate. The
// zero value is empty; it is safe for concurrent use.
type shelf[T any] struct {
	mu    sync.Mutex
	known map[string]shelved[T] // by ID
	bytes int
}

type shelved[T any] struct {
	*Listed[T]
	version int64
	bytes   int
}

// maxShelf bounds the bytes that the texts of the rows on one shelf have; what was
// made of them takes three to four times as much.
const maxShelf = 16 << 20

// take returns what is known of the marked rows, nil in the places of the others,
// and the IDs of those.
func (s *shelf[T]) take(all []mark) (found []*Listed[T], missing []string) {
	found = make([]*Listed[T], len(all))
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, m := range all {
		if known, ok := s.known[m.id]; ok && known.version == m.version {
			found[i] = known.Listed
		} else {
			missing = append(missing, m.id)
		}
	}
	return found, missing
}

// put remembers one row, whose texts have that many bytes; when the shelf is full,
// others are forgotten for it.
func (s *shelf[T]) put(id string, version int64, bytes int, l *Listed[T]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil {
		s.known = map[string]shelved[T]{}
	}
	s.bytes += bytes - s.known[id].bytes
	s.known[id] = shelved[T]{l, version, bytes}
	for other, o := range s.known { // in no order
		if s.bytes <= maxShelf {
			return
		}
		s.bytes -= o.bytes
		delete(s.known, other)
	}
}

// list returns the marked rows, of which read makes those that are not on the
// shelf. One that was deleted meanwhile is left out.
func (s *shelf[T]) list(all []mark, read func(ids []string) (map[string]*Listed[T], error)) ([]*Listed[T], error) {
	found, missing := s.take(all)
	if len(missing) == 0 {
		return found, nil
	}
	fresh, err := read(missing)
	if err != nil {
		return nil, fmt.Errorf("read %d rows: %w", len(missing), err)
	}
	out := found[:0]
	for i, l := range found {
		if l == nil {
			l = fresh[all[i].id]
		}
		if l != nil {
			out = append(out, l)
		}
	}
	return out, nil
}
