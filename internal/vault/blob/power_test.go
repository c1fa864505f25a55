package blob_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"lifeboat/internal/drs"
	"lifeboat/internal/durable"
	"lifeboat/internal/vault"
	"lifeboat/internal/vault/blob"
)

var errPower = errors.New("power failed")

// power fails at one durable operation. What was not synced by then is lost, or
// not, as chance has it: names in directories, and bytes in files.
type power struct {
	mu   sync.Mutex
	rnd  *rand.Rand
	left int // operations until the cut
	// atSync counts only syncs of directories after a link, and cuts before one: the
	// moment when most can be lost.
	atSync bool
	dirty  map[uint64]bool              // inodes with unsynced bytes
	names  map[string]map[string][]byte // by directory: unsynced names; with content where removed
}

func newPower(rnd *rand.Rand) *power {
	return &power{rnd: rnd, dirty: map[uint64]bool{}, names: map[string]map[string][]byte{}}
}

// open opens the store for that many operations.
func (p *power) open(t *testing.T, dir string, ops int) *blob.Dir {
	p.left = ops
	store, err := blob.OpenDirWith(dir, durable.Files{Fault: p.fault})
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// fault stands between an operation of durable.Files and its effect.
func (p *power) fault(op, path string, do func() error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left <= 0 {
		return errPower
	}
	if !p.atSync || op == "put: sync directory" {
		p.left--
	}
	if p.left == 0 && (p.atSync || p.rnd.IntN(2) == 0) {
		return errPower
	}
	removed, _ := os.ReadFile(path)
	_, absent := os.Stat(path)
	err := do()
	if err == nil && (op != "put: make folder" || absent != nil) { // one that was there stays there
		p.note(op, path, removed)
	}
	if p.left == 0 {
		return errPower
	}
	return err
}

func (p *power) note(op, path string, removed []byte) {
	pending := func(content []byte) {
		dir := filepath.Dir(path)
		if p.names[dir] == nil {
			p.names[dir] = map[string][]byte{}
		}
		p.names[dir][path] = content
	}
	switch {
	case strings.HasSuffix(op, ": write"):
		p.dirty[inode(path)] = true
	case op == "put: sync":
		delete(p.dirty, inode(path))
	case op == "put: link":
		pending(nil)
	case op == "put: make folder":
		pending(nil)
	case strings.HasSuffix(op, ": unlink"):
		pending(removed)
	case strings.Contains(op, "sync") || op == "settle":
		clear(p.names[path])
	}
}

func inode(path string) uint64 {
	var st syscall.Stat_t
	if syscall.Stat(path, &st) != nil {
		return 0
	}
	return st.Ino
}

// lose makes the disk what it may be after the cut.
func (p *power) lose(t *testing.T) (lost int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, names := range p.names {
		for path, content := range names {
			if p.rnd.IntN(3) == 0 {
				continue
			}
			lost++
			if content != nil {
				os.MkdirAll(filepath.Dir(path), 0o700)
				if err := os.WriteFile(path, content, 0o600); err != nil {
					t.Fatal(err)
				}
			} else if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
		}
	}
	clear(p.names)
	clear(p.dirty)
	return lost
}

// spoil cuts files whose bytes were not synced; such files must have no name.
func (p *power) spoil(t *testing.T, root string) {
	filepath.Walk(root, func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() && p.dirty[inode(path)] {
			os.Truncate(path, info.Size()/2)
			if !strings.Contains(path, ".tmp") {
				t.Errorf("%s has a name before its bytes are durable", path)
			}
		}
		return nil
	})
}

const (
	powerServer = drs.SourceServerID("s-0123456789abcdef0")
	powerBlocks = 400
)

// powerWrites are the blocks commit n stamps: few, or more than fit its manifest.
func powerWrites(n uint64) (first, count uint64) {
	if n%3 == 0 {
		return 0, powerBlocks
	}
	return n * 7 % (powerBlocks - 16), 16
}

func stamp(n uint64) []byte {
	return bytes.Repeat([]byte(fmt.Sprintf("%016x", n)), vault.BlockSize/16)
}

// commitUntilCut commits until the power fails and returns the last commit that was
// acknowledged.
func commitUntilCut(t *testing.T, store blob.Store, keys vault.KeyWrapper) (acked uint64) {
	ctx := context.Background()
	v, err := vault.Open(ctx, store, keys, vault.Options{})
	if err != nil {
		return 0
	}
	defer v.Close()
	w, err := v.Writer(ctx, powerServer, vault.MainBranch)
	if err != nil {
		return 0
	}
	for {
		n := w.Head().Number + 1
		acked = n - 1
		e, err := w.Begin(ctx, []vault.Volume{{ID: 1, Size: powerBlocks * vault.BlockSize}})
		if err != nil {
			t.Fatal(err)
		}
		first, count := powerWrites(n)
		for b := first; b < first+count; b += 16 {
			raw := bytes.Repeat(stamp(n), 16)
			f := vault.Frame{Volume: 1, Extents: []vault.Extent{{Block: b, Count: 16}}, RawLen: len(raw), Payload: raw}
			if err := e.Append(f); err != nil {
				return acked
			}
		}
		if _, err := e.Commit(ctx, nil); err != nil {
			return acked
		}
	}
}

// TestPowerCut kills the process at any durable operation, many times over, and checks
// that what was acknowledged is there. Every other time the power fails too, which
// takes back what is not synced, also what processes before have left so.
func TestPowerCut(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	keys, err := vault.CreateKeyFile(filepath.Join(t.TempDir(), "key"))
	if err != nil {
		t.Fatal(err)
	}
	store, err := blob.CreateDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	v, err := vault.Create(t.Context(), store, keys, vault.Options{})
	if err == nil {
		err = v.CreateServer(t.Context(), powerServer)
	}
	if err != nil {
		t.Fatal(err)
	}
	v.Close()
	store.Close()

	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	var want [powerBlocks]uint64 // the commit that stamped each block
	head, lost := uint64(1), 0
	p := newPower(rnd)
	for round := range 40 {
		p.atSync = rnd.IntN(3) > 0
		ops := 1 + rnd.IntN(90)
		if p.atSync {
			ops = 1 + rnd.IntN(3)
		}
		store := p.open(t, dir, ops)
		acked := max(head, commitUntilCut(t, store, keys))
		store.Close()
		if rnd.IntN(2) == 0 {
			p.spoil(t, dir)
			lost += p.lose(t)
		}
		store = p.open(t, dir, 1<<30)
		now := checkStamps(t, store, keys, &want, head)
		store.Close()
		if now < acked || now > acked+1 {
			t.Fatalf("round %d: head is %d, acknowledged was %d", round, now, acked)
		}
		head = now
	}
	if lost == 0 {
		t.Error("no cut lost anything: the test proves nothing")
	}
	t.Logf("%d commits, %d names lost", head, lost)
}

// checkStamps applies the commits after head to want, compares, and returns the new head.
func checkStamps(t *testing.T, store blob.Store, keys vault.KeyWrapper, want *[powerBlocks]uint64, head uint64) uint64 {
	v, err := vault.Open(t.Context(), store, keys, vault.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	w, err := v.Writer(t.Context(), powerServer, vault.MainBranch)
	if err != nil {
		t.Fatal(err)
	}
	now := w.Head().Number
	for n := head + 1; n <= now; n++ {
		first, count := powerWrites(n)
		for b := first; b < first+count; b++ {
			want[b] = n
		}
	}
	if now == 1 {
		return now // not even a volume
	}
	img, err := v.OpenHead(t.Context(), powerServer, vault.MainBranch)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	r, err := img.Volume(1)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, vault.BlockSize)
	for b, n := range want {
		if _, err := r.ReadAt(got, int64(b)*vault.BlockSize); err != nil {
			t.Fatal(err)
		}
		content := make([]byte, vault.BlockSize)
		if n > 0 {
			content = stamp(n)
		}
		if !bytes.Equal(got, content) {
			t.Fatalf("block %d is not that of commit %d", b, n)
		}
	}
	return now
}
