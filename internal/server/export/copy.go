package export

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	"lifeboat/internal/diskstream"
)

const (
	// readAhead is how many reads are under way or wait to be sent: the memory of
	// one export is at most readAhead+2 chunks of diskstream.MaxData.
	readAhead = 8
	// smallHole is how many zeros are rather sent than skipped: many small reads and
	// records cost more.
	smallHole = 16 << 10
	// window is how much of a disk is asked for its extents at once, in bytes.
	window = 256 << 20
)

// chunk is a run of data that is read while earlier ones are sent.
type chunk struct {
	offset int64
	data   []byte
	err    error
	ready  chan struct{} // closed when data or err is there
}

// copyData sends everything of the disk that holds data, and returns how many
// bytes that was.
func copyData(ctx context.Context, out *diskstream.Writer, disk Disk) (sent int64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		work    errgroup.Group // its goroutines end when ctx does; waited for below
		reads   errgroup.Group
		queue   = make(chan *chunk, readAhead) // in the order of the disk
		buffers = make(chan []byte, readAhead+2)
	)
	reads.SetLimit(readAhead)
	for range cap(buffers) {
		buffers <- nil // made when first used
	}
	work.Go(func() error {
		defer close(queue)
		return plan(ctx, disk, func(offset, length int64) error {
			c := &chunk{offset: offset, ready: make(chan struct{})}
			select {
			case c.data = <-buffers:
			case <-ctx.Done():
				return ctx.Err()
			}
			reads.Go(func() error { c.read(disk, length); return nil })
			select {
			case queue <- c:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	for c := range queue {
		<-c.ready
		if err = c.err; err != nil {
			break
		}
		if err = out.Data(c.offset, c.data); err != nil {
			break
		}
		sent += int64(len(c.data))
		buffers <- c.data
	}
	if err != nil {
		cancel()
	}
	planErr := work.Wait()
	_ = reads.Wait() // what went wrong is in the chunks
	if err == nil {
		err = planErr // when a read or the client failed first, the plan was only stopped
	}
	return sent, err
}

func (c *chunk) read(disk Disk, length int64) {
	defer close(c.ready)
	if c.data == nil {
		c.data = make([]byte, diskstream.MaxData)
	}
	c.data = c.data[:length]
	n, err := disk.ReadAt(c.data, c.offset)
	if n == len(c.data) && errors.Is(err, io.EOF) {
		err = nil // a full read that ends at the disk's end
	}
	if err != nil {
		c.err = fmt.Errorf("read %d bytes at %d: %w", length, c.offset, err)
	}
}

// plan calls each for every run of data, in order and cut to the size of one
// record.
func plan(ctx context.Context, disk Disk, each func(offset, length int64) error) error {
	var start, end int64 // the run at hand, from where it is not planned yet
	// emit plans the run, but leaves less than least of it for later.
	emit := func(least int64) error {
		for start < end && end-start >= least {
			n := min(diskstream.MaxData, end-start)
			if err := each(start, n); err != nil {
				return err
			}
			start += n
		}
		return nil
	}
	for off := int64(0); off < disk.Size(); off += window {
		spans, err := disk.Extents(ctx, off, min(window, disk.Size()-off))
		if err != nil {
			return fmt.Errorf("look for data at %d: %w", off, err)
		}
		for _, s := range spans {
			if s.Hole {
				continue
			}
			if s.Offset-end > smallHole {
				if err := emit(0); err != nil {
					return err
				}
				start = s.Offset
			}
			end = s.Offset + s.Length
			if err := emit(diskstream.MaxData); err != nil {
				return err
			}
		}
	}
	return emit(0)
}

// Stream writes the disk to w as a disk stream. An error before its end is told in
// the stream, too, where it can be.
func Stream(ctx context.Context, w io.Writer, disk Disk) error {
	stream, err := diskstream.NewWriter(w, disk.Size())
	if err != nil {
		return err
	}
	if _, err := copyData(ctx, stream, disk); err != nil {
		_ = stream.Fail(advice(err)) // whoever reads has left, if this fails, too
		return err
	}
	return stream.End()
}
