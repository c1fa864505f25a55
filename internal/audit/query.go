package audit

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Query picks events; empty members pick all.
type Query struct {
	Account      string // of the caller
	Unsigned     bool   // only calls of which the caller was not known
	Since, Until time.Time
	User         string // a part of the caller's ARN, or an access key ID
	Name         string // of the event, as in StartRecovery; its case does not count
	Resource     string // a part of the request's parameters or the reply
	Changes      bool   // leave out calls that only read
	Errors       bool   // only refused calls
	Most         int    // how many, the latest; at least 1
}

// ErrUnreadable: some lines are no events. The rest was read.
var ErrUnreadable = errors.New("some lines of the audit log cannot be read")

func (q Query) picks(e *Event) bool {
	switch {
	case q.Account != "" && e.Identity.AccountID != q.Account,
		q.Unsigned && e.Identity.AccountID != "",
		!q.Since.IsZero() && e.Time.Before(q.Since),
		!q.Until.IsZero() && !e.Time.Before(q.Until),
		q.User != "" && !strings.Contains(e.Identity.ARN, q.User) && e.Identity.AccessKeyID != q.User,
		q.Name != "" && !strings.EqualFold(e.Name, q.Name),
		q.Changes && e.ReadOnly,
		q.Errors && e.ErrorCode == "",
		q.Resource != "" && !strings.Contains(string(e.RequestParameters)+string(e.ResponseElements), q.Resource):
		return false
	}
	return true
}

// Search returns the events that a query picks, latest first: in the order in which
// one account's were recorded, by their own times where it picks those of several. A
// torn last line of a file is passed over; any other that cannot be read is
// ErrUnreadable beside the events.
func (l *Log) Search(ctx context.Context, q Query) (found []Event, err error) {
	among := l.folders()
	switch {
	case q.Unsigned:
		among = []*folder{l.unsigned}
	case q.Account != "":
		own, err := l.of(q.Account)
		if err != nil {
			return nil, err
		}
		among = []*folder{own, l.earlier}
	}
	unreadable := 0
	for _, f := range among {
		some, bad, err := f.search(ctx, q)
		if err != nil {
			return nil, err
		}
		found, unreadable = append(found, some...), unreadable+bad
	}
	if q.Account == "" && !q.Unsigned {
		slices.SortStableFunc(found, func(a, b Event) int { return b.Time.Compare(a.Time) })
	}
	if unreadable > 0 {
		err = fmt.Errorf("%w: %d", ErrUnreadable, unreadable)
	}
	return found[:min(len(found), q.Most)], err
}

// search is Search in one folder; unreadable counts lines.
func (l *folder) search(ctx context.Context, q Query) (found []Event, unreadable int, err error) {
	names, err := l.files()
	if err != nil {
		return nil, 0, err
	}
	for _, name := range slices.Backward(names) {
		if err := ctx.Err(); err != nil {
			return nil, 0, err
		}
		path := filepath.Join(l.dir, name)
		if info, err := os.Stat(path); err == nil && !q.Since.IsZero() && info.ModTime().Before(q.Since) {
			break // and all older ones, too
		}
		batch, bad, err := searchFile(ctx, path, q, q.Most-len(found))
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, 0, err
		}
		unreadable += bad
		if extra := len(batch) - (q.Most - len(found)); extra > 0 {
			batch = batch[extra:]
		}
		slices.Reverse(batch)
		if found = append(found, batch...); len(found) >= q.Most {
			break
		}
	}
	return found, unreadable, nil
}

// maxLine is more than any event has.
const maxLine = 1 << 20

// searchFile returns the latest events of one file, oldest first.
func searchFile(ctx context.Context, path string, q Query, most int) (found []Event, unreadable int, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, 0, fmt.Errorf("read audit log: %w", err)
	}
	defer file.Close()
	lines := bufio.NewReaderSize(file, 64<<10)
	for n := 0; ; n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return nil, 0, ctx.Err()
		}
		line, err := readLine(lines)
		if errors.Is(err, io.EOF) {
			return found, unreadable, nil
		}
		if err != nil {
			return nil, 0, fmt.Errorf("read audit log %s: %w", path, err)
		}
		var e Event
		if line == nil || json.Unmarshal(line, &e) != nil {
			unreadable++
			continue
		}
		if q.picks(&e) {
			found = append(found, e)
		}
		if len(found) >= 2*most { // the latest are the ones wanted
			found = append(found[:0], found[len(found)-most:]...)
		}
	}
}

// readLine returns the next whole line; nil for one that is too long. A last line
// without its end was torn, and is io.EOF.
func readLine(r *bufio.Reader) (line []byte, err error) {
	size := 0
	for {
		part, err := r.ReadSlice('\n')
		if size += len(part); size <= maxLine {
			line = append(line, part...)
		}
		switch {
		case err == nil && size > maxLine:
			return nil, nil
		case err == nil:
			return line, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}
