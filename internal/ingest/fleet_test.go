package ingest_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/source/agent"

	"golang.org/x/sys/unix"
)

// fleet runs agents, each of an image of its own, until the function it returns is
// called.
func fleet(t testing.TB, r *rig, n int, epoch time.Duration) (stop func()) {
	t.Helper()
	r.direct()
	dir := t.TempDir()
	common := r.config("", "")
	ctx, cancel := context.WithCancel(context.Background())
	var agents sync.WaitGroup
	for i := range n {
		home := filepath.Join(dir, fmt.Sprint(i))
		disk := filepath.Join(home, "disk.img")
		content := fmt.Appendf(make([]byte, 256<<10), "disk %d", i)
		if err := os.Mkdir(home, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(disk, content, 0o600); err != nil {
			t.Fatal(err)
		}
		cfg := common
		cfg.State, cfg.Disks = filepath.Join(home, "state"), []string{disk}
		cfg.Epoch, cfg.Overrides.Hostname = epoch, fmt.Sprint("source-", i)
		agents.Go(func() {
			if err := agent.Run(ctx, cfg); err != nil {
				t.Error(err)
			}
		})
	}
	return func() { cancel(); agents.Wait() }
}

// everywhere tells whether all servers of the catalogue, n of them, are so.
func (r *rig) everywhere(n int, so func(drs.SourceServerID) bool) func() bool {
	return func() bool {
		for server := range r.catalog.info {
			if !so(server) {
				return false
			}
		}
		return len(r.catalog.info) == n
	}
}

// Hundreds of agents come at once to one server, and all get their points, of their own
// disks.
func TestFleet(t *testing.T) {
	const n = 200
	r := newRig(t, nil)
	defer fleet(t, r, n, 2*time.Second)()
	r.catalog.await(t, "a point of each", r.everywhere(n, func(s drs.SourceServerID) bool { return len(r.catalog.points[s]) > 0 }))
	seen := map[string]bool{}
	for server, points := range r.catalog.points {
		seen[string(content(t, r.vault, server, points[0].ID, 0)[256<<10:])] = true
	}
	if len(seen) != n {
		t.Errorf("%d different disks of %d", len(seen), n)
	}
}

// BenchmarkIdleFleet is the share of a processor that 300 agents at rest cost, both
// ends together: in one process with their server.
func BenchmarkIdleFleet(b *testing.B) {
	const n = 300
	r := newRig(b, nil)
	defer fleet(b, r, n, 5*time.Second)()
	rested := func(since time.Time) {
		for {
			r.catalog.mu.Lock()
			done := r.everywhere(n, func(s drs.SourceServerID) bool { return r.catalog.info[s].AsOf.After(since) })()
			changed := r.catalog.changed
			r.catalog.mu.Unlock()
			if done {
				return
			}
			<-changed
		}
	}
	rested(time.Now())
	for b.Loop() {
		begun, before := time.Now(), processor(b)
		rested(begun.Add(15 * time.Second))
		b.ReportMetric((processor(b)-before).Seconds()/time.Since(begun).Seconds(), "cores")
	}
}

func processor(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
