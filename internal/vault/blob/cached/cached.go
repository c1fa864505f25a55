// Package cached keeps parts of remote objects in a local directory, up to a size.
//
// What it guarantees:
//
//   - It never returns bytes other than the remote store's: each block carries a
//     checksum and says which block it is; one that is torn, flipped or swapped
//     is fetched anew.
//   - Its directory may be deleted, whole or in part, at any time, also while it is
//     used; nothing in it is needed.
//   - A directory that is full, read-only or broken makes it slower, not wrong: reads
//     go to the remote store then.
//
// It is for objects that never change under their name. What it holds is what the
// store holds, encrypted as it is there. The format is in docs/formats/vault-cache.md.
package cached

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// Reader is what a cache needs of the store behind it.
type Reader interface {
	// ReadAt fills p from offset off and returns how many bytes it read, with
	// io.EOF when the object ends before p is full.
	ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error)
}

// BlockSize is how many bytes are fetched and kept as one.
const BlockSize = 256 << 10

// maxFetch is how many blocks one request to the remote store asks for.
const maxFetch = 4

// Cache reads objects of a remote store by way of a directory. Safe for concurrent
// use; only one process may use a directory at a time.
type Cache struct {
	remote Reader
	dir    string
	log    *slog.Logger
	blocks *index

	writes  chan write
	writers sync.WaitGroup
	closing chan struct{}

	broken atomic.Int64 // not written to until then, in nanoseconds of Unix time

	mu      sync.Mutex
	flights map[key]*flight // fetches under way; guarded by mu

	hits, misses, damaged atomic.Int64
}

// write is a block on its way to the disk.
type write struct {
	key  key
	data []byte
}

const (
	// writers is how many blocks are written at a time, queue how many may wait.
	// Blocks beyond that are not kept: a slow disk must not slow down reads.
	writers = 2
	queue   = 64
	// pause is how long a directory is left alone that could not be written.
	pause = 30 * time.Second
)

// Open uses a directory, made when it is absent, for up to limit bytes. What an
// earlier process left there is used. A directory that cannot be used is logged and
// done without.
func Open(dir string, limit int64, remote Reader, log *slog.Logger) (*Cache, error) {
	if limit < 0 {
		return nil, fmt.Errorf("cache %s: negative size", dir)
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	c := &Cache{
		remote: remote, dir: dir, log: log, blocks: newIndex(limit),
		writes: make(chan write, queue), closing: make(chan struct{}), flights: map[key]*flight{},
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		c.complain("make", err)
	} else if err := c.load(); err != nil {
		c.complain("look into", err)
	}
	for range writers {
		c.writers.Go(c.write)
	}
	return c, nil
}

// Close waits for the blocks that are being written. Reads must have ended.
func (c *Cache) Close() error {
	close(c.closing)
	c.writers.Wait()
	return nil
}

// Stats tells how well a cache does.
type Stats struct {
	Hits, Misses int64 // blocks
	Damaged      int64 // blocks that were not as they had been written
	Bytes        int64 // kept now
	Limit        int64
}

// Stats returns the counts since Open.
func (c *Cache) Stats() Stats {
	return Stats{Hits: c.hits.Load(), Misses: c.misses.Load(), Damaged: c.damaged.Load(), Bytes: c.blocks.bytes(), Limit: c.blocks.limit}
}

// ReadAt is the remote store's ReadAt.
func (c *Cache) ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error) {
	if off < 0 || len(p) == 0 || c.blocks.limit < BlockSize {
		return c.remote.ReadAt(ctx, name, p, off)
	}
	for {
		n, again, err := c.read(ctx, name, p, off)
		if !again || ctx.Err() != nil {
			return n, err
		}
	}
}

// read copies from blocks, those kept and those fetched. It is to be done again when
// another reader, whose fetch it waited for, gave up.
func (c *Cache) read(ctx context.Context, name string, p []byte, off int64) (n int, again bool, err error) {
	first, last := off/BlockSize, (off+int64(len(p))-1)/BlockSize
	wants := make([]want, last-first+1)
	end := off + int64(len(p)) // of what is asked for, or of the object
	got := func(block int64, data []byte) {
		place(p, off, block, data)
		if len(data) < BlockSize {
			end = min(end, block*BlockSize+int64(len(data)))
		}
	}
	for b := first; b <= last; b++ {
		k := keyOf(name, b)
		if data, ok := c.kept(k); ok {
			c.hits.Add(1)
			got(b, data)
			continue
		}
		wants[b-first] = c.claim(k, b)
	}
	c.fetch(ctx, name, wants)
	for _, f := range wants {
		if f.flight == nil {
			continue
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return 0, false, context.Cause(ctx)
		}
		again = again || f.abandoned && !f.mine
		if f.err != nil && (err == nil || f.mine) {
			err = f.err
		}
		got(f.block, f.data)
	}
	if err != nil {
		return 0, again, err
	}
	if end < off+int64(len(p)) {
		return int(max(0, end-off)), false, io.EOF
	}
	return len(p), false, nil
}

// place copies what p and a block have in common.
func place(p []byte, off, block int64, data []byte) {
	at := block * BlockSize
	if at >= off {
		if at-off < int64(len(p)) {
			copy(p[at-off:], data)
		}
		return
	}
	if skip := off - at; skip < int64(len(data)) {
		copy(p, data[skip:])
	}
}

// Forget drops what is kept of an object that turned out to be damaged: it may be
// put back from a copy one day.
func (c *Cache) Forget(name string, off, n int64) {
	for b := off / BlockSize; b <= (off+n)/BlockSize; b++ {
		c.drop(keyOf(name, b))
	}
}

func (c *Cache) drop(k key) {
	c.blocks.remove(k)
	_ = os.Remove(c.path(k)) // it is found to be damaged again otherwise
}

// complain logs a trouble with the directory and leaves it alone for a while.
func (c *Cache) complain(what string, err error) {
	until := time.Now().Add(pause).UnixNano()
	if before := c.broken.Swap(until); time.Now().UnixNano() > before {
		c.log.Warn("the cache of the vault cannot be used: reads go to the store itself for now", "dir", c.dir, "what", what, "err", err)
	}
}

func (c *Cache) path(k key) string { return filepath.Join(c.dir, k.folder(), k.file()) }
