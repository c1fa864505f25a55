package vault_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault"
)

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got error %v, want %v", err, want)
	}
}

func TestOpenNeverInvents(t *testing.T) {
	store, keys := newStore(t), newKey(t)
	_, err := vault.Open(t.Context(), store, keys, vault.Options{})
	wantErr(t, err, vault.ErrNotVault)
	if names := store.Names(); len(names) != 0 {
		t.Errorf("Open left %v", names)
	}
	store.Replace("something/else", []byte("x"))
	if _, err := vault.Create(t.Context(), store, keys, vault.Options{}); err == nil || !strings.Contains(err.Error(), "something/") {
		t.Errorf("Create in a store with other objects: got %v", err)
	}
}

func TestCreateTwice(t *testing.T) {
	store, keys := newStore(t), newKey(t)
	v := newVault(t, store, keys, vault.Options{})
	_, err := vault.Create(t.Context(), store, keys, vault.Options{})
	wantErr(t, err, vault.ErrExists)
	wantErr(t, v.CreateServer(t.Context(), server), vault.ErrExists)
}

func TestKeys(t *testing.T) {
	store, keys := newStore(t), newKey(t)
	newVault(t, store, keys, vault.Options{})
	_, err := vault.Open(t.Context(), store, newKey(t), vault.Options{})
	wantErr(t, err, vault.ErrWrongKey)
	_, err = vault.Open(t.Context(), store, nil, vault.Options{})
	wantErr(t, err, vault.ErrWrongKey)
	if _, err = vault.Open(t.Context(), store, keys, vault.Options{}); err != nil {
		t.Error(err)
	}
}

func TestKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	_, err := vault.LoadKeyFile(path)
	wantErr(t, err, vault.ErrAbsent)
	made := must(vault.CreateKeyFile(path))(t)
	_, err = vault.CreateKeyFile(path)
	wantErr(t, err, vault.ErrExists)
	loaded := must(vault.LoadKeyFile(path))(t)
	if made.ID() != loaded.ID() {
		t.Errorf("ID changed from %s to %s", made.ID(), loaded.ID())
	}
	wrapped := must(made.Wrap(t.Context(), []byte("secret"), []byte("a")))(t)
	if got := must(loaded.Unwrap(t.Context(), wrapped, []byte("a")))(t); string(got) != "secret" {
		t.Errorf("unwrapped %q", got)
	}
	_, err = loaded.Unwrap(t.Context(), wrapped, []byte("b"))
	wantErr(t, err, vault.ErrWrongKey)
	os.Chmod(path, 0o644)
	if _, err := vault.LoadKeyFile(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("key that others can read: got %v", err)
	}
	os.Chmod(path, 0o600)
	os.Truncate(path, 31)
	if _, err := vault.LoadKeyFile(path); err == nil || !strings.Contains(err.Error(), "31 bytes") {
		t.Errorf("short key: got %v", err)
	}
}

func TestNothingOfADiskIsReadableInTheStore(t *testing.T) {
	store := newStore(t)
	v := newVault(t, store, newKey(t), vault.Options{}.Small())
	secret := bytes.Repeat([]byte("attack at dawn. "), vault.BlockSize/16)
	w := must(v.Writer(t.Context(), server, vault.MainBranch))(t)
	for n := range 10 {
		e := must(w.Begin(t.Context(), []vault.Volume{{ID: 1, Device: "/dev/secret-name", Size: 1 << 20}}))(t)
		for i := range uint64(n * 3) {
			if err := e.Append(frame(1, secret, vault.CodecRaw, vault.Extent{Block: i, Count: 1})); err != nil {
				t.Fatal(err)
			}
		}
		must(e.Commit(t.Context(), point(n)))(t)
	}
	v.WaitTasks()
	for _, name := range store.Names() {
		for _, word := range []string{"attack at dawn", "/dev/secret-name", "pit-"} {
			if bytes.Contains(store.Bytes(name), []byte(word)) {
				t.Errorf("%s holds %q in the clear", name, word)
			}
		}
	}
}

func TestUnknownThings(t *testing.T) {
	ctx := t.Context()
	v := newVault(t, newStore(t), newKey(t), vault.Options{})
	other := drs.SourceServerID("s-ffffffffffffffff0")
	_, err := v.Writer(ctx, other, vault.MainBranch)
	wantErr(t, err, vault.ErrAbsent)
	_, err = v.Writer(ctx, server, "nope")
	wantErr(t, err, vault.ErrAbsent)
	_, err = v.Points(ctx, other)
	wantErr(t, err, vault.ErrAbsent)
	_, err = v.OpenPoint(ctx, server, point(1).ID)
	wantErr(t, err, vault.ErrAbsent)
	_, err = v.OpenHead(ctx, server, "nope")
	wantErr(t, err, vault.ErrAbsent)
	_, err = v.Branches(ctx, other)
	wantErr(t, err, vault.ErrAbsent)
	wantErr(t, v.Fork(ctx, server, point(1).ID, "i-1"), vault.ErrAbsent)
	wantErr(t, v.DropBranch(ctx, server, "nope"), vault.ErrAbsent)
	for _, bad := range []drs.SourceServerID{"", "s-1", "../../../etc/passwd", "s-0123456789abcde/0"} {
		if err := v.CreateServer(ctx, bad); err == nil {
			t.Errorf("CreateServer(%q): want an error", bad)
		}
		if _, err := v.OpenHead(ctx, bad, vault.MainBranch); err == nil || errors.Is(err, vault.ErrAbsent) {
			t.Errorf("OpenHead(%q): got %v, want a refusal of the ID", bad, err)
		}
	}
	for _, bad := range []string{"", "a/b", "..", strings.Repeat("x", 65)} {
		if _, err := v.Writer(ctx, server, bad); err == nil || errors.Is(err, vault.ErrAbsent) {
			t.Errorf("Writer(%q): got %v, want a refusal of the name", bad, err)
		}
	}
	if got := must(v.Servers(ctx))(t); !slices.Equal(got, []drs.SourceServerID{server}) {
		t.Errorf("Servers = %v", got)
	}
}

func TestBadFramesLeaveTheEpochAsItWas(t *testing.T) {
	v := newVault(t, newStore(t), newKey(t), vault.Options{})
	w := must(v.Writer(t.Context(), server, vault.MainBranch))(t)
	vol := vault.Volume{ID: 1, Device: "sda", Size: 10*vault.BlockSize + 1} // 11 blocks
	e := must(w.Begin(t.Context(), []vault.Volume{vol}))(t)
	raw := blocks(1, 2)
	good := frame(1, raw, vault.CodecRaw, vault.Extent{Block: 9, Count: 2})
	if err := e.Append(good); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(f *vault.Frame){
		"unknown volume":           func(f *vault.Frame) { f.Volume = 2 },
		"beyond the end":           func(f *vault.Frame) { f.Extents = []vault.Extent{{Block: 10, Count: 2}} },
		"far beyond the end":       func(f *vault.Frame) { f.Extents = []vault.Extent{{Block: 1<<64 - 1, Count: 2}} },
		"empty extent":             func(f *vault.Frame) { f.Extents = []vault.Extent{{Block: 1, Count: 0}, {Block: 1, Count: 2}} },
		"too few extents":          func(f *vault.Frame) { f.Extents = []vault.Extent{{Block: 1, Count: 1}} },
		"too many extents":         func(f *vault.Frame) { f.Extents = []vault.Extent{{Block: 1, Count: 3}} },
		"no extents":               func(f *vault.Frame) { f.Extents = nil },
		"unknown codec":            func(f *vault.Frame) { f.Codec = 3 },
		"raw of another length":    func(f *vault.Frame) { f.Payload = raw[:100] },
		"empty payload":            func(f *vault.Frame) { f.Codec, f.Payload = vault.CodecZstd, nil },
		"payload too long":         func(f *vault.Frame) { f.Codec, f.Payload = vault.CodecZstd, make([]byte, vault.MaxPayload+1) },
		"raw length not of blocks": func(f *vault.Frame) { f.RawLen = 100 },
		"raw length too large":     func(f *vault.Frame) { f.RawLen = 17 * vault.BlockSize },
		"negative raw length":      func(f *vault.Frame) { f.RawLen = -vault.BlockSize },
	} {
		f := good
		spoil(&f)
		if err := e.Append(f); err == nil {
			t.Errorf("%s: want an error", name)
		}
	}
	for _, z := range []vault.Extent{{Block: 0, Count: 12}, {Block: 11, Count: 1}, {Block: 3, Count: 0}, {Block: 1<<64 - 1, Count: 2}} {
		if err := e.Zero(1, z.Block, z.Count); err == nil {
			t.Errorf("zero %v: want an error", z)
		}
	}
	must(e.Commit(t.Context(), point(1)))(t)
	d := &disk{}
	d.grow(vol.Size)
	copy(d.data[9*vault.BlockSize:], raw)
	img := must(v.OpenPoint(t.Context(), server, point(1).ID))(t)
	defer img.Close()
	d.check(t, img, 1)
}

func TestVolumesOnlyGrow(t *testing.T) {
	v := newVault(t, newStore(t), newKey(t), vault.Options{})
	w := must(v.Writer(t.Context(), server, vault.MainBranch))(t)
	e := must(w.Begin(t.Context(), []vault.Volume{{ID: 1, Device: "sda", Size: 8192}}))(t)
	if _, err := w.Begin(t.Context(), nil); err == nil {
		t.Error("second open epoch: want an error")
	}
	must(e.Commit(t.Context(), nil))(t)
	for _, bad := range []vault.Volume{{ID: 1, Size: 8191}, {ID: 2, Size: 0}, {ID: 2, Size: -1}, {ID: 2, Size: 1 << 62}, {ID: 2, Size: 1, Device: strings.Repeat("x", 2000)}} {
		if _, err := w.Begin(t.Context(), []vault.Volume{bad}); err == nil {
			t.Errorf("Begin(%v): want an error", bad)
		}
	}
	e = must(w.Begin(t.Context(), []vault.Volume{{ID: 1, Device: "vda", Size: 10000}}))(t)
	head := must(e.Commit(t.Context(), nil))(t)
	if want := []vault.Volume{{ID: 1, Device: "vda", Size: 10000}}; !slices.Equal(head.Volumes, want) {
		t.Errorf("volumes %v, want %v", head.Volumes, want)
	}
	before := head.Number
	e = must(w.Begin(t.Context(), nil))(t)
	if head = must(e.Commit(t.Context(), nil))(t); head.Number != before {
		t.Errorf("an epoch without changes made commit %d", head.Number)
	}
	if _, err := e.Commit(t.Context(), nil); err == nil {
		t.Error("second Commit: want an error")
	}
	wantErr(t, e.Append(vault.Frame{}), vault.ErrClosed)
	e.Abort() // of no effect
}

func TestBadPointsAreRefused(t *testing.T) {
	v := newVault(t, newStore(t), newKey(t), vault.Options{})
	w := must(v.Writer(t.Context(), server, vault.MainBranch))(t)
	e := must(w.Begin(t.Context(), nil))(t)
	other := point(1)
	other.SourceServer = "s-ffffffffffffffff0"
	for _, bad := range []*drs.RecoveryPoint{{}, {ID: "pit-1"}, other} {
		if _, err := e.Commit(t.Context(), bad); err == nil {
			t.Errorf("point %v: want an error", bad)
		}
	}
	must(e.Commit(t.Context(), point(1)))(t) // the epoch outlived the refusals
	e = must(w.Begin(t.Context(), nil))(t)
	_, err := e.Commit(t.Context(), point(1))
	wantErr(t, err, vault.ErrExists)
}

func TestNewestWriterWins(t *testing.T) {
	store, keys := newStore(t), newKey(t)
	v := newVault(t, store, keys, vault.Options{})
	other := must(vault.Open(t.Context(), store, keys, vault.Options{}))(t) // another process
	defer other.Close()
	for name, second := range map[string]*vault.Vault{"same process": v, "other process": other} {
		t.Run(name, func(t *testing.T) {
			old := must(v.Writer(t.Context(), server, vault.MainBranch))(t)
			oldEpoch := must(old.Begin(t.Context(), nil))(t)
			w := must(second.Writer(t.Context(), server, vault.MainBranch))(t)
			e := must(w.Begin(t.Context(), []vault.Volume{{ID: 1, Size: w.Head().Volumes1() + 4096}}))(t)
			head := must(e.Commit(t.Context(), nil))(t)
			_, err := oldEpoch.Commit(t.Context(), point(1))
			wantErr(t, err, vault.ErrFenced)
			_, err = old.Begin(t.Context(), nil)
			wantErr(t, err, vault.ErrFenced)
			if again := must(v.Writer(t.Context(), server, vault.MainBranch))(t).Head(); again.Hash != head.Hash {
				t.Errorf("head is %d, want %d", again.Number, head.Number)
			}
		})
	}
}

func TestOfManyWritersOneWinsEachCommit(t *testing.T) {
	store, keys := newStore(t), newKey(t)
	newVault(t, store, keys, vault.Options{})
	const writers, rounds = 4, 20
	var mu sync.Mutex
	won := map[uint64]int{}
	var wg sync.WaitGroup
	for i := range writers {
		v := must(vault.Open(t.Context(), store, keys, vault.Options{}))(t)
		defer v.Close()
		wg.Go(func() {
			for r := range rounds {
				w, err := v.Writer(context.Background(), server, vault.MainBranch)
				if err != nil {
					t.Error(err)
					return
				}
				e, _ := w.Begin(context.Background(), nil)
				head, err := e.Commit(context.Background(), point(i*1000+r))
				if err == nil {
					mu.Lock()
					won[head.Number]++
					mu.Unlock()
				} else if !errors.Is(err, vault.ErrFenced) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for n, count := range won {
		if count != 1 {
			t.Errorf("commit %d was won %d times", n, count)
		}
	}
	v := must(vault.Open(t.Context(), store, keys, vault.Options{}))(t)
	defer v.Close()
	if points := must(v.Points(t.Context(), server))(t); len(points) != len(won) {
		t.Errorf("%d points, want %d", len(points), len(won))
	}
}

func TestBranches(t *testing.T) {
	ctx, store, keys := t.Context(), newStore(t), newKey(t)
	v := newVault(t, store, keys, vault.Options{})
	write := func(branch string, seed uint64, p *drs.RecoveryPoint) {
		w := must(v.Writer(ctx, server, branch))(t)
		e := must(w.Begin(ctx, []vault.Volume{{ID: 1, Size: 4096}}))(t)
		if err := e.Append(frame(1, blocks(seed, 1), vault.CodecRaw, vault.Extent{Block: 0, Count: 1})); err != nil {
			t.Fatal(err)
		}
		must(e.Commit(ctx, p))(t)
	}
	write(vault.MainBranch, 1, point(1))
	if err := v.Fork(ctx, server, point(1).ID, "i-a"); err != nil {
		t.Fatal(err)
	}
	wantErr(t, v.Fork(ctx, server, point(1).ID, "i-a"), vault.ErrExists)
	write("i-a", 2, point(2))
	write(vault.MainBranch, 3, point(3))
	if err := v.Fork(ctx, server, point(2).ID, "i-b"); err != nil {
		t.Fatal(err)
	}
	for branch, seed := range map[string]uint64{vault.MainBranch: 3, "i-a": 2, "i-b": 2} {
		img := must(v.OpenHead(ctx, server, branch))(t)
		(&disk{4096, blocks(seed, 1)}).check(t, img, 1)
		img.Close()
	}
	if got := must(v.Branches(ctx, server))(t); !slices.Equal(got, []string{"i-a", "i-b", "main"}) {
		t.Errorf("branches %v", got)
	}
	if err := v.DropBranch(ctx, server, "i-a"); err == nil || !strings.Contains(err.Error(), "i-b") {
		t.Errorf("drop of a base: got %v, want a refusal that names the other", err)
	}
	if err := v.DropBranch(ctx, server, vault.MainBranch); err == nil {
		t.Error("drop of main: want an error")
	}
	w := must(v.Writer(ctx, server, "i-b"))(t)
	for _, name := range []string{"i-b", "i-a"} {
		if err := v.DropBranch(ctx, server, name); err != nil {
			t.Fatal(err)
		}
		wantErr(t, v.DropBranch(ctx, server, name), vault.ErrAbsent)
	}
	_, err := w.Begin(ctx, nil)
	wantErr(t, err, vault.ErrFenced)
	_, err = v.OpenPoint(ctx, server, point(2).ID)
	wantErr(t, err, vault.ErrAbsent)
	if got := must(v.Branches(ctx, server))(t); !slices.Equal(got, []string{"main"}) {
		t.Errorf("branches %v", got)
	}
	if err := v.Fork(ctx, server, point(3).ID, "i-a"); err != nil {
		t.Errorf("a dropped name again: %v", err)
	}
}

func TestKnownDigestsReadNoFrames(t *testing.T) {
	store := newStore(t)
	keys := newKey(t)
	v := newVault(t, store, keys, vault.Options{}.NoInline())
	w := must(v.Writer(t.Context(), server, vault.MainBranch))(t)
	seed := w.Head().DigestSeed
	const chunks = 8
	e := must(w.Begin(t.Context(), []vault.Volume{{ID: 1, Size: chunks * vault.ChunkSize}}))(t)
	for i := range uint64(chunks - 1) { // the last one stays a hole
		raw := blocks(i, vault.FrameBlocks)
		f := frame(1, raw, vault.CodecZstd, vault.Extent{Block: i * vault.FrameBlocks, Count: vault.FrameBlocks})
		f.Digest = vault.ChunkDigest(seed, raw)
		if err := e.Append(f); err != nil {
			t.Fatal(err)
		}
	}
	must(e.Commit(t.Context(), nil))(t)
	for _, name := range store.Names() { // destroy all frames, but not the index
		if strings.HasSuffix(name, ".segment") {
			b := store.Bytes(name)
			clear(b[168 : 168+1000])
			store.Replace(name, b)
		}
	}
	img := must(v.OpenHead(t.Context(), server, vault.MainBranch))(t)
	defer img.Close()
	r := must(img.Volume(1))(t)
	got := must(r.Digests(t.Context(), 0, chunks))(t)
	for i := range uint64(chunks - 1) {
		if got[i] != vault.ChunkDigest(seed, blocks(i, vault.FrameBlocks)) {
			t.Errorf("digest of chunk %d differs", i)
		}
	}
	if got[chunks-1] != vault.ChunkDigest(seed, make([]byte, vault.ChunkSize)) {
		t.Error("digest of the hole is not that of zeros")
	}
	var corrupt *vault.CorruptError
	if _, err := r.ReadAt(make([]byte, 4096), 0); !errors.As(err, &corrupt) {
		t.Errorf("reading a destroyed frame: got %v, want a CorruptError", err)
	}
	if _, err := r.Digests(t.Context(), 1, chunks); err == nil {
		t.Error("digests beyond the end: want an error")
	}
}

func TestSequentialWritesNeedFewRecords(t *testing.T) {
	v := newVault(t, newStore(t), newKey(t), vault.Options{})
	w := must(v.Writer(t.Context(), server, vault.MainBranch))(t)
	const chunks = 1000
	e := must(w.Begin(t.Context(), []vault.Volume{{ID: 1, Size: chunks * vault.ChunkSize}}))(t)
	for i := range uint64(chunks) {
		f := frame(1, make([]byte, vault.ChunkSize), vault.CodecS2, vault.Extent{Block: i * vault.FrameBlocks, Count: vault.FrameBlocks})
		if err := e.Append(f); err != nil {
			t.Fatal(err)
		}
	}
	must(e.Commit(t.Context(), nil))(t)
	img := must(v.OpenHead(t.Context(), server, vault.MainBranch))(t)
	defer img.Close()
	if n := must(img.Volume(1))(t).Records(); n > 2 {
		t.Errorf("%d map records for one sequential run", n)
	}
}

func TestReadsEndWithTheImage(t *testing.T) {
	v := newVault(t, newStore(t), newKey(t), vault.Options{})
	w := must(v.Writer(t.Context(), server, vault.MainBranch))(t)
	e := must(w.Begin(t.Context(), []vault.Volume{{ID: 1, Size: 4096}}))(t)
	must(e.Commit(t.Context(), nil))(t)
	img := must(v.OpenHead(t.Context(), server, vault.MainBranch))(t)
	r := must(img.Volume(1))(t)
	img.Close()
	img.Close()
	_, err := r.ReadAt(make([]byte, 1), 0)
	wantErr(t, err, vault.ErrClosed)
	_, err = img.Volume(2)
	wantErr(t, err, vault.ErrAbsent)
}

func TestHalfCreatedServer(t *testing.T) {
	store := newStore(t)
	v := newVault(t, store, newKey(t), vault.Options{})
	for _, name := range store.Names() {
		if strings.HasSuffix(name, ".manifest") {
			store.Replace(name, nil) // as if the creation had died before it
		}
	}
	_, err := v.Writer(t.Context(), server, vault.MainBranch)
	wantErr(t, err, vault.ErrAbsent)
	if err := v.CreateServer(t.Context(), server); err != nil {
		t.Fatal(err)
	}
	must(v.Writer(t.Context(), server, vault.MainBranch))(t)
}

func TestALostMainBranchIsNotMadeAgain(t *testing.T) {
	store, h := damageWorld(t, false)
	for _, name := range store.Names() {
		if strings.Contains(name, "/branches/main/") {
			store.Replace(name, nil)
		}
	}
	v := must(vault.Open(t.Context(), store, h.keys, vault.Options{}))(t)
	defer v.Close()
	_, err := v.Writer(t.Context(), server, vault.MainBranch)
	_, headErr := v.OpenHead(t.Context(), server, vault.MainBranch)
	for _, err := range []error{err, headErr, v.CreateServer(t.Context(), server)} {
		if !detected(err) || errors.Is(err, vault.ErrAbsent) {
			t.Errorf("got %v, want a CorruptError", err)
		}
	}
}

// TestAFencedCommitLeavesNoTrace: also not in what the process has in memory.
func TestAFencedCommitLeavesNoTrace(t *testing.T) {
	store, keys := newStore(t), newKey(t)
	v := newVault(t, store, keys, vault.Options{})
	other := must(vault.Open(t.Context(), store, keys, vault.Options{}))(t) // another process
	defer other.Close()
	vol := []vault.Volume{{ID: 1, Size: vault.BlockSize}}
	write := func(w *vault.Writer, seed uint64) error {
		e := must(w.Begin(t.Context(), vol))(t)
		if err := e.Append(frame(1, blocks(seed, 1), vault.CodecRaw, vault.Extent{Block: 0, Count: 1})); err != nil {
			t.Fatal(err)
		}
		_, err := e.Commit(t.Context(), nil)
		return err
	}
	stale := must(v.Writer(t.Context(), server, vault.MainBranch))(t)
	for seed := range uint64(5) { // the lists in memory have room to spare
		if err := write(stale, seed); err != nil {
			t.Fatal(err)
		}
	}
	if err := write(must(other.Writer(t.Context(), server, vault.MainBranch))(t), 100); err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		img := must(v.OpenHead(t.Context(), server, vault.MainBranch))(t)
		defer img.Close()
		(&disk{vault.BlockSize, blocks(100, 1)}).check(t, img, 1)
	}
	check()
	wantErr(t, write(stale, 200), vault.ErrFenced)
	check()
}
