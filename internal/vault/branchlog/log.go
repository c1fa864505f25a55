package branchlog

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"lifeboat/internal/durable"
)

const (
	branchName = "branch"  // the log's own header; constant
	markName   = "flushed" // see mark
	lockName   = "lock"    // locked by whoever has the log open

	// defaultFileBlocks is the size that a log file aims at: 64 MiB.
	defaultFileBlocks = 64 << 20 / BlockSize
)

// Base is what the log lies over. It must not change while the log exists, and
// is called concurrently. A Base that is also a Mapper lets the log tell where
// the disk has no data.
type Base interface {
	io.ReaderAt
	Size() int64 // in bytes
}

// Mapper describes [off, off+n) of a base in order and without gaps: each call of
// yield says that the next length bytes read as zeros and take no space (hole),
// or may hold anything. It stops early when yield returns false.
type Mapper interface {
	Extents(ctx context.Context, off, n int64, yield func(length int64, hole bool) bool) error
}

// Cacher is a base that can have a range ready for reads that come soon.
type Cacher interface {
	Cache(ctx context.Context, off, n int64) error
}

// Log is a disk that takes writes. Its methods are safe for concurrent use; after
// Close they answer ErrClosed. Offsets and lengths are bytes and need not be
// aligned.
type Log struct {
	dir    string
	base   Base
	key    []byte
	header branchHeader
	files  durable.Files
	limit  uint32 // blocks of a log file

	lock  *os.File // of the directory
	mark  *os.File
	stop  context.CancelFunc
	tasks sync.WaitGroup
	wake  chan struct{} // there may be something to collect
	clean sync.Mutex    // held while collecting

	finished atomic.Pointer[error] // the first failure that ends the log

	queue  queue    // of operations that wait for the appender
	append appender // owned by the appender
	syncs  syncs

	mu       sync.RWMutex
	extents  extentMap           // guarded by mu; changed by the appender only
	logs     map[uint32]*logFile // guarded by mu
	current  *logFile            // guarded by mu; nil until the first write
	sequence uint64              // guarded by mu; of the last group in the map
}

// appender is what the appender needs from one group to the next.
type appender struct {
	mu       sync.Mutex // held by the appender
	group    *groupBuffer
	sequence uint64 // the last one used, also by a write that failed
	number   uint32 // of the last file created
}

// Create makes an empty log for a disk of size bytes in dir, which must not
// exist, or be empty (fs.ErrExist otherwise). The log is encrypted under key, of
// KeySize bytes; nil stores it in the clear. It is durable when Create returns,
// and a crash on the way leaves no log.
func Create(dir string, size int64, key []byte) error {
	if size <= 0 || size > 1<<62 {
		return fmt.Errorf("create branch log %s: a disk cannot have %d bytes", dir, size)
	}
	if err := create(dir, size, key); err != nil {
		return fmt.Errorf("create branch log %s: %w", dir, err)
	}
	return nil
}

func create(dir string, size int64, key []byte) error {
	dir = filepath.Clean(dir)
	// An empty directory is in the way of the rename below.
	if err := syscall.Rmdir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		if errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.ENOTDIR) {
			return fs.ErrExist
		}
		return err
	}
	h := branchHeader{encrypted: key != nil, size: size}
	rand.Read(h.id[:])
	rand.Read(h.salt[:])
	var err error
	if h.keyCheck, err = keyCheck(key, h.salt); err != nil {
		return err
	}
	var files durable.Files
	tmp, err := siblingOf(dir, "new")
	if err != nil {
		return err
	}
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return err
	}
	defer os.RemoveAll(tmp) // nothing is left after the rename
	m := mark{id: h.id}
	for name, content := range map[string][]byte{branchName: h.encode(), markName: m.encode(), lockName: nil} {
		if err := files.CreateFile("create "+name, filepath.Join(tmp, name), content, 0o600); err != nil {
			return err
		}
	}
	if err := files.Rename("place branch log", tmp, dir); err != nil {
		return err // fs.ErrExist, when another call was faster
	}
	return files.SyncDir("place branch log", filepath.Dir(dir))
}

// siblingOf clears what a crashed call left beside dir for the same purpose and
// returns a fresh name there.
func siblingOf(dir, purpose string) (string, error) {
	parent, prefix := filepath.Dir(dir), "."+filepath.Base(dir)+"."+purpose+"."
	entries, err := os.ReadDir(parent)
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			if err := os.RemoveAll(filepath.Join(parent, e.Name())); err != nil {
				return "", err
			}
		}
	}
	var b [8]byte
	rand.Read(b[:])
	return filepath.Join(parent, prefix+hex.EncodeToString(b[:])), nil
}

// Destroy removes the log in dir for good; fs.ErrNotExist if there is none,
// ErrInUse if it is open. A crash on the way leaves either the whole log or none.
func Destroy(dir string) error {
	dir = filepath.Clean(dir)
	lock, err := lockDir(dir)
	if err != nil {
		return fmt.Errorf("destroy branch log %s: %w", dir, err)
	}
	defer lock.Close()
	if err := destroy(dir); err != nil {
		return fmt.Errorf("destroy branch log %s: %w", dir, err)
	}
	return nil
}

func destroy(dir string) error {
	var files durable.Files
	tmp, err := siblingOf(dir, "old")
	if err != nil {
		return err
	}
	if err := files.Rename("remove branch log", dir, tmp); err != nil {
		return err
	}
	if err := files.SyncDir("remove branch log", filepath.Dir(dir)); err != nil {
		return err
	}
	return os.RemoveAll(tmp)
}

// lockDir takes the lock of a log that exists.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, ErrInUse
		}
		return nil, fmt.Errorf("lock: %w", err)
	}
	return f, nil
}

// Size is the size of the disk in bytes.
func (l *Log) Size() int64 { return l.header.size }

// ID tells this log from all others.
func (l *Log) ID() [16]byte { return l.header.id }

// Sequence is that of the last write, 0 before the first.
func (l *Log) Sequence() uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.sequence
}

// Close flushes, stops the background work and gives the directory free. The
// error is that of the flush; the log is closed in any case. A second Close does
// nothing.
func (l *Log) Close() error {
	l.stop()
	l.tasks.Wait()
	l.append.mu.Lock() // let the appender finish
	defer l.append.mu.Unlock()
	err := l.flush()
	if errors.Is(err, ErrClosed) {
		return nil // closed before
	}
	l.finish(ErrClosed)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.logs {
		f.release()
	}
	return errors.Join(err, l.mark.Close(), l.lock.Close())
}

// finish makes err the answer to every later call, unless there is one already.
func (l *Log) finish(err error) {
	l.finished.CompareAndSwap(nil, &err)
}

// err is the failure that ended the log, nil while it lives.
func (l *Log) err() error {
	if p := l.finished.Load(); p != nil {
		return *p
	}
	return nil
}

// checkRange refuses what is not on the disk.
func (l *Log) checkRange(what string, off, n int64) error {
	if off < 0 || n < 0 || off > l.header.size || n > l.header.size-off {
		return fmt.Errorf("%s %d bytes at %d of a disk of %d: %w", what, n, off, l.header.size, syscall.EINVAL)
	}
	return nil
}

// diskBlocks is the size of the disk in blocks, the last of which may be partly
// outside.
func (h *branchHeader) diskBlocks() uint64 {
	return (uint64(h.size) + BlockSize - 1) / BlockSize
}

// Stats are figures for people and metrics.
type Stats struct {
	Files     int   // log files
	Bytes     int64 // that they take
	LiveBytes int64 // of payload that is current
	Extents   int   // in memory, of 24 bytes each
}

// Stats returns the log's figures of this moment.
func (l *Log) Stats() Stats {
	l.mu.RLock()
	defer l.mu.RUnlock()
	s := Stats{Files: len(l.logs), Extents: l.extents.extents()}
	for _, f := range l.logs {
		s.Bytes += int64(f.end) * BlockSize
		s.LiveBytes += f.live * BlockSize
	}
	return s
}
