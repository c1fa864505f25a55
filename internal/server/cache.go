package server

import (
	"context"
	"errors"
	"io"

	"github.com/prometheus/client_golang/prometheus"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault"
	"lifeboat/internal/vault/blob/cached"
	"lifeboat/internal/vault/blob/s3"
)

// DefaultCacheSize bounds the local cache of a vault in a bucket, in bytes.
const DefaultCacheSize = 10 << 30

const (
	// cacheDir, within the data directory, may be deleted at any time.
	cacheDir = "cache"
	// frameCache bounds the decoded frames in memory. Guests cache what they read
	// themselves; ours serves the neighbours of a read and machines of one point.
	frameCache = 32 << 20
	// farFrameCache holds what is read ahead from a bucket, which is more.
	farFrameCache = 64 << 20
)

// vaultOptions says how this server uses the vault in a store: one in a bucket with
// many requests under way, and by way of a cache.
func (s *running) vaultOptions(store vaultStore) (vault.Options, error) {
	opt := vault.Options{
		Logger: s.Log.With("wing", "vault"), CacheBytes: frameCache,
		// A point vanishes from the API first, and is in the vault no more after that: a
		// crash in between leaves one too many, which the next start lists again.
		Retire: func(ctx context.Context, _ drs.SourceServerID, points []drs.RecoverySnapshotID) ([]drs.RecoverySnapshotID, error) {
			return s.db.RetirePoints(ctx, points)
		},
	}
	bucket, ok := store.(*s3.Store)
	if !ok {
		return opt, nil
	}
	s.Log.Info("the vault is in a bucket", "vault", s.dir.Settings.Vault, "credentials", bucket.CredentialsFrom())
	opt.Far, opt.CacheBytes = true, farFrameCache
	if s.CacheSize < 0 {
		return opt, nil
	}
	size := s.CacheSize
	if size == 0 {
		size = DefaultCacheSize
	}
	var err error
	s.cache, err = cached.Open(s.dir.file(cacheDir), size, s.watch, s.Log.With("wing", "vault"))
	opt.Segments = s.cache
	return opt, err
}

// closeVault closes the vault, and then what it reads from.
func (s *running) closeVault() error {
	closers := []io.Closer{s.vault}
	if s.cache != nil {
		closers = append(closers, s.cache)
	}
	var errs []error
	for _, c := range append(closers, s.store) {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// cacheMetrics tells how well the cache does.
type cacheMetrics struct{ cache *cached.Cache }

var (
	cacheHits    = prometheus.NewDesc("lifeboat_vault_cache_hits_total", "Blocks of the vault that were read from the local cache.", nil, nil)
	cacheMisses  = prometheus.NewDesc("lifeboat_vault_cache_misses_total", "Blocks of the vault that had to be fetched from the bucket.", nil, nil)
	cacheDamaged = prometheus.NewDesc("lifeboat_vault_cache_damaged_total", "Blocks of the local cache that were damaged and fetched anew.", nil, nil)
	cacheBytes   = prometheus.NewDesc("lifeboat_vault_cache_bytes", "Size of the local cache of the vault.", nil, nil)
)

func (m cacheMetrics) Describe(out chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, out) }

func (m cacheMetrics) Collect(out chan<- prometheus.Metric) {
	s := m.cache.Stats()
	for desc, value := range map[*prometheus.Desc]int64{cacheHits: s.Hits, cacheMisses: s.Misses, cacheDamaged: s.Damaged} {
		out <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(value))
	}
	out <- prometheus.MustNewConstMetric(cacheBytes, prometheus.GaugeValue, float64(s.Bytes))
}
