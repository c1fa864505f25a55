package ingest_test

import (
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"lifeboat/internal/drs"
)

// A line of half a second there and back carries what the credit allows, and points
// come as they do elsewhere.
func TestLongLine(t *testing.T) {
	t.Parallel()
	rng := seed(t)
	f := &faultVault{}
	r := newRig(t, faulty(f))
	r.proxy.delay.Store(int64(250 * time.Millisecond))
	disk := image(t, 64<<20, rng)
	random := make([]byte, 40<<20)
	rng.Read(random)
	write(t, disk, random, 8<<20)
	begun := time.Now()
	a := runAgent(r.config(t.TempDir(), disk))
	defer a.stop(t)
	r.catalog.await(t, "the first point", func() bool { return len(r.catalog.points) == 1 })
	t.Logf("%d MiB in %s, with the line's length and the handshakes", f.packed.Load()>>20, time.Since(begun).Round(time.Millisecond))
	wantContent(t, r.vault, r.takePoint(r.only()), disk)
	if n := f.blocks.Load(); n > 64<<20/4096 {
		t.Errorf("%d blocks were sent of %d", n, 64<<20/4096)
	}
}

// A line that breaks again and again, each time after a little more, gets everything
// across in the end, and what was acknowledged once is not sent again.
func TestFlappingLine(t *testing.T) {
	t.Parallel()
	rng := seed(t)
	f := &faultVault{}
	r := newRig(t, faulty(f))
	disk := image(t, 16<<20, rng)
	a := runAgent(r.config(t.TempDir(), disk))
	defer a.stop(t)
	r.catalog.await(t, "the first point", func() bool { return len(r.catalog.points) == 1 })
	server := r.only()
	r.takePoint(server)
	asked, before := f.asked.Load(), f.packed.Load()
	block := make([]byte, 4096)
	const cuts = 4
	for i := range cuts {
		r.proxy.cut()
		rng.Read(block)
		write(t, disk, block, int64(i)*1<<20+4096)
		r.proxy.mend()
		wantContent(t, r.vault, r.takePoint(server), disk)
	}
	// Also where a cut lost the acknowledgement of a point.
	if n := f.packed.Load() - before; n > cuts*(4096+256) || f.asked.Load() != asked {
		t.Errorf("%d bytes sent for %d blocks, %d digests asked for", n, cuts, f.asked.Load()-asked)
	}
	r.catalog.await(t, "CONTINUOUS", func() bool { return r.catalog.info[server].State == drs.ReplicationContinuous })
}

// BenchmarkLongLine is how much an initial sync carries over a line of half a second
// there and back, once it is under way.
func BenchmarkLongLine(b *testing.B) {
	const size = 512 << 20
	rng := seed(b)
	for b.Loop() {
		r := newRig(b, nil)
		r.proxy.delay.Store(int64(250 * time.Millisecond))
		disk := filepath.Join(b.TempDir(), "disk.img")
		f, err := os.Create(disk)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.CopyN(f, rng, size); err != nil {
			b.Fatal(err)
		}
		if err := f.Close(); err != nil {
			b.Fatal(err)
		}
		begun := time.Now()
		a := runAgent(r.config(b.TempDir(), disk))
		r.catalog.await(b, "the first point", func() bool { return len(r.catalog.points) == 1 })
		b.ReportMetric(size/1e6/time.Since(begun).Seconds(), "MB/s")
		a.stop(b)
	}
}
