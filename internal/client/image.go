package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"lifeboat/internal/durable"
)

// DataReader yields the runs of a disk that hold data, in order, and io.EOF
// after the last; *DiskStream is one.
type DataReader interface {
	Size() int64
	Next() (off int64, data []byte, err error)
}

// Saved counts what an image holds, in bytes. Data is what is not a hole.
type Saved struct {
	Bytes int64 `json:"bytes"`
	Data  int64 `json:"dataBytes"`
}

// Progress is told the place on the disk that was reached, and how many bytes of
// data came until then.
type Progress func(at, data int64)

// ErrOutputExists: there is a file of that name, and it was left as it is.
var ErrOutputExists = errors.New("exists already")

// SaveImage writes the disk to a sparse file at path, of mode 0600. The file
// appears under its name only when it is whole and durable; without replace an
// existing one is ErrOutputExists, and with it, only a regular file is replaced.
func SaveImage(ctx context.Context, files durable.Files, disk DataReader, path string, replace bool, progress Progress) (saved Saved, err error) {
	if err := CheckOutput(path, replace); err != nil {
		return Saved{}, err
	}
	var unique [6]byte
	rand.Read(unique[:]) // never fails
	temp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"."+hex.EncodeToString(unique[:])+".part")
	f, err := files.Create("export: create", temp, 0o600)
	if err != nil {
		return Saved{}, err
	}
	defer func() {
		if gone := os.Remove(temp); err != nil && gone != nil && !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, gone)
		}
	}()
	saved, err = fill(ctx, f, disk, progress)
	if err == nil {
		err = files.Sync("export: sync", f)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return Saved{}, err
	}
	if err := place(files, temp, path, replace); err != nil {
		return Saved{}, err
	}
	return saved, files.SyncDir("export: sync directory", filepath.Dir(path))
}

// CheckOutput tells early whether SaveImage would refuse the path.
func CheckOutput(path string, replace bool) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		_, err := os.Stat(filepath.Dir(path))
		return err
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file and is not written to; for a device, use `--output - | dd of=DEVICE bs=1M`", path)
	case !replace:
		return fmt.Errorf("%s %w; name another --output, or give --force to replace it", path, ErrOutputExists)
	}
	return nil
}

// place gives the whole file its name.
func place(files durable.Files, temp, path string, replace bool) error {
	if replace {
		return files.Rename("export: place", temp, path)
	}
	err := files.Link("export: place", temp, path)
	switch {
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("%s %w by now; name another --output, or give --force to replace it", path, ErrOutputExists)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EMLINK):
		// USB sticks and the like have file systems without links.
		if err := CheckOutput(path, false); err != nil {
			return err
		}
		return files.Rename("export: place", temp, path)
	}
	return err
}

// fill writes the data of the disk into the empty file and leaves out zeros.
func fill(ctx context.Context, f *os.File, disk DataReader, progress Progress) (Saved, error) {
	saved, received := Saved{Bytes: disk.Size()}, int64(0)
	if err := f.Truncate(disk.Size()); err != nil {
		return Saved{}, err
	}
	for {
		off, data, err := disk.Next()
		if errors.Is(err, io.EOF) {
			progress(disk.Size(), received)
			return saved, nil
		}
		if ctx.Err() != nil {
			return Saved{}, context.Cause(ctx)
		}
		if err != nil {
			return Saved{}, fmt.Errorf("receive disk: %w", err)
		}
		for start, end := range dataRuns(off, data) {
			n, err := f.WriteAt(data[start:end], off+int64(start))
			if err != nil {
				return Saved{}, err
			}
			saved.Data += int64(n)
		}
		received += int64(len(data))
		progress(off+int64(len(data)), received)
	}
}

// StreamImage writes every byte of the disk to w, zeros too.
func StreamImage(w io.Writer, disk DataReader, progress Progress) (Saved, error) {
	saved, at := Saved{Bytes: disk.Size()}, int64(0)
	for {
		off, data, err := disk.Next()
		end := errors.Is(err, io.EOF)
		switch {
		case end:
			off = disk.Size()
		case err != nil:
			return Saved{}, fmt.Errorf("receive disk: %w", err)
		}
		for at < off {
			n := min(off-at, int64(len(zeros)))
			if _, err := w.Write(zeros[:n]); err != nil {
				return Saved{}, err
			}
			at += n
		}
		if end {
			progress(at, saved.Data)
			return saved, nil
		}
		if _, err := w.Write(data); err != nil {
			return Saved{}, err
		}
		at += int64(len(data))
		saved.Data += int64(len(data))
		progress(at, saved.Data)
	}
}

const hole = 4096 // the grain of holes, in bytes

var zeros [1 << 20]byte

// dataRuns yields the parts [start, end) of data, which lies at off, that are
// not whole blocks of zeros.
func dataRuns(off int64, data []byte) func(yield func(start, end int) bool) {
	return func(yield func(start, end int) bool) {
		run := -1 // where the current run of data began
		for at := 0; at < len(data); {
			next := min(len(data), at+hole-int((off+int64(at))%hole))
			zero := bytes.Equal(data[at:next], zeros[:next-at])
			switch {
			case zero && run >= 0:
				if !yield(run, at) {
					return
				}
				run = -1
			case !zero && run < 0:
				run = at
			}
			at = next
		}
		if run >= 0 {
			yield(run, len(data))
		}
	}
}
