package branchlog_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"lifeboat/internal/vault/branchlog"
)

// flip inverts one bit of a file.
func flip(t testing.TB, path string, off int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
}

// readsTruth opens a damaged log and reports whether damage was told: as a
// *CorruptError at Open or on a read. Wrong data fails the test.
func readsTruth(t *testing.T, dir string, key []byte, base branchlog.Base, want []byte) (told *branchlog.CorruptError) {
	t.Helper()
	l, err := branchlog.Open(dir, key, base)
	if errors.As(err, &told) {
		return told
	}
	if err != nil {
		t.Fatalf("damage is no *CorruptError: %v", err)
	}
	defer l.Close()
	got := make([]byte, branchlog.BlockSize)
	for off := int64(0); off < base.Size(); off += branchlog.BlockSize {
		_, err := l.ReadAt(got, off)
		if errors.As(err, &told) {
			continue
		}
		if err != nil {
			t.Fatalf("damage is no *CorruptError: %v", err)
		}
		if !bytes.Equal(got, want[off:off+branchlog.BlockSize]) {
			t.Fatalf("block at %d reads wrong data after damage", off)
		}
	}
	return told
}

// TestEveryBitFlipIsTold flips bits all over a log whose writes were flushed.
func TestEveryBitFlipIsTold(t *testing.T) {
	base := newBase(1<<20, 1)
	for name, key := range keys {
		t.Run(name, func(t *testing.T) {
			dir := create(t, base.Size(), key)
			l := openSmall(t, dir, key, base, 140)
			want := bytes.Clone(base)
			for i := range 12 {
				p := bytes.Repeat([]byte{byte(i + 1)}, 20*branchlog.BlockSize)
				off := i * 19 * branchlog.BlockSize
				write(t, l, p, int64(off))
				copy(want[off:], p)
			}
			if err := l.Zero(ctx, 3*branchlog.BlockSize, 2*branchlog.BlockSize, true); err != nil {
				t.Fatal(err)
			}
			clear(want[3*branchlog.BlockSize : 5*branchlog.BlockSize])
			flush(t, l)
			killed := copyDir(t, dir) // as after kill -9: nothing was closed
			l.Close()
			files := logFiles(t, killed)
			if len(files) < 2 {
				t.Fatalf("%d log files", len(files))
			}
			for _, f := range files {
				b, err := os.ReadFile(f)
				if err != nil {
					t.Fatal(err)
				}
				for off := int64(0); off < int64(len(b)); off += 4096 {
					for _, at := range []int64{30, 70} {
						flip(t, f, off+at)
						told := readsTruth(t, killed, key, base, want)
						flip(t, f, off+at)
						// The tail of a superseded block may be damaged unseen: nobody
						// reads it. Everything else is told, with its place.
						if told == nil && bytes.Contains(b[off:off+8], []byte("BGRP")) {
							t.Errorf("%s: a bit in a header at %d went unnoticed", filepath.Base(f), off+at)
						}
						if told != nil && told.File != f {
							t.Errorf("damage of %s told as of %s", f, told.File)
						}
					}
				}
			}
			if told := readsTruth(t, killed, key, base, want); told != nil {
				t.Errorf("the mended log: %v", told)
			}
		})
	}
}

// TestFlushedWritesAreMissed takes away what was flushed and sees it missed.
func TestFlushedWritesAreMissed(t *testing.T) {
	base := newBase(1<<20, 1)
	for name, harm := range map[string]func(t *testing.T, files []string){
		"the end cut off": func(t *testing.T, files []string) {
			last := files[len(files)-1]
			info, err := os.Stat(last)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(last, info.Size()-branchlog.BlockSize); err != nil {
				t.Fatal(err)
			}
		},
		"the last file gone": func(t *testing.T, files []string) {
			if err := os.Remove(files[len(files)-1]); err != nil {
				t.Fatal(err)
			}
		},
		"the first file cut": func(t *testing.T, files []string) {
			if err := os.Truncate(files[0], 3*branchlog.BlockSize); err != nil {
				t.Fatal(err)
			}
		},
		"two files exchanged": func(t *testing.T, files []string) {
			for _, r := range [][2]string{{files[0], files[0] + "x"}, {files[1], files[0]}, {files[0] + "x", files[1]}} {
				if err := os.Rename(r[0], r[1]); err != nil {
					t.Fatal(err)
				}
			}
		},
		"the branch header damaged": func(t *testing.T, files []string) {
			flip(t, filepath.Join(filepath.Dir(files[0]), "branch"), 33)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := create(t, base.Size(), testKey)
			l := openSmall(t, dir, testKey, base, 140)
			for i := range 12 {
				write(t, l, bytes.Repeat([]byte{7}, 20*branchlog.BlockSize), int64(i*20*branchlog.BlockSize))
			}
			flush(t, l)
			killed := copyDir(t, dir)
			harm(t, logFiles(t, killed))
			_, err := branchlog.Open(killed, testKey, base)
			if _, ok := errors.AsType[*branchlog.CorruptError](err); !ok {
				t.Errorf("Open: %v", err)
			}
		})
	}
}

// TestBlocksCannotBeExchanged moves sealed blocks within and between groups and
// mends every checksum that needs no key, as somebody with the disk could.
func TestBlocksCannotBeExchanged(t *testing.T) {
	base := newBase(1<<20, 1)
	dir := create(t, base.Size(), testKey)
	l := open(t, dir, testKey, base)
	for i := range 4 {
		write(t, l, bytes.Repeat([]byte{byte(i + 1)}, branchlog.BlockSize), int64(i*branchlog.BlockSize))
	}
	l.Close()
	path := logFiles(t, dir)[0]
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// Groups of one block: header at 1, 3, 5, 7. Exchange the payloads and
	// their table entries of the first two, and mend the header checksums.
	at := func(block, off, n int) []byte { return b[block*branchlog.BlockSize+off:][:n] }
	swap := func(x, y []byte) {
		for i := range x {
			x[i], y[i] = y[i], x[i]
		}
	}
	swap(at(2, 0, branchlog.BlockSize), at(4, 0, branchlog.BlockSize))
	swap(at(1, 64, 20), at(3, 64, 20))
	branchlog.MendGroup(at(1, 0, branchlog.BlockSize))
	branchlog.MendGroup(at(3, 0, branchlog.BlockSize))
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = branchlog.Open(dir, testKey, base)
	if _, ok := errors.AsType[*branchlog.CorruptError](err); !ok {
		t.Errorf("Open: %v", err)
	}
}
