package ingest_test

import (
	"os"
	"path/filepath"
	"testing"

	"lifeboat/internal/vault"
)

// A write of 4 KiB sends one block and stores one block, whatever lies around it;
// and zeros send nothing.
func TestSmallWriteStaysSmall(t *testing.T) {
	t.Parallel()
	rng := seed(t)
	f := &faultVault{}
	r := newRig(t, faulty(f))
	disk := image(t, 16<<20, rng)
	random := make([]byte, 4<<20)
	rng.Read(random)
	write(t, disk, random, 8<<20)
	a := runAgent(r.config(t.TempDir(), disk))
	defer a.stop(t)
	r.catalog.await(t, "the first point", func() bool { return len(r.catalog.points) == 1 })
	server := r.only()
	r.takePoint(server)

	usage := func() int64 {
		u, err := r.vault.Usage(t.Context(), server)
		if err != nil {
			t.Fatal(err)
		}
		return u.Stored
	}
	before, stored := r.proxy.awaitStill(t), usage()
	f.frames.Store(0)
	f.packed.Store(0)
	f.blocks.Store(0)
	f.zeros.Store(0)
	block := make([]byte, vault.BlockSize)
	rng.Read(block)
	write(t, disk, block, 9<<20+5*4096)
	wantContent(t, r.vault, r.takePoint(server), disk)
	if n, p := f.blocks.Load(), f.packed.Load(); n != 1 || p > vault.BlockSize {
		t.Errorf("%d blocks in %d bytes for one of %d", n, p, vault.BlockSize)
	}
	// What goes with it, and the heartbeats of the moment.
	if n := r.proxy.awaitStill(t) - before; n > vault.BlockSize+2048 {
		t.Errorf("%d bytes on the line for one block", n)
	}
	if n := usage() - stored; n > vault.BlockSize+2048 {
		t.Errorf("%d bytes in the vault for one block", n)
	}

	f.blocks.Store(0)
	write(t, disk, make([]byte, 3*vault.BlockSize), 10<<20+7*4096)
	wantContent(t, r.vault, r.takePoint(server), disk)
	if n, z := f.blocks.Load(), f.zeros.Load(); n != 0 || z != 1 {
		t.Errorf("%d blocks and %d runs of zeros for one run of zeros", n, z)
	}
}

// An agent that ended in good order knows when it comes back what the vault has: it
// asks nothing and sends what changed meanwhile. One that left no table, or whose
// table is not of this head, asks.
func TestTablesOutliveTheAgent(t *testing.T) {
	t.Parallel()
	rng := seed(t)
	f := &faultVault{}
	r := newRig(t, faulty(f))
	disk := image(t, 16<<20, rng)
	cfg := r.config(t.TempDir(), disk)
	next := byte(0)
	run := func() {
		t.Helper()
		f.blocks.Store(0)
		f.asked.Store(0)
		next++
		write(t, disk, []byte{next}, 16<<20/3+4096)
		a := runAgent(cfg)
		r.catalog.await(t, "a point", func() bool { return len(r.catalog.points) == 1 })
		wantContent(t, r.vault, r.takePoint(r.only()), disk)
		a.stop(t)
	}
	run()
	run()
	if n, asked := f.blocks.Load(), f.asked.Load(); n != 1 || asked != 0 {
		t.Errorf("%d blocks sent for one, %d digests asked for with a sealed table", n, asked)
	}
	tables, err := filepath.Glob(filepath.Join(cfg.State, "*.digests"))
	if err != nil || len(tables) != 1 {
		t.Fatalf("tables %v, %v", tables, err)
	}
	old, err := os.ReadFile(tables[0])
	if err != nil {
		t.Fatal(err)
	}
	run()
	if err := os.WriteFile(tables[0], old, 0o600); err != nil {
		t.Fatal(err)
	}
	run() // with a table of an older head
	if n, asked := f.blocks.Load(), f.asked.Load(); n != 16 || asked == 0 {
		t.Errorf("%d blocks sent, %d digests asked for with a table of an older head", n, asked)
	}
	if err := os.Remove(tables[0]); err != nil {
		t.Fatal(err)
	}
	run()
	if n, asked := f.blocks.Load(), f.asked.Load(); n != 16 || asked == 0 {
		t.Errorf("%d blocks sent, %d digests asked for without a table", n, asked)
	}
}
