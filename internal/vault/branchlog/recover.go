package branchlog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"lifeboat/internal/durable"
)

// Open opens the log in dir over base with the key that it was created with. It
// reads the headers of the log, not its data, and cuts off what a crash left
// unfinished at the end. fs.ErrNotExist: there is no log; ErrInUse, ErrWrongKey,
// *CorruptError as they say. Size() of the base must be that of the log.
func Open(dir string, key []byte, base Base) (*Log, error) {
	return open(dir, key, base, durable.Files{}, defaultFileBlocks)
}

func open(dir string, key []byte, base Base, files durable.Files, limit uint32) (*Log, error) {
	l := &Log{
		dir:   filepath.Clean(dir),
		base:  base,
		key:   key,
		files: files,
		limit: limit,
		wake:  make(chan struct{}, 1),
		logs:  map[uint32]*logFile{},
	}
	l.append.group = newGroupBuffer()
	l.syncs.init()
	if err := l.recover(); err != nil {
		l.abandon()
		return nil, fmt.Errorf("open branch log %s: %w", dir, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.stop = cancel
	l.tasks.Go(func() { l.collect(ctx) })
	l.wakeCollector()
	return l, nil
}

// abandon closes what a failed Open had opened.
func (l *Log) abandon() {
	for _, f := range l.logs {
		f.release()
	}
	for _, f := range []*os.File{l.mark, l.lock} {
		if f != nil {
			f.Close()
		}
	}
}

func (l *Log) recover() (err error) {
	if l.lock, err = lockDir(l.dir); err != nil {
		return err
	}
	if err := l.readHeader(); err != nil {
		return err
	}
	if l.mark, err = os.OpenFile(filepath.Join(l.dir, markName), os.O_RDWR, 0); err != nil {
		return err
	}
	flushed, err := l.readMark()
	if err != nil {
		return err
	}
	numbers, err := l.list()
	if err != nil {
		return err
	}
	for i, n := range numbers {
		f, err := l.openFile(n)
		if err != nil {
			return err
		}
		l.logs[n] = f
		l.append.number = n
		last := i == len(numbers)-1
		if !last {
			err = l.replaySealed(f)
		} else {
			err = l.replayLast(f, flushed)
		}
		if err != nil {
			return err
		}
	}
	if flushed.sequence > l.sequence {
		return &CorruptError{File: logPath(l.dir, flushed.file), Offset: 0,
			What: fmt.Sprintf("it is missing: writes up to %d were flushed, and the log ends at %d", flushed.sequence, l.sequence)}
	}
	l.append.sequence = l.sequence
	l.syncs.done = l.sequence
	return nil
}

func (l *Log) readHeader() error {
	path := filepath.Join(l.dir, branchName)
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if l.header, err = decodeBranchHeader(b); err != nil {
		return &CorruptError{File: path, What: err.Error()}
	}
	check, err := keyCheck(l.key, l.header.salt)
	if err != nil {
		return err
	}
	if l.header.encrypted != (l.key != nil) || check != l.header.keyCheck {
		return ErrWrongKey
	}
	if l.base.Size() != l.header.size {
		return fmt.Errorf("the log is of a disk of %d bytes, its base has %d", l.header.size, l.base.Size())
	}
	return nil
}

func (l *Log) readMark() (mark, error) {
	b := make([]byte, markLen)
	if _, err := l.mark.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return mark{}, fmt.Errorf("read flush mark: %w", err)
	}
	m, ok := decodeMark(b, l.header.id)
	if !ok {
		// It is written in place and without a sync, so a crash may tear it.
		// The headers of the groups say the same, a little later.
		return mark{id: l.header.id}, nil
	}
	return m, nil
}

// list returns the numbers of the log files in order, and removes files that
// were being created when the process died.
func (l *Log) list() (numbers []uint32, err error) {
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		name := e.Name()
		if n, ok := parseLogName(name); ok {
			numbers = append(numbers, n)
			continue
		}
		if strings.HasPrefix(name, ".") && strings.HasSuffix(name, ".tmp") {
			if err := l.files.Remove("remove unfinished file", filepath.Join(l.dir, name)); err != nil {
				return nil, err
			}
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

func (l *Log) openFile(number uint32) (*logFile, error) {
	path := logPath(l.dir, number)
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, BlockSize)
	if _, err := io.ReadFull(f, b); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, &CorruptError{File: path, What: "the file header is cut short"}
		}
		return nil, fmt.Errorf("read log file header: %w", err)
	}
	h, err := decodeFileHeader(b)
	if err != nil {
		return nil, &CorruptError{File: path, What: err.Error()}
	}
	if h.number != number || h.id != l.header.id {
		return nil, &CorruptError{File: path, What: "the file belongs to another place or another log"}
	}
	return openLogFile(path, l.key, h)
}

// placed is a group and where its header lies.
type placed struct {
	group
	pos uint32
}

// scan decodes the groups of a file from its beginning. It stops at the first
// block that is not an intact group, and returns where that is and why; io.EOF
// when the file ends there as it should.
func (l *Log) scan(f *logFile) (groups []placed, end uint32, why, err error) {
	info, err := f.f.Stat()
	if err != nil {
		return nil, 0, nil, err
	}
	blocks := uint64(info.Size() / BlockSize)
	h := headers{f: f}
	last, end := f.after, uint32(1)
	for {
		if int64(end)*BlockSize == info.Size() {
			return groups, end, io.EOF, nil
		}
		b, err := h.at(end)
		if errors.Is(err, io.EOF) {
			return groups, end, errNotGroup, nil
		}
		if err != nil {
			return nil, 0, nil, fmt.Errorf("read branch log: %w", err)
		}
		g, err := decodeGroup(f.key, b, l.header.diskBlocks())
		if err != nil {
			return groups, end, err, nil
		}
		next := uint64(end) + 1 + uint64(g.blocks)
		if g.sequence <= last || next > blocks {
			return groups, end, errNotGroup, nil
		}
		groups = append(groups, placed{g, end})
		last, end = g.sequence, uint32(next)
	}
}

// replaySealed replays a file that has a successor: it was synced before that
// was begun, so all of it must be there.
func (l *Log) replaySealed(f *logFile) error {
	groups, end, why, err := l.scan(f)
	if err != nil {
		return err
	}
	if !errors.Is(why, io.EOF) {
		return f.corrupt(end, why.Error())
	}
	return l.replay(f, groups, end)
}

// replayLast replays the file that was being written, cuts its torn end off and
// makes the rest durable, since from now on it is as any other.
func (l *Log) replayLast(f *logFile, flushed mark) error {
	groups, end, why, err := l.scan(f)
	if err != nil {
		return err
	}
	known := max(flushed.sequence, f.after) // durable for certain
	for _, g := range groups {
		known = max(known, g.durable)
	}
	lastGroup := f.after
	if len(groups) > 0 {
		lastGroup = groups[len(groups)-1].sequence
	}
	if !errors.Is(why, io.EOF) {
		if !errors.Is(why, errNotGroup) {
			// Its checksum is right, so no crash made it.
			return f.corrupt(end, why.Error())
		}
		later, err := l.durableAfter(f, end)
		if err != nil {
			return err
		}
		if max(known, later) > lastGroup || flushed.file == f.number && flushed.end > end {
			return f.corrupt(end, why.Error()+" where one was flushed")
		}
	}
	// What was not flushed may have its header and lack its payload.
	buf := make([]byte, maxGroupBlocks*BlockSize)
	for i, g := range groups {
		if g.sequence <= known {
			continue
		}
		err := f.readBlocks(buf, g.pos+1, 0, uint32(g.blocks))
		if _, torn := errors.AsType[*CorruptError](err); torn {
			groups, end, why = groups[:i], g.pos, err
			break
		}
		if err != nil {
			return err
		}
	}
	if len(groups) == 0 {
		return l.discard(f)
	}
	if !errors.Is(why, io.EOF) {
		if err := f.f.Truncate(int64(end) * BlockSize); err != nil {
			return fmt.Errorf("cut torn end: %w", err)
		}
	}
	if err := l.files.Sync("sync recovered log", f.f); err != nil {
		return err
	}
	return l.replay(f, groups, end)
}

// durableAfter looks behind a broken group for others, and returns what they
// say was durable before they were written.
func (l *Log) durableAfter(f *logFile, pos uint32) (known uint64, err error) {
	h := headers{f: f}
	for pos++; ; pos++ {
		b, err := h.at(pos)
		if errors.Is(err, io.EOF) {
			return known, nil
		}
		if err != nil {
			return 0, fmt.Errorf("read branch log: %w", err)
		}
		if g, err := peekGroup(f.key, b); err == nil && g.sequence > f.after {
			known = max(known, g.durable)
		}
	}
}

// replay puts the groups of a file into the map.
func (l *Log) replay(f *logFile, groups []placed, end uint32) error {
	if len(groups) > 0 && groups[0].sequence <= l.sequence {
		return f.corrupt(groups[0].pos, fmt.Sprintf("its sequence %d does not follow %d", groups[0].sequence, l.sequence))
	}
	for _, g := range groups {
		l.applyLocked(f, g.pos, &g.group)
	}
	f.end = end
	return nil
}

// discard removes a file without a group. It is never written to again, because
// what was torn off it was sealed under its key.
func (l *Log) discard(f *logFile) error {
	delete(l.logs, f.number)
	f.release()
	if err := l.files.Remove("remove empty log file", f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return l.files.SyncDir("remove empty log file", l.dir)
}
