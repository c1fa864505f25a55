package stamp_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lifeboat/test/stamp"
)

// two is a plan over two disks in files.
func two(seed uint64, dir string) stamp.Plan {
	return stamp.Plan{Seed: seed, Targets: []stamp.Target{
		{Path: filepath.Join(dir, "a"), Kind: stamp.File, Blocks: 96},
		{Path: filepath.Join(dir, "b"), Kind: stamp.File, Blocks: 64},
		{Path: filepath.Join(dir, "leaf"), Kind: stamp.Leaf, Blocks: 5},
	}}
}

// written has a writer carry out operations 1..n and keeps what each of them left.
type written struct {
	plan   stamp.Plan
	states [][][]byte // after n operations, by target
}

func write(t *testing.T, seed uint64, n int) written {
	t.Helper()
	w := written{plan: two(seed, t.TempDir())}
	writer, err := stamp.Open(w.plan)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	w.states = append(w.states, w.content(t))
	ctx, cancel := context.WithCancel(t.Context())
	err = writer.Run(ctx, 1, func(number uint64) error {
		w.states = append(w.states, w.content(t))
		if number == uint64(n) {
			cancel()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found, err := writer.Find(uint64(n)); err != nil || !found.Between(uint64(n), uint64(n)) {
		t.Fatalf("seed %d: the writer finds %v, %v after %d operations", seed, found, err, n)
	}
	return w
}

func (w written) content(t *testing.T) (all [][]byte) {
	t.Helper()
	for _, target := range w.plan.Targets {
		raw, err := os.ReadFile(target.Path)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		all = append(all, raw)
	}
	return all
}

func check(p stamp.Plan, image [][]byte, upTo int) (stamp.Found, error) {
	var readers []io.ReaderAt
	for _, raw := range image {
		readers = append(readers, bytes.NewReader(raw))
	}
	return p.Check(readers, uint64(upTo))
}

func copied(image [][]byte) (all [][]byte) {
	for _, raw := range image {
		all = append(all, bytes.Clone(raw))
	}
	return all
}

// Every state that there was is found to be the one that it is, and so is one with a
// part of the next operation, down to sectors.
func TestPrefixes(t *testing.T) {
	seed := rand.Uint64()
	const n = 60
	w := write(t, seed, n)
	for k := range n {
		found, err := check(w.plan, w.states[k], n)
		if err != nil || !found.Between(uint64(k), uint64(k)) {
			t.Fatalf("seed %d: after %d operations: %v, %v", seed, k, found, err)
		}
		next := w.plan.Op(uint64(k + 1))
		if next.Way == stamp.Replace {
			continue
		}
		image := copied(w.states[k])
		at := (next.First + next.Count/2) * stamp.BlockSize
		copy(image[next.Target][at:at+1024], w.states[k+1][next.Target][at:])
		found, err = check(w.plan, image, n)
		if err != nil || !found.Between(uint64(k), uint64(k+1)) {
			t.Fatalf("seed %d: after %d operations and a part of the next: %v, %v", seed, k, found, err)
		}
	}
}

// What no order of writes explains is told, with the block that shows it.
func TestNoPrefix(t *testing.T) {
	seed := rand.Uint64()
	const n = 60
	w := write(t, seed, n)
	last := w.states[n]
	refuse := func(what string, image [][]byte) {
		t.Helper()
		found, err := check(w.plan, image, n)
		var bad *stamp.Error
		if !errors.As(err, &bad) {
			t.Errorf("seed %d: %s: found %v, %v", seed, what, found, err)
		} else if bad.Count == 0 || !strings.Contains(err.Error(), "block") {
			t.Errorf("seed %d: %s is told as %v", seed, what, err)
		}
	}
	for target := range 2 {
		image := copied(last)
		image[target] = w.states[n/2][target]
		refuse("a disk older than the other", image)
	}
	image := copied(last)
	lost := 0
	for at := 0; at < len(image[0]); at += stamp.BlockSize {
		block := image[0][at:][:stamp.BlockSize]
		next, here := w.plan.Op(n+1), int64(at/stamp.BlockSize)
		inNext := next.Target == 0 && here >= next.First && here < next.First+next.Count
		if inNext || !bytes.Equal(block, w.states[n-5][0][at:][:stamp.BlockSize]) {
			continue // to lack it may be to hold less, or more
		}
		if old := w.states[n-40][0][at:][:stamp.BlockSize]; !bytes.Equal(block, old) {
			copy(block, old)
			lost++
			refuse("a lost block", image)
			copy(block, last[0][at:])
		}
	}
	if lost == 0 {
		t.Errorf("seed %d: no block changed", seed)
	}
	image[0][17]++
	refuse("a flipped bit", image)
	image = copied(last)
	copy(image[1], last[0][:stamp.BlockSize])
	copy(image[0], last[1][:stamp.BlockSize])
	if !bytes.Equal(last[0][:stamp.BlockSize], last[1][:stamp.BlockSize]) {
		refuse("blocks that changed places", image)
	}
	image = copied(last)
	if older := w.states[n/2][2]; len(older) > 0 && !bytes.Equal(older, last[2]) {
		copy(image[2], older[:stamp.BlockSize])
		refuse("a file of two versions", image)
	}
	other := w.plan
	other.Seed++
	if found, err := check(other, last, n); err == nil {
		t.Errorf("seed %d: another seed's operations were found: %v", seed, found)
	}
}

func TestLog(t *testing.T) {
	base := time.Unix(1_700_000_000, 0)
	at := func(ms int) time.Time { return base.Add(time.Duration(ms) * time.Millisecond) }
	text := stamp.Entry(1, at(10)) + stamp.Entry(2, at(20)) + "done 3 17\ndone 4 x.\nnonsense\ndone 5 1" + stamp.Begin + stamp.Entry(4, at(40)) + stamp.Entry(2, at(50)) + "done 6 170"
	l, err := stamp.ReadLog(strings.NewReader(text))
	if err != nil || l.Last() != 4 {
		t.Fatalf("last %d, %v", l.Last(), err)
	}
	for _, c := range []struct {
		ms          int
		done, begun uint64
	}{{0, 0, 1}, {10, 1, 2}, {25, 2, 4}, {45, 4, 1<<64 - 1}} {
		if done, begun := l.At(at(c.ms), 0); done != c.done || begun != c.begun {
			t.Errorf("at %d ms: %d to %d, want %d to %d", c.ms, done, begun, c.done, c.begun)
		}
	}
}
