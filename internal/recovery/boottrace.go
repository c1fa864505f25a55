package recovery

import (
	"context"
	"errors"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault"
)

const (
	// traceFor is how long after its launch it is noted what a machine reads.
	traceFor = 2 * time.Minute
	// prefetches is how many machines' first reads are fetched ahead at a time:
	// all share one cache.
	prefetches = 4
)

// startTracing fetches what the server's machine read when it booted last, and notes
// what it reads now, for the next time. It returns how to end that, which waits.
func (e *exports) startTracing(image *vault.Image, instance drs.RecoveryInstance) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	recorder := image.Record()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		e.trace(ctx, image, recorder, instance)
	}()
	return func() {
		cancel()
		<-ended
	}
}

func (e *exports) trace(ctx context.Context, image *vault.Image, recorder *vault.Recorder, instance drs.RecoveryInstance) {
	s, server := e.service, instance.VaultServer
	log := s.Log.With("instance", instance.ID, "server", server)
	begun := time.Now()
	before, err := s.Vault.Trace(ctx, server)
	if err != nil && !errors.Is(err, vault.ErrAbsent) && ctx.Err() == nil {
		log.Warn("what the machine read at its last boot cannot be told: nothing is fetched ahead", "err", err)
	}
	if len(before) > 0 {
		select {
		case e.prefetches <- struct{}{}:
			err := image.Prefetch(ctx, before)
			<-e.prefetches
			log.Debug("fetched what the last boot read", "chunks", before.Chunks(), "took", time.Since(begun), "err", err)
		case <-ctx.Done():
		}
	}
	window := time.NewTimer(s.TraceFor - time.Since(begun))
	defer window.Stop()
	whole := false
	select {
	case <-window.C:
		whole = true
	case <-ctx.Done():
	}
	trace := recorder.Stop()
	// A boot that was cut short does not replace a longer one.
	if n := trace.Chunks(); n == 0 || !whole && n <= before.Chunks() {
		return
	}
	save, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	if err := s.Vault.SaveTrace(save, server, trace); err != nil {
		log.Warn("what the machine read is not kept: its next boot is no faster", "err", err)
	}
}
