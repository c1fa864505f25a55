package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"lifeboat/internal/source/blocktrack"
)

// Device reads a disk as it was at the newest Swap, until Release. It is a
// blocktrack.Device; ReadAt may be called concurrently.
type Device struct {
	name string

	mu   sync.Mutex
	size int64 // by QEMU, when it was asked last
	view *view // nil: no cut is held
}

// view is the export of one disk of a cut.
type view struct {
	dial func(context.Context) (*client, error)
	idle chan *client // of at most readers
}

// readers is how many connections read one disk at most.
const readers = 4

// maxRead is what one request asks for at most; QEMU allows 32 MiB.
const maxRead = 16 << 20

var errNoCut = errors.New("no cut is held that it could be read from")

func (d *Device) Name() string { return d.name }

// Block tells that this is no block device of the machine the agent runs on.
func (d *Device) Block() bool { return false }

// Cached tells that what is read is what QEMU has.
func (d *Device) Cached() bool { return false }

// Close does nothing: the Tracker owns what there is to close.
func (d *Device) Close() error { return nil }

// Size is the disk's size at the newest Swap, in bytes.
func (d *Device) Size() (int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.size, nil
}

func (d *Device) set(size int64, v *view) {
	d.mu.Lock()
	old := d.view
	d.size, d.view = size, v
	d.mu.Unlock()
	if old != nil {
		old.close()
	}
}

func (d *Device) now() (*view, int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.view, d.size
}

// with lends f a connection. A connection that failed is not used again.
func (d *Device) with(f func(*client) error) error {
	v, _ := d.now()
	if v == nil {
		return &blocktrack.GoneError{Device: d.name, Err: errNoCut}
	}
	var c *client
	select {
	case c = <-v.idle:
	default:
		var err error
		if c, err = v.dial(context.Background()); err != nil {
			return &blocktrack.GoneError{Device: d.name, Err: err}
		}
	}
	err := f(c)
	var refused *nbdError
	switch {
	case err == nil, errors.As(err, &refused):
		select {
		case v.idle <- c:
		default:
			c.close()
		}
		return err
	default:
		c.close()
		return &blocktrack.GoneError{Device: d.name, Err: err}
	}
}

// close ends the idle connections. Nobody reads any more.
func (v *view) close() {
	for {
		select {
		case c := <-v.idle:
			c.close()
		default:
			return
		}
	}
}

func (d *Device) ReadAt(p []byte, off int64) (int, error) {
	_, size := d.now()
	if off < 0 || off >= size {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), size-off))
	for done := 0; done < n; {
		part := p[done:min(done+maxRead, n)]
		if err := d.with(func(c *client) error { return c.read(part, off+int64(done)) }); err != nil {
			return done, fmt.Errorf("read %s through QEMU: %w", d.name, err)
		}
		done += len(part)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

const (
	allocation = "base:allocation"
	stateZero  = 2
)

// Data asks QEMU which parts it knows to be zeros.
func (d *Device) Data(off int64) (data blocktrack.Range, err error) {
	_, size := d.now()
	err = d.with(func(c *client) error {
		for at := off; at < size; {
			extents, err := c.status(allocation, at, size-at)
			if err != nil {
				return err
			}
			for _, e := range extents {
				zero := e.flags&stateZero != 0
				switch {
				case zero && data.Length > 0:
					return nil
				case !zero && data.Length == 0:
					data = blocktrack.Range{Offset: at, Length: e.length}
				case !zero:
					data.Length += e.length
				}
				at += e.length
			}
		}
		return nil
	})
	if err == nil && data.Length == 0 {
		err = io.EOF
	}
	return data, err
}

// dirty returns what a bitmap of the export names.
func (d *Device) dirty(bitmap string) (ranges []blocktrack.Range, err error) {
	_, size := d.now()
	err = d.with(func(c *client) error {
		for at := int64(0); at < size; {
			extents, err := c.status(bitmapContext(bitmap), at, size-at)
			if err != nil {
				return err
			}
			for _, e := range extents {
				if e.flags&1 != 0 {
					ranges = append(ranges, blocktrack.Range{Offset: at, Length: e.length})
				}
				at += e.length
			}
		}
		return nil
	})
	return blocktrack.Join(ranges), err
}

func bitmapContext(bitmap string) string { return "qemu:dirty-bitmap:" + bitmap }
