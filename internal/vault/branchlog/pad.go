package branchlog

import "fmt"

// A flush is cheap where the file does not grow: the file system then has nothing
// to write but the blocks themselves, and no journal. So small groups grow the file
// by more than themselves, with zeros, which the next ones overwrite. Zeros are no
// group: a file that ends in them is one whose end was torn, and Open cuts it off.

const (
	padding = 256 << 10 // bytes; the file grows to a multiple of it
	padFor  = 64 << 10  // bytes of the longest group that is worth it
)

var zeroPad [padding]byte

// pad makes room for a group of n bytes at an offset, in the file that is being
// written. Without space for more there is none, which is no error.
func (l *Log) pad(f *logFile, at, n int64) error {
	end := at + n
	if n > padFor || end <= f.padded {
		return nil
	}
	to := min((end+padding-1)/padding*padding, int64(l.limit)*BlockSize)
	if to <= end {
		return nil
	}
	if _, err := f.f.WriteAt(zeroPad[:to-end], end); err != nil {
		if terr := f.f.Truncate(at); terr != nil || !noSpace(err) {
			err = fmt.Errorf("make room in branch log: %w", err)
			l.finish(err)
			return err
		}
		return nil // the group itself may fit
	}
	f.padded = to
	return nil
}

// unpad cuts off what pad added and makes that durable: a file that has a
// successor ends with its last group.
func (l *Log) unpad(f *logFile) error {
	end := int64(f.end) * BlockSize
	if f.padded <= end {
		return nil
	}
	err := f.f.Truncate(end)
	if err == nil {
		err = l.files.Sync("sync branch log", f.f)
	}
	if err != nil {
		err = fmt.Errorf("end branch log file: %w", err)
		l.finish(err)
		return err
	}
	f.padded = end
	return nil
}
