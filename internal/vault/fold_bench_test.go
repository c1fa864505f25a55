package vault_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"lifeboat/internal/vault"
	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/blob/blobtest"
)

// meteredStore counts the bytes that are written, by kind of object.
type meteredStore struct {
	blob.Store
	mu      sync.Mutex
	written map[string]int64
}

func (s *meteredStore) PutIfAbsent(ctx context.Context, name string, parts ...[]byte) error {
	n := int64(0)
	for _, p := range parts {
		n += int64(len(p))
	}
	s.mu.Lock()
	s.written[name[strings.LastIndexByte(name, '.')+1:]] += n
	s.mu.Unlock()
	return s.Store.PutIfAbsent(ctx, name, parts...)
}

func (s *meteredStore) total() (n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.written {
		n += m
	}
	return n
}

// BenchmarkSteadyDays is the write amplification of days of epochs, folded to the default
// policy: all bytes that reach the store, for each byte that was written to the disk and
// does not compress. Nine days, so that every rule has come to let points go.
func BenchmarkSteadyDays(b *testing.B) {
	for _, c := range []struct {
		name   string
		blocks int // of the disk
		change int // in an epoch
	}{{"busy", 1 << 15, 8}, {"quiet", 1 << 15, 1}} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				amplification(b, c.blocks, c.change, 9*24*time.Hour, 30*time.Second)
			}
		})
	}
}

// amplification runs a steady workload, and reports on the last day of it.
func amplification(b testing.TB, blocks, change int, length, distance time.Duration) float64 {
	store := &meteredStore{Store: blobtest.NewMem(), written: map[string]int64{}}
	s := newSimulation(b, store, vault.Options{}, blocks, 1)
	var first []int // the disk is full when it begins
	for i := range blocks {
		first = append(first, i)
	}
	s.step(distance, first)
	s.payload, s.w = 0, nil
	s.v.WaitTasks()
	clear(store.written)
	for next := s.at; s.at.Before(simulated.Add(length)); {
		s.step(distance, s.busy(change))
		if s.at.After(next) {
			s.maintain()
			next = s.at.Add(10 * time.Minute)
		}
	}
	s.v.WaitTasks()
	ratio := float64(store.total()) / float64(s.payload)
	if r, ok := b.(*testing.B); ok {
		r.ReportMetric(ratio, "written/committed")
		for kind, n := range store.written {
			r.ReportMetric(float64(n)/float64(s.payload), kind+"/committed")
		}
		names := store.Store.(*blobtest.Mem).Names()
		stored := 0
		for _, name := range names {
			stored += len(store.Store.(*blobtest.Mem).Bytes(name))
		}
		r.ReportMetric(float64(len(names)), "objects")
		r.ReportMetric(float64(len(s.held)), "points")
		r.ReportMetric(float64(stored)/float64(blocks*vault.BlockSize), "stored/disk")
	}
	for _, id := range s.some(5) {
		s.check(id)
	}
	return ratio
}
