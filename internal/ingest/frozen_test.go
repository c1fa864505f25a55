package ingest_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"

	"lifeboat/internal/drs"
	"lifeboat/internal/source/blocktrack/tracktest"
)

// numbered writes n to the files of several filesystems in turn, each write on disk
// before the next one begins.
type numbered struct {
	files []*os.File
	n     atomic.Uint64 // the last one that is on disk
}

func newNumbered(t *testing.T, dirs ...string) *numbered {
	t.Helper()
	w := &numbered{}
	for _, dir := range dirs {
		f, err := os.OpenFile(filepath.Join(dir, "numbers"), os.O_CREATE|os.O_RDWR|syscall.O_DSYNC, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		w.files = append(w.files, f)
	}
	return w
}

func (w *numbered) write() error {
	n := w.n.Load() + 1
	var block [512]byte
	for i := 0; i < len(block); i += 8 {
		binary.LittleEndian.PutUint64(block[i:], n)
	}
	files := uint64(len(w.files))
	if _, err := w.files[n%files].WriteAt(block[:], int64(n/files)*int64(len(block))); err != nil {
		return err
	}
	w.n.Store(n)
	return nil
}

// run writes until ctx ends, and then lets go of the files.
func (w *numbered) run(ctx context.Context) (err error) {
	for ctx.Err() == nil && err == nil {
		err = w.write()
	}
	for _, f := range w.files {
		f.Close()
	}
	return err
}

// prefix returns the last number in the directories, which must hold all before it.
func prefix(dirs ...string) (last uint64, err error) {
	var files [][]byte
	for _, dir := range dirs {
		raw, err := os.ReadFile(filepath.Join(dir, "numbers"))
		if err != nil {
			return 0, err
		}
		files = append(files, raw)
	}
	at := func(n uint64) uint64 {
		off := n / uint64(len(files)) * 512
		raw := files[n%uint64(len(files))]
		if off+512 > uint64(len(raw)) {
			return 0
		}
		return binary.LittleEndian.Uint64(raw[off:])
	}
	for at(last+1) == last+1 {
		last++
	}
	for n := last + 1; n < last+1000; n++ {
		if at(n) != 0 {
			return last, fmt.Errorf("holds number %d and not %d", n, last+1)
		}
	}
	return last, nil
}

// Two filesystems that are written to without a pause get points by freezing them
// together: each is a prefix of the writes over both, and needs no repair.
func TestFrozenCuts(t *testing.T) {
	t.Parallel()
	ext4, xfs := tracktest.Loop(t, 64<<20), tracktest.Loop(t, 304<<20)
	if !tracked(ext4) {
		t.Skip("writes cannot be tracked here")
	}
	first, _ := tracktest.Mount(t, ext4, "ext4", "defaults")
	second, _ := tracktest.Mount(t, xfs, "xfs", "defaults")
	ctx, cancel := context.WithCancel(t.Context())
	writer := newNumbered(t, first, second)
	ended := make(chan error, 1)
	go func() { ended <- writer.run(ctx) }()
	stop := func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		ended <- nil
	}
	defer stop()

	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	hooks := t.TempDir()
	called := filepath.Join(hooks, "called")
	for _, name := range []string{"before", "after"} {
		script := fmt.Sprintf("#!/bin/sh\necho %s >>%s\n", name, called)
		if err := os.WriteFile(filepath.Join(hooks, name), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	r := newRig(t, nil)
	cfg := r.config(t.TempDir(), ext4)
	cfg.Disks = append(cfg.Disks, xfs)
	cfg.Guard = []string{"/usr/bin/env", role + "=guard", self}
	cfg.Hooks = hooks
	a := runAgent(cfg)
	defer a.stop(t)
	var points []drs.RecoveryPoint
	r.catalog.await(t, "points of a busy machine", func() bool {
		points = points[:0]
		for _, server := range r.catalog.points {
			for _, p := range server {
				if p.Method == drs.Frozen {
					points = append(points, p)
				}
			}
		}
		return len(points) >= 2
	})
	stop()
	if raw, err := os.ReadFile(called); err != nil || len(raw) == 0 {
		t.Errorf("hooks: %q, %v", raw, err)
	}
	before := uint64(0)
	for _, p := range points {
		if p.Consistency != drs.ApplicationConsistent {
			t.Errorf("point %s is of consistency %s", p.ID, p.Consistency)
		}
		if p.Freeze <= 0 {
			t.Errorf("point %s does not tell how long its freeze took", p.ID)
		}
		var dirs, checks []string
		for volume, disk := range []struct{ check, options string }{
			{"e2fsck -fn", "ro,noload"},
			{"xfs_repair -n", "nouuid"}, // a frozen XFS has something in its log, as it is made
		} {
			image := filepath.Join(t.TempDir(), "image")
			if err := os.WriteFile(image, content(t, r.vault, p.SourceServer, p.ID, volume), 0o600); err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			tracktest.Command(t, "mount", "-o", "loop,"+disk.options, image, dir)
			dirs = append(dirs, dir)
			checks = append(checks, disk.check+" "+image)
		}
		n, err := prefix(dirs...)
		for i, dir := range dirs {
			tracktest.Command(t, "umount", dir)
			tracktest.Command(t, "sh", "-c", "PATH=$PATH:/usr/sbin:/sbin; "+checks[i])
		}
		if err != nil || n < before {
			t.Errorf("point %s, after one with %d: %v", p.ID, before, err)
		}
		before = n
	}
	t.Logf("the last of %d points holds %d of %d writes", len(points), before, writer.n.Load())
}
