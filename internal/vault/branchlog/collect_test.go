package branchlog_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"lifeboat/internal/durable"
	"lifeboat/internal/vault/branchlog"
)

// TestSpaceFollowsWhatIsLive rewrites the same blocks again and again.
func TestSpaceFollowsWhatIsLive(t *testing.T) {
	const fileBlocks = 256
	base := newBase(2<<20, 1)
	dir := create(t, base.Size(), testKey)
	l := openSmall(t, dir, testKey, base, fileBlocks)
	want := bytes.Clone(base)
	rnd := rand.New(rand.NewPCG(8, 8))
	for i := range 3000 {
		off := rnd.IntN(len(base)/4096) * 4096
		p := bytes.Repeat([]byte{byte(i)}, 4096*(1+rnd.IntN(3)))
		p = p[:min(len(p), len(base)-off)]
		write(t, l, p, int64(off))
		copy(want[off:], p)
	}
	if err := l.Collect(); err != nil {
		t.Fatal(err)
	}
	check(t, l, want)
	s := l.Stats()
	t.Logf("%+v", s)
	// Half of the payload may be dead, a header may go with each block of what
	// was not rewritten yet, and one file is being written.
	if limit := 4*s.LiveBytes + 2*fileBlocks*4096; s.Bytes > limit {
		t.Errorf("%d bytes of log for %d live ones", s.Bytes, s.LiveBytes)
	}
	if err := l.Trim(ctx, 0, l.Size()); err != nil {
		t.Fatal(err)
	}
	clear(want)
	if err := l.Collect(); err != nil {
		t.Fatal(err)
	}
	if s := l.Stats(); s.Files > 1 || s.LiveBytes != 0 {
		t.Errorf("after a trim of everything: %+v", s)
	}
	check(t, l, want)
	l.Close()
	l = openSmall(t, dir, testKey, base, fileBlocks)
	check(t, l, want)
}

// TestCollectingFailsAnywhere fails the nth durable operation of a run with much
// collecting, for every n; whatever is then on disk holds all flushed writes.
func TestCollectingFailsAnywhere(t *testing.T) {
	base := newBase(512<<10, 1)
	boom := errors.New("boom")
	for n := 1; ; n++ {
		dir := create(t, base.Size(), testKey)
		var count atomic.Int64
		l, err := branchlog.OpenWith(dir, testKey, base, durable.Files{Fault: func(_, _ string, do func() error) error {
			if count.Add(1) >= int64(n) {
				return boom
			}
			return do()
		}}, 140)
		if err != nil {
			t.Fatal(err)
		}
		now, flushed := bytes.Clone(base), bytes.Clone(base)
		var failed error
		for i := 0; i < 24 && failed == nil; i++ {
			off := i * 7 % 100 * 4096
			p := bytes.Repeat([]byte{byte(i + 1)}, 5*4096)
			copy(now[off:], p)
			if _, failed = l.WriteAt(p, int64(off)); failed == nil && i%4 == 3 {
				if failed = errors.Join(l.Flush(ctx), l.Collect()); failed == nil {
					flushed = bytes.Clone(now)
				}
			}
		}
		l.Close()
		again := openSmall(t, dir, testKey, base, 140)
		got := make([]byte, len(base))
		if _, err := again.ReadAt(got, 0); err != nil {
			t.Fatal(err)
		}
		again.Close()
		if failed == nil && count.Load() < int64(n) {
			if !bytes.Equal(got, now) {
				t.Fatal("a run without a failure lost writes")
			}
			t.Logf("%d operations", count.Load())
			return
		}
		if !isMix(got, flushed, now) {
			t.Fatalf("failing operation %d lost flushed writes", n)
		}
	}
}
