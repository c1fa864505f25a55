package vault_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault"
	"lifeboat/internal/vault/blob"
)

const server = drs.SourceServerID("s-0123456789abcdef0")

// failer is what rapid.T and testing.TB share.
type failer interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// must is used as must(f())(t).
func must[T any](v T, err error) func(t failer) T {
	return func(t failer) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func newKey(t testing.TB) vault.KeyWrapper {
	t.Helper()
	return must(vault.CreateKeyFile(filepath.Join(t.TempDir(), "master.key")))(t)
}

func newDirStore(t testing.TB) *blob.Dir {
	t.Helper()
	d, err := blob.CreateDir(filepath.Join(t.TempDir(), "vault"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// newVault makes a vault with one server in store.
func newVault(t testing.TB, store blob.Store, keys vault.KeyWrapper, opt vault.Options) *vault.Vault {
	t.Helper()
	v, err := vault.Create(t.Context(), store, keys, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	if err := v.CreateServer(t.Context(), server); err != nil {
		t.Fatal(err)
	}
	return v
}

var zstdEncoder, _ = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))

// frame makes a frame of raw under a codec; what does not shrink is stored raw.
func frame(vol vault.VolumeID, raw []byte, codec vault.Codec, extents ...vault.Extent) vault.Frame {
	f := vault.Frame{Volume: vol, Extents: extents, Codec: codec, RawLen: len(raw), Payload: raw}
	switch codec {
	case vault.CodecZstd:
		f.Payload = zstdEncoder.EncodeAll(raw, nil)
	case vault.CodecS2:
		f.Payload = s2.Encode(nil, raw)
	}
	if len(f.Payload) > vault.MaxPayload {
		f.Codec, f.Payload = vault.CodecRaw, raw
	}
	return f
}

// blocks returns n blocks of content that depends on seed only and compresses a bit.
func blocks(seed uint64, n int) []byte {
	rnd := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n*vault.BlockSize)
	for i := 0; i < len(b); i += 8 {
		if i%64 < 32 {
			b[i] = byte(rnd.Uint32())
		}
	}
	return b
}

func point(n int) *drs.RecoveryPoint {
	at := time.Date(2026, 1, 1, 0, 0, n, 0, time.UTC)
	return &drs.RecoveryPoint{
		ID: drs.RecoverySnapshotID(fmt.Sprintf("pit-%017x", n)), SourceServer: server,
		Expected: at, Taken: at, Consistency: drs.CrashConsistent, Method: drs.QuietPass,
	}
}

// disk is what a volume must read as, a multiple of the block size long.
type disk struct {
	size int64
	data []byte
}

func (d *disk) grow(size int64) {
	d.size = size
	n := int(size+vault.BlockSize-1) / vault.BlockSize * vault.BlockSize
	d.data = append(d.data, make([]byte, n-len(d.data))...)
}

func (d *disk) clone() *disk { return &disk{d.size, bytes.Clone(d.data)} }

// check reads the whole volume and compares.
func (d *disk) check(t failer, m *vault.Image, id vault.VolumeID) {
	t.Helper()
	r, err := m.Volume(id)
	if err != nil {
		t.Fatal(err)
	}
	if r.Size() != d.size {
		t.Fatalf("volume %d has %d bytes, want %d", id, r.Size(), d.size)
	}
	got := make([]byte, d.size+1)
	n, err := r.ReadAt(got, 0)
	if !errors.Is(err, io.EOF) || int64(n) != d.size {
		t.Fatalf("read volume %d: %d bytes, %v; want %d and EOF", id, n, err, d.size)
	}
	if i := firstDifference(got[:n], d.data[:d.size]); i >= 0 {
		t.Fatalf("volume %d differs at byte %d (block %d)", id, i, i/vault.BlockSize)
	}
}

// checkDetails compares random ranges, holes and digests.
func (d *disk) checkDetails(t failer, m *vault.Image, id vault.VolumeID, seed uint64, rnd *rand.Rand) {
	t.Helper()
	r := must(m.Volume(id))(t)
	for range 5 {
		off := rnd.Int64N(d.size)
		p := make([]byte, rnd.Int64N(d.size-off)+1)
		if n, err := r.ReadAt(p, off); n != len(p) || err != nil {
			t.Fatalf("ReadAt(%d, %d): %d, %v", len(p), off, n, err)
		}
		if !bytes.Equal(p, d.data[off:off+int64(len(p))]) {
			t.Fatalf("volume %d: %d bytes at %d differ", id, len(p), off)
		}
		spans := must(r.Extents(context.Background(), off, int64(len(p))))(t)
		at := off
		for _, s := range spans {
			if s.Offset != at || s.Length <= 0 {
				t.Fatalf("extents of [%d,+%d): %v", off, len(p), spans)
			}
			if s.Hole && !allZero(d.data[s.Offset:s.Offset+s.Length]) {
				t.Fatalf("hole %v holds data", s)
			}
			at += s.Length
		}
		if at != off+int64(len(p)) {
			t.Fatalf("extents of [%d,+%d) end at %d", off, len(p), at)
		}
	}
	chunks := int(d.size+vault.ChunkSize-1) / vault.ChunkSize
	digests := must(r.Digests(context.Background(), 0, chunks))(t)
	for i, got := range digests {
		chunk := d.data[i*vault.ChunkSize : min((i+1)*vault.ChunkSize, len(d.data))]
		if got != vault.ChunkDigest(seed, chunk) {
			t.Fatalf("volume %d: digest of chunk %d differs", id, i)
		}
	}
}

func allZero(b []byte) bool { return firstDifference(b, make([]byte, len(b))) < 0 }

func firstDifference(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return len(a)
}

// derived tells whether an object can be made again from others.
func derived(name string) bool {
	return strings.HasSuffix(name, ".pack") || strings.HasSuffix(name, ".run") || strings.HasSuffix(name, ".trace")
}

// ctxOf is for code that serves rapid, fuzzing and plain tests alike.
var ctxOf = context.Background()

// fullStore refuses puts while it is full.
type fullStore struct {
	blob.Store
	full atomic.Bool
}

func (s *fullStore) PutIfAbsent(ctx context.Context, name string, parts ...[]byte) error {
	if s.full.Load() {
		return fmt.Errorf("put %s: %w", name, blob.ErrNoSpace)
	}
	return s.Store.PutIfAbsent(ctx, name, parts...)
}
