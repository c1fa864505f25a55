package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"lifeboat/internal/demo/guest"
)

const (
	mib = 1 << 20
	// The image: a machine that boots, then data in runs of 8 MiB with holes
	// between them, a third each of text, programs and noise.
	imageSize = 2048 * mib
	dataSize  = 1024 * mib
	guestSize = 128 * mib
	run8      = 8 * mib
)

// makeImage writes the image that everything is measured with.
func makeImage(ctx context.Context, path string) error {
	if err := guest.Build(ctx, guest.Spec{Hostname: "bench", SizeMiB: guestSize / mib}, path); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := file.Truncate(imageSize); err != nil {
		return err
	}
	noise := rand.NewChaCha8([32]byte{'l', 'i', 'f', 'e', 'b', 'o', 'a', 't'})
	programs := &programReader{}
	sources := []io.Reader{textReader{rand.New(noise)}, programs, noise} //nolint:gosec // the same image every time
	buffer := make([]byte, run8)
	const runs = dataSize / run8
	stride := int64(imageSize-guestSize) / runs &^ 4095
	for i := range runs {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := io.ReadFull(sources[i%len(sources)], buffer); err != nil {
			return fmt.Errorf("fill the image: %w", err)
		}
		if _, err := file.WriteAt(buffer, guestSize+int64(i)*stride); err != nil {
			return err
		}
	}
	return file.Sync()
}

// textReader writes sentences of words whose frequencies fall off as those of a
// language do.
type textReader struct{ r *rand.Rand }

func (t textReader) Read(p []byte) (int, error) {
	var text strings.Builder
	for text.Len() < len(p) {
		rank := int(1 / (t.r.Float64() + 1.0/4000)) // 1 to 4000, common ones often
		for range 1 + rank%7 {
			text.WriteByte("etaoinshrdlucmfwypvbgkqjxz"[(rank*7+text.Len()*rank)%26%(4+rank%22)])
		}
		if t.r.IntN(12) == 0 {
			fmt.Fprintf(&text, " %d.\n", t.r.IntN(10000))
		} else {
			text.WriteByte(' ')
		}
	}
	return copy(p, text.String()), nil
}

// programReader reads this system's own programs and libraries, one after
// another, from the largest directories of them.
type programReader struct {
	paths []string
	open  *os.File
}

func (b *programReader) Read(p []byte) (int, error) {
	if b.paths == nil {
		for _, dir := range []string{"/usr/lib", "/usr/bin"} {
			err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
				if err == nil && entry.Type().IsRegular() { // unreadable ones are left out
					if info, err := entry.Info(); err == nil && info.Size() > 256<<10 {
						b.paths = append(b.paths, path)
					}
				}
				return nil
			})
			if err != nil {
				return 0, err
			}
		}
		if len(b.paths) == 0 {
			return 0, errors.New("this system has no programs to fill an image with")
		}
	}
	for {
		if b.open == nil {
			// Begin again when all are used: a run is longer than any compressor's memory.
			path := b.paths[0]
			b.paths = append(b.paths[1:], path)
			file, err := os.Open(path)
			if err != nil {
				continue
			}
			b.open = file
		}
		n, err := b.open.Read(p)
		if n > 0 {
			return n, nil
		}
		b.open.Close()
		b.open = nil
		if err != nil && err != io.EOF {
			return 0, err
		}
	}
}
