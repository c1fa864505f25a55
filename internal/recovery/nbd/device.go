package nbd

import (
	"context"
	"errors"
	"io"
)

// Device is what an export serves. All methods, and those of the optional
// interfaces below, are called concurrently; offsets and lengths are bytes,
// always inside [0, Size) and not aligned to anything.
//
// An error that wraps syscall.ENOSPC, EDQUOT, EFBIG, EPERM or EROFS reaches the
// client as such; every other error reaches it as EIO.
type Device interface {
	io.ReaderAt

	// Size is the device's size in bytes. It does not change.
	Size() int64
}

// Writer is a Device that takes writes. A Device without it is read-only.
type Writer interface {
	io.WriterAt

	// Flush returns when every write, trim and zeroing that returned before
	// Flush was called is durable, whichever connection asked for it.
	Flush(ctx context.Context) error
}

// Trimmer is a Writer that can forget ranges. What a trimmed range reads as is
// the device's choice, but it must be the same every time.
type Trimmer interface {
	Trim(ctx context.Context, off, n int64) error
}

// Zeroer is a Writer that can make a range read as zeros faster than by writing
// them. mayTrim says that the client does not ask for allocated space. An error
// that wraps errors.ErrUnsupported means that this range would not be faster;
// nothing has been changed then, and the server writes zeros if it may.
type Zeroer interface {
	Zero(ctx context.Context, off, n int64, mayTrim bool) error
}

// Mapper is a Device that knows where it has no data. Extents describes
// [off, off+n) from its beginning, in order and without gaps: each call of yield
// says that the next length bytes read as zeros and take no space (hole), or
// may hold anything. It stops early when yield returns false. What it says is
// true at some moment during the call.
type Mapper interface {
	Extents(ctx context.Context, off, n int64, yield func(length int64, hole bool) bool) error
}

// Cacher is a Device that can have a range ready for reads that come soon. It is
// a hint: what it could not do, it leaves, and an error reaches the client only.
type Cacher interface {
	Cache(ctx context.Context, off, n int64) error
}

// Export is a Device under a name.
type Export struct {
	Name        string // as clients should call it; empty: the name asked for
	Description string // for people; may be empty
	Device      Device

	// ReadOnly refuses writes even when Device takes them.
	ReadOnly bool

	// Shared says that all connections to this name get this same Device, so
	// that a flush on one covers the writes of all, and a client may spread
	// its requests over several connections. Leave it false when unsure.
	Shared bool

	// End, if not nil, hangs up on the client when it is closed.
	End <-chan struct{}

	// Release, if not nil, is called once when the connection that opened the
	// export will not use Device again.
	Release func()
}

// ErrUnknownExport is what Config.Open returns, wrapped or not, for a name that
// is not served. Any other error means that the export cannot be had now.
var ErrUnknownExport = errors.New("no such export")

func (e *Export) release() {
	if e.Release != nil {
		e.Release()
	}
}

// target is an opened export with its abilities resolved once; nil means that
// the export does not have that ability.
type target struct {
	export *Export
	size   uint64
	reader io.ReaderAt
	writer Writer
	trim   Trimmer
	zero   Zeroer
	extent Mapper
	cache  Cacher
}

func newTarget(e *Export) *target {
	t := &target{export: e, size: uint64(max(e.Device.Size(), 0)), reader: e.Device}
	t.extent, _ = e.Device.(Mapper)
	t.cache, _ = e.Device.(Cacher)
	if e.ReadOnly {
		return t
	}
	if t.writer, _ = e.Device.(Writer); t.writer != nil {
		t.trim, _ = e.Device.(Trimmer)
		t.zero, _ = e.Device.(Zeroer)
	}
	return t
}

// flags are the transmission flags that are true of the export.
func (t *target) flags(structured bool) uint16 {
	var f uint16 = flagHasFlags
	if structured {
		f |= flagSendDF
	}
	if t.cache != nil {
		f |= flagSendCache
	}
	if t.writer == nil {
		// No connection can hold back a write, so all of them see the same.
		return f | flagReadOnly | flagCanMultiConn
	}
	f |= flagSendFlush | flagSendFUA | flagSendWriteZeroes | flagSendFastZero
	if t.trim != nil {
		f |= flagSendTrim
	}
	if t.export.Shared {
		f |= flagCanMultiConn
	}
	return f
}
