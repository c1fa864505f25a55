package nbd

import (
	"context"
	"errors"
)

// zeros is what is written when a device has no faster way to zero a range.
var zeros [256 << 10]byte

// writeZeroes zeroes a range the fast way if there is one. A client that asked
// for the fast way only is told that there is none before anything changes.
func (t *target) writeZeroes(ctx context.Context, off, n int64, flags uint16) error {
	if t.zero != nil {
		err := t.zero.Zero(ctx, off, n, flags&cmdFlagNoHole == 0)
		if !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
	}
	if flags&cmdFlagFastZero != 0 {
		return codeNotSup
	}
	for n > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		p := zeros[:min(n, int64(len(zeros)))]
		if _, err := t.writer.WriteAt(p, off); err != nil {
			return err
		}
		off, n = off+int64(len(p)), n-int64(len(p))
	}
	return nil
}
