package replication

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
)

// ErrMalformed is wrapped by every refusal to decode a frame.
var ErrMalformed = errors.New("malformed replication message")

// encoder appends fields in little-endian order. Its first error sticks.
type encoder struct {
	b   []byte
	err error
}

func (e *encoder) u8(v uint8)   { e.b = append(e.b, v) }
func (e *encoder) u16(v uint16) { e.b = binary.LittleEndian.AppendUint16(e.b, v) }
func (e *encoder) u32(v uint32) { e.b = binary.LittleEndian.AppendUint32(e.b, v) }
func (e *encoder) u64(v uint64) { e.b = binary.LittleEndian.AppendUint64(e.b, v) }
func (e *encoder) raw(p []byte) { e.b = append(e.b, p...) }

func (e *encoder) flag(v bool) {
	if v {
		e.u8(1)
	} else {
		e.u8(0)
	}
}

// text cuts what is too long: texts are for people.
func (e *encoder) text(s string) { e.str(s[:min(len(s), MaxText)], MaxText) }

func (e *encoder) str(s string, limit int) {
	if len(s) > limit {
		e.fail("text of %d bytes, at most %d", len(s), limit)
		return
	}
	e.u16(uint16(len(s)))
	e.b = append(e.b, s...)
}

// moment is nanoseconds since 1970, 0 for the zero time.
func (e *encoder) moment(t time.Time) {
	if t.IsZero() {
		e.u64(0)
		return
	}
	e.u64(uint64(t.UnixNano()))
}

func (e *encoder) millis(d time.Duration) {
	e.u32(uint32(min(max(d.Milliseconds(), 0), math.MaxUint32)))
}

func (e *encoder) fail(format string, args ...any) {
	if e.err == nil {
		e.err = fmt.Errorf("encode replication message: "+format, args...)
	}
}

// decoder reads what encoder wrote. After its first error it returns zeros.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) take(n int) []byte {
	if d.err != nil || n > len(d.b) {
		d.fail("ends early")
		return nil
	}
	p := d.b[:n:n]
	d.b = d.b[n:]
	return p
}

func (d *decoder) u8() uint8 {
	if p := d.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (d *decoder) u16() uint16 {
	if p := d.take(2); p != nil {
		return binary.LittleEndian.Uint16(p)
	}
	return 0
}

func (d *decoder) u32() uint32 {
	if p := d.take(4); p != nil {
		return binary.LittleEndian.Uint32(p)
	}
	return 0
}

func (d *decoder) u64() uint64 {
	if p := d.take(8); p != nil {
		return binary.LittleEndian.Uint64(p)
	}
	return 0
}

func (d *decoder) into(p []byte) { copy(p, d.take(len(p))) }

func (d *decoder) flag() bool {
	v := d.u8()
	if v > 1 {
		d.fail("flag of %d", v)
	}
	return v == 1
}

func (d *decoder) text() string { return d.str(MaxText) }

func (d *decoder) str(limit int) string {
	n := int(d.u16())
	if n > limit {
		d.fail("text of %d bytes, at most %d", n, limit)
		return ""
	}
	return string(d.take(n))
}

func (d *decoder) moment() time.Time {
	n := d.u64()
	if n == 0 || d.err != nil {
		return time.Time{}
	}
	if n > math.MaxInt64 {
		d.fail("time out of range")
		return time.Time{}
	}
	return time.Unix(0, int64(n)).UTC()
}

func (d *decoder) millis() time.Duration { return time.Duration(d.u32()) * time.Millisecond }

// size is a count of bytes that must fit an int64.
func (d *decoder) size() int64 {
	n := d.u64()
	if n > math.MaxInt64 {
		d.fail("size out of range")
		return 0
	}
	return int64(n)
}

// count bounds a number of items, each of at least width bytes, by limit and by
// what is left to read.
func (d *decoder) count(n, limit, width int) int {
	if d.err == nil && (n > limit || n*width > len(d.b)) {
		d.fail("%d items, at most %d and within the frame", n, limit)
	}
	if d.err != nil {
		return 0
	}
	return n
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
	}
}
