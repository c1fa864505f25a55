package branchlog_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"lifeboat/internal/durable"
	"lifeboat/internal/vault/branchlog"
)

const modelBlocks = 96

// model is what a disk may hold after a power cut: for each byte, its value at
// the last flush or any value written to it since.
type model struct {
	now     []byte
	flushed []byte
	since   [][]byte // whole states since the last flush, oldest first
}

func (m *model) change(do func(disk []byte)) {
	do(m.now)
	m.since = append(m.since, bytes.Clone(m.now))
}

func (m *model) flush() {
	m.flushed, m.since = bytes.Clone(m.now), nil
}

// allowed reports whether the disk may hold got after a power cut. The log loses
// from its end backwards only, so the state must be one that was, between whole
// writes or, as writes are cut into groups, with a prefix of the next one.
func (m *model) allowed(got []byte) error {
	states := append([][]byte{m.flushed}, m.since...)
	for i, s := range states {
		if bytes.Equal(got, s) {
			return nil
		}
		if i+1 < len(states) && isMix(got, s, states[i+1]) {
			return nil
		}
	}
	return fmt.Errorf("the disk holds none of the %d states it may", len(states))
}

// isMix reports whether every block of got is that of a or of b.
func isMix(got, a, b []byte) bool {
	for off := 0; off < len(got); off += branchlog.BlockSize {
		end := min(off+branchlog.BlockSize, len(got))
		if !bytes.Equal(got[off:end], a[off:end]) && !bytes.Equal(got[off:end], b[off:end]) {
			return false
		}
	}
	return true
}

// crashWorld is a log's directory, and what of it the disk would keep.
type crashWorld struct {
	dir string

	mu     sync.Mutex
	synced map[string]int64 // bytes of each file that are durable; guarded by mu
}

// cut makes a copy of the directory as a power cut may leave it: of what was not
// synced, a random part.
func (w *crashWorld) cut(t *rapid.T, to string, seed uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	rnd := rand.New(rand.NewPCG(seed, 9))
	if err := os.CopyFS(to, os.DirFS(w.dir)); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(to)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		path := filepath.Join(to, e.Name())
		if filepath.Ext(path) != ".log" {
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		from := min(max(w.synced[e.Name()], branchlog.BlockSize), int64(len(b)))
		b = b[:from+rnd.Int64N(int64(len(b))-from+1)]
		// Sectors of the rest reached the disk or did not.
		for off := from; off < int64(len(b)); off += 512 {
			if rnd.IntN(6) == 0 {
				clear(b[off:min(off+512, int64(len(b)))])
			}
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if rnd.IntN(2) == 0 { // the mark is not synced either
		if err := os.WriteFile(filepath.Join(to, "flushed"), make([]byte, 64), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// size is what a file has now; 0 if it was collected meanwhile.
func (w *crashWorld) size(t *rapid.T, name string) int64 {
	info, err := os.Stat(filepath.Join(w.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

func (w *crashWorld) note(name string, size int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.synced[name] = size
}

// TestModel drives a log and a plain array through random work, power cuts and
// restarts.
func TestModel(t *testing.T) {
	base := newBase(modelBlocks*branchlog.BlockSize-1000, 4)
	fast := fastDir(t)
	for name, key := range keys {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				root, err := os.MkdirTemp(fast, "branchlog")
				if err != nil {
					rt.Fatal(err)
				}
				defer os.RemoveAll(root)
				w := &crashWorld{dir: filepath.Join(root, "0")}
				if err := branchlog.Create(w.dir, base.Size(), key); err != nil {
					rt.Fatal(err)
				}
				m := &model{now: bytes.Clone(base)}
				m.flush()
				var l *branchlog.Log
				open := func() {
					w.synced = map[string]int64{}
					files := durable.Files{Fault: func(op, path string, do func() error) error {
						name := filepath.Base(path)
						if op != "sync branch log" {
							return do()
						}
						size := w.size(rt, name)
						err := do()
						if err == nil {
							w.note(name, size)
						}
						return err
					}}
					if l, err = branchlog.OpenWith(w.dir, key, base, files, 300); err != nil {
						rt.Fatal(err)
					}
					paths, _ := filepath.Glob(filepath.Join(w.dir, "*.log"))
					for _, p := range paths {
						w.note(filepath.Base(p), w.size(rt, filepath.Base(p)))
					}
				}
				open()
				defer func() { l.Close() }()
				read := func() []byte {
					got := make([]byte, len(base))
					if _, err := l.ReadAt(got, 0); err != nil {
						rt.Fatal(err)
					}
					return got
				}
				span := func(rt *rapid.T) (off, n int) {
					if rapid.Bool().Draw(rt, "aligned") {
						b := rapid.IntRange(0, modelBlocks-2).Draw(rt, "block")
						return b * branchlog.BlockSize, rapid.IntRange(0, modelBlocks-2-b).Draw(rt, "blocks") * branchlog.BlockSize
					}
					off = rapid.IntRange(0, len(base)).Draw(rt, "off")
					return off, min(rapid.IntRange(0, 20000).Draw(rt, "n"), len(base)-off)
				}
				runs := 0
				rt.Repeat(map[string]func(*rapid.T){
					"": func(rt *rapid.T) {
						if !bytes.Equal(read(), m.now) {
							rt.Fatal("the disk differs from what was written")
						}
						if err := l.Audit(); err != nil {
							rt.Fatal(err)
						}
					},
					"write": func(rt *rapid.T) {
						off, n := span(rt)
						p := bytes.Repeat([]byte{rapid.Byte().Draw(rt, "byte")}, n)
						if _, err := l.WriteAt(p, int64(off)); err != nil {
							rt.Fatal(err)
						}
						m.change(func(disk []byte) { copy(disk[off:], p) })
					},
					"zero": func(rt *rapid.T) {
						off, n := span(rt)
						zero := l.Trim
						if rapid.Bool().Draw(rt, "zero") {
							zero = func(c ctxType, off, n int64) error { return l.Zero(c, off, n, true) }
						}
						if err := zero(ctx, int64(off), int64(n)); err != nil {
							rt.Fatal(err)
						}
						m.change(func(disk []byte) { clear(disk[off : off+n]) })
					},
					"flush": func(rt *rapid.T) {
						if err := l.Flush(ctx); err != nil {
							rt.Fatal(err)
						}
						m.flush()
					},
					"restart": func(rt *rapid.T) {
						if err := l.Close(); err != nil {
							rt.Fatal(err)
						}
						open()
						m.flush()
					},
					"power cut": func(rt *rapid.T) {
						runs++
						next := filepath.Join(root, fmt.Sprint(runs))
						seed := rapid.Uint64().Draw(rt, "seed")
						// The collector works on its own time and must not be seen in
						// the middle of the copy: a copy is not a moment.
						if err := l.Collect(); err != nil {
							rt.Fatal(err)
						}
						w.cut(rt, next, seed)
						l.Close()
						w.dir = next
						open()
						got := read()
						if err := m.allowed(got); err != nil {
							rt.Fatal(err)
						}
						m.now = got
						m.flush()
					},
				})
			})
		})
	}
}
