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
	"strconv"

	"lifeboat/internal/demo/guest"
)

const (
	mib       = 1 << 20
	gib       = 1 << 30
	guestSize = 128 * mib
	run8      = 8 * mib
)

// makeMachine writes the image of a machine that boots, of a size, with so much
// data behind it in runs of 8 MiB: text, programs and noise by turns, and holes
// between them.
func makeMachine(ctx context.Context, path string, size, data int64) error {
	if err := guest.Build(ctx, guest.Spec{Hostname: "bench", SizeMiB: guestSize / mib}, path); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := file.Truncate(size); err != nil {
		return err
	}
	noise := rand.NewChaCha8([32]byte{'l', 'i', 'f', 'e', 'b', 'o', 'a', 't'})
	sources := []io.Reader{newText(noise), &programReader{}, noise}
	runs := data / run8
	if runs == 0 {
		return file.Sync()
	}
	stride := (size - guestSize) / runs &^ 4095
	for i := range runs {
		if err := fill(ctx, file, guestSize+i*stride, run8, sources[i%3]); err != nil {
			return err
		}
	}
	return file.Sync()
}

// makeThirds writes an image of which a third is zeros, written ones, a third text
// and a third noise, by turns of 64 MiB.
func makeThirds(ctx context.Context, path string, size int64) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	noise := rand.NewChaCha8([32]byte{'t', 'h', 'i', 'r', 'd', 's'})
	sources := []io.Reader{zeros{}, newText(noise), noise}
	const turn = 64 * mib
	for off := int64(0); off < size; off += turn {
		if err := fill(ctx, file, off, min(turn, size-off), sources[off/turn%3]); err != nil {
			return err
		}
	}
	return file.Sync()
}

// fill writes n bytes of the source at an offset.
func fill(ctx context.Context, file *os.File, off, n int64, from io.Reader) error {
	buffer := make([]byte, run8)
	for end := off + n; off < end; {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := buffer[:min(run8, end-off)]
		if _, err := io.ReadFull(from, b); err != nil {
			return fmt.Errorf("fill the image: %w", err)
		}
		if _, err := file.WriteAt(b, off); err != nil {
			return err
		}
		off += int64(len(b))
	}
	return nil
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// text writes lines of words whose frequencies fall off as those of a language do.
type text struct {
	r     *rand.Rand
	words []string
	rest  []byte
}

func newText(source rand.Source) *text {
	t := &text{r: rand.New(source)} //nolint:gosec // the same image every time
	for rank := range 4096 {
		word := make([]byte, 1+t.r.IntN(3)+rank%9)
		for i := range word {
			word[i] = "etaoinshrdlucmfwypvbgkqjxz"[int(26*t.r.Float64()*t.r.Float64())]
		}
		t.words = append(t.words, string(word))
	}
	return t
}

func (t *text) Read(p []byte) (int, error) {
	for len(t.rest) < len(p) {
		rank := min(int(1/(t.r.Float64()+1.0/4096)), 4095) // small ones often
		t.rest = append(t.rest, t.words[rank]...)
		if t.r.IntN(12) == 0 {
			t.rest = append(strconv.AppendInt(append(t.rest, ' '), t.r.Int64N(10000), 10), '.', '\n')
		} else {
			t.rest = append(t.rest, ' ')
		}
	}
	n := copy(p, t.rest)
	t.rest = append(t.rest[:0], t.rest[n:]...)
	return n, nil
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
