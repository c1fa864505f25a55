package vault

import (
	"encoding/binary"
	"errors"
	"math"
	"time"
)

// cursor reads the fields of a decoded body. After the first read beyond its end
// it only returns zeros, and short stays true.
type cursor struct {
	b     []byte
	short bool
}

var errShort = errors.New("ends too early")

// take returns the next n bytes, without copying.
func (c *cursor) take(n uint64) []byte {
	if n > uint64(len(c.b)) {
		c.b, c.short = nil, true
		return nil
	}
	out := c.b[:n:n]
	c.b = c.b[n:]
	return out
}

func (c *cursor) u8() uint8 {
	if b := c.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) u32() uint32 {
	if b := c.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (c *cursor) u64() uint64 {
	if b := c.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (c *cursor) str() string {
	n := c.take(2)
	if n == nil {
		return ""
	}
	return string(c.take(uint64(binary.LittleEndian.Uint16(n))))
}

// count reads the number of items that follow, each at least so many bytes long: no
// more than there is room for.
func (c *cursor) count(size uint64) int {
	n := uint64(c.u32())
	if n > uint64(len(c.b))/size {
		c.b, c.short = nil, true
		return 0
	}
	return int(n)
}

func (c *cursor) hash() (h [32]byte) {
	copy(h[:], c.take(32))
	return h
}

// noTime stands for the zero time, which has no nanosecond count.
const noTime = math.MinInt64

func (c *cursor) time() time.Time {
	if ns := int64(c.u64()); ns != noTime && !c.short {
		return time.Unix(0, ns).UTC()
	}
	return time.Time{}
}

// end returns an error unless all bytes, and no more, were read.
func (c *cursor) end() error {
	if c.short {
		return errShort
	}
	if len(c.b) != 0 {
		return errors.New("bytes left over")
	}
	return nil
}

func putString(b []byte, s string) []byte {
	b = binary.LittleEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}

func putTime(b []byte, t time.Time) []byte {
	ns := int64(noTime)
	if !t.IsZero() {
		ns = t.UnixNano()
	}
	return binary.LittleEndian.AppendUint64(b, uint64(ns))
}
