package stamp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Writer carries out operations. One goroutine uses it.
type Writer struct {
	plan    Plan
	targets []target
	pages   []byte // aligned as O_DIRECT wants it
}

type target struct {
	Target
	direct, buffered *os.File // nil of a leaf
}

// Open opens the targets of a plan. Files are made where they are missing, and are
// durable, as holes, when it returns.
func Open(p Plan) (*Writer, error) {
	if err := p.valid(); err != nil {
		return nil, err
	}
	w := &Writer{plan: p}
	longestOp := int64(longest)
	for _, t := range p.Targets {
		longestOp = max(longestOp, t.Blocks)
		open := target{Target: t}
		if t.Kind != Leaf {
			var err error
			if open.buffered, err = openFile(t); err == nil {
				open.direct, err = os.OpenFile(t.Path, os.O_RDWR|unix.O_DIRECT, 0)
			}
			if err != nil {
				return nil, errors.Join(fmt.Errorf("open target: %w", err), w.Close())
			}
		}
		w.targets = append(w.targets, open)
	}
	var err error
	w.pages, err = unix.Mmap(-1, 0, int(longestOp*BlockSize), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

func openFile(t Target) (*os.File, error) {
	flags := os.O_RDWR
	if t.Kind == File {
		flags |= os.O_CREATE
	}
	f, err := os.OpenFile(t.Path, flags, 0o600)
	if err != nil || t.Kind == Device {
		return f, err
	}
	info, err := f.Stat()
	if err == nil && info.Size() < t.Blocks*BlockSize {
		if err = f.Truncate(t.Blocks * BlockSize); err == nil {
			err = f.Sync()
		}
		if err == nil {
			err = syncDir(filepath.Dir(t.Path))
		}
	}
	return f, err
}

// Close lets go of the targets.
func (w *Writer) Close() error {
	var all error
	for _, t := range w.targets {
		for _, f := range []*os.File{t.direct, t.buffered} {
			if f != nil {
				all = errors.Join(all, f.Close())
			}
		}
	}
	if w.pages != nil {
		all = errors.Join(all, unix.Munmap(w.pages))
	}
	w.targets, w.pages = nil, nil
	return all
}

// Find returns what the targets hold themselves, as Plan.Check does.
func (w *Writer) Find(upTo uint64) (Found, error) {
	var readers []io.ReaderAt
	for _, t := range w.targets {
		if t.Kind != Leaf {
			readers = append(readers, t.buffered)
			continue
		}
		f, err := os.Open(t.Path)
		if errors.Is(err, fs.ErrNotExist) {
			readers = append(readers, nil)
			continue
		}
		if err != nil {
			return nil, err
		}
		defer f.Close()
		readers = append(readers, f)
	}
	return w.plan.Check(readers, upTo)
}

// Run carries out operations from a number on, each durable before done is told, and
// the next one begun after that. It ends with ctx, which is no error.
func (w *Writer) Run(ctx context.Context, from uint64, done func(number uint64) error) error {
	for number := from; ctx.Err() == nil; number++ {
		op := w.plan.Op(number)
		if err := w.Do(op); err != nil {
			return fmt.Errorf("%s: %w", op, err)
		}
		if err := done(number); err != nil {
			return err
		}
	}
	return nil
}

// Do carries out an operation; it is durable when Do returns.
func (w *Writer) Do(o Op) error {
	t := w.targets[o.Target]
	data := w.pages[:o.Count*BlockSize]
	if o.Way != Punch {
		for i := range o.Count {
			w.plan.fill(data[i*BlockSize:][:BlockSize], o.Number, o.Target, o.First+i)
		}
	}
	at := o.First * BlockSize
	switch o.Way {
	case Direct:
		if _, err := t.direct.WriteAt(data, at); err != nil {
			return err
		}
		return t.direct.Sync()
	case Buffered:
		if _, err := t.buffered.WriteAt(data, at); err != nil {
			return err
		}
		return t.buffered.Sync()
	case Mapped:
		return w.throughMap(t.buffered, at, data)
	case Punch:
		return punch(t, at, int64(len(data)))
	case Replace:
		return replace(t.Path, data)
	}
	return fmt.Errorf("no way %q", o.Way)
}

func (w *Writer) throughMap(f *os.File, at int64, data []byte) error {
	m, err := unix.Mmap(int(f.Fd()), at, len(data), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	copy(m, data)
	return errors.Join(unix.Msync(m, unix.MS_SYNC), unix.Munmap(m))
}

func punch(t target, at, length int64) error {
	if t.Kind == File {
		if err := unix.Fallocate(int(t.buffered.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at, length); err != nil {
			return err
		}
		return t.buffered.Sync()
	}
	span := [2]uint64{uint64(at), uint64(length)}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, t.buffered.Fd(), unix.BLKZEROOUT, uintptr(unsafe.Pointer(&span))) //nolint:gosec // two numbers, read by the call
	if errno != 0 {
		return errno
	}
	return t.buffered.Sync()
}

// replace makes a file another one, at once.
func replace(path string, data []byte) (err error) {
	next := path + ".next"
	f, err := os.OpenFile(next, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(next, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
