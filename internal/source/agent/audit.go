package agent

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"lifeboat/internal/source/blocktrack"
)

// audit reads disks that a live tracker watches, a little at a time, and compares
// them with what the vault holds: a tracker that missed a write is found out and
// what it missed is sent. It reads only while the disks are at rest, so that what
// differs was missed and not just written.
type audit struct {
	disk int   // the next place to look at
	off  int64 // on that disk, in whole chunks
	last time.Time
}

const (
	defaultAuditIn = 30 * 24 * time.Hour
	// auditRate bounds the reading, in bytes per second; auditStep makes it worth a
	// disk's while.
	auditRate = 16 << 20
	auditStep = 1 << 20
)

// due returns how many bytes there are to read by now, 0 while it is not worth it.
func (u *audit) due(now time.Time, total int64, in time.Duration) int64 {
	if in < 0 {
		return 0
	}
	if u.last.IsZero() {
		u.last = now
	}
	since := now.Sub(u.last)
	n := min(int64(float64(total)*since.Seconds()/in.Seconds()), int64(auditRate*since.Seconds()), total, auditRate)
	if n < min(auditStep, total) {
		return 0
	}
	u.last = now
	return n / blocktrack.ChunkSize * blocktrack.ChunkSize
}

// next returns the next stretch of at most n bytes, all on one disk.
func (u *audit) next(disks []*disk, n int64) (int, blocktrack.Range) {
	if u.disk >= len(disks) || u.off >= disks[u.disk].size {
		u.disk, u.off = (u.disk+1)%len(disks), 0
	}
	for range disks { // past those that are not there, or not in the vault yet
		if d := disks[u.disk]; d.left.IsZero() && !d.joining.Load() {
			break
		}
		u.disk, u.off = (u.disk+1)%len(disks), 0
	}
	return u.disk, blocktrack.Range{Offset: u.off, Length: min(n, disks[u.disk].size-u.off)}
}

// auditSome reads some of the disks, which are at rest, if it is time to. What was
// missed is to be read by the next pass.
func (c *cutter) auditSome(ctx context.Context) error {
	a := c.s.a
	var total int64
	for _, d := range a.disks.all {
		if d.left.IsZero() && !d.joining.Load() {
			total += d.size
		}
	}
	n := a.audit.due(time.Now(), total, a.cfg.AuditIn)
	if n == 0 {
		return nil
	}
	i, stretch := a.audit.next(a.disks.all, n)
	d := a.disks.all[i]
	if a.outside != nil {
		defer func() { _ = a.outside.Release() }() // asked before it counts
		if err := a.holdForAudit(ctx); errors.Is(err, errMoved) {
			return nil // looked at again once the disks are at rest
		} else if err != nil {
			return err
		}
	}
	var mu sync.Mutex
	var missed []blocktrack.Range
	err := blocktrack.Read(ctx, d.dev, d.table, blocktrack.Changes{Ranges: []blocktrack.Range{stretch}}, 1, new(atomic.Int64), func(chunk blocktrack.Chunk) error {
		mu.Lock()
		defer mu.Unlock()
		missed = append(missed, blocktrack.Range{Offset: chunk.Index * blocktrack.ChunkSize, Length: blocktrack.ChunkSize})
		return nil
	})
	if err != nil {
		return err
	}
	if a.outside != nil {
		if err := a.outside.Release(); err != nil {
			return nil // it proves nothing, and the next one may
		}
	} else if quiet, err := a.live.Quiet(); err != nil || !quiet {
		return err // looked at again once the disks are at rest
	}
	a.audit.off = stretch.Offset + stretch.Length
	if len(missed) > 0 {
		a.todo[i] = blocktrack.Union(a.todo[i], blocktrack.Changes{Ranges: blocktrack.Join(missed)})
		d.meter.missed.Add(int64(len(missed)) * blocktrack.ChunkSize)
		a.log.Error("the tracker missed writes; they are sent now", "tracker", a.tracker.Name(), "disk", d.name,
			"chunks", len(missed), "first", missed[0].Offset, "next_step", "report this, and use --tracker scan if it comes again")
	}
	return nil
}
