package ingest_test

import (
	"flag"
	"os"
	"testing"
)

var benchImage = flag.String("image", "", "disk image for BenchmarkInitialSync; empty: a small one is made")

// BenchmarkInitialSync is from the start of an agent that knows nothing to its
// first crash-consistent point: registration, sync and the quiet pass.
func BenchmarkInitialSync(b *testing.B) {
	disk := *benchImage
	if disk == "" {
		disk = image(b, 256<<20, seeded(b, 1))
	}
	info, err := os.Stat(disk)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(info.Size())
	for b.Loop() {
		b.StopTimer()
		r := newRig(b, nil)
		r.direct() // the proxy would cost copies
		cfg := r.config(b.TempDir(), disk)
		b.StartTimer()
		a := runAgent(cfg)
		for {
			r.catalog.mu.Lock()
			done, changed := len(r.catalog.points) > 0, r.catalog.changed
			r.catalog.mu.Unlock()
			if done {
				break
			}
			<-changed
		}
		b.StopTimer()
		a.stop(b)
		r.stop()
		r.vault.Close()
		os.RemoveAll(r.dir)
		b.StartTimer()
	}
}
