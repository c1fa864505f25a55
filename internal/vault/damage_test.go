package vault_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault"
	"lifeboat/internal/vault/envelope"
	"lifeboat/internal/vault/seal"
	"lifeboat/internal/vault/segment"
)

// damageWorld is a store with at least one object of each kind, closed.
func damageWorld(t *testing.T, plain bool) (objects, *history) {
	const commits = 8
	h := &history{keys: newKey(t), contents: historyContents(commits), plain: plain}
	store := newStore(t)
	v := newVault(t, store, h.keys, vault.Options{Plain: plain}.Small())
	for i := 1; i <= commits; i++ {
		if err := h.commit(v, i); err != nil {
			t.Fatal(err)
		}
		v.WaitTasks() // so that the same derived objects are there every time
	}
	if err := v.Fork(ctxOf, server, point(2).ID, "i-1"); err != nil {
		t.Fatal(err)
	}
	h.acked = commits
	v.WaitTasks()
	v.Close()
	for _, kind := range []string{".root", ".key", ".manifest", ".pack", ".segment", ".run"} {
		if !strings.Contains(strings.Join(store.Names(), " "), kind) {
			t.Fatalf("no %s object", kind)
		}
	}
	return store, h
}

// readAll opens the store afresh and reads everything. It returns the first error; data
// that is wrong fails the test at once.
func (h *history) readAll(t *testing.T, store objects) error {
	t.Helper()
	v, err := vault.Open(ctxOf, store, h.keys, vault.Options{Plain: h.plain}.Small())
	if err != nil {
		return err
	}
	defer func() {
		v.WaitTasks()
		v.Close()
	}()
	points, err := v.Points(ctxOf, server)
	if err != nil {
		return err
	}
	if len(points) != h.acked {
		t.Fatalf("%d points without any error, want %d", len(points), h.acked)
	}
	open := func(i int, open func() (*vault.Image, error)) error {
		img, err := open()
		if err != nil {
			return err
		}
		defer img.Close()
		r, err := img.Volume(1)
		if err != nil {
			return err
		}
		got := make([]byte, h.contents[i].size)
		if n, err := r.ReadAt(got, 0); n < len(got) {
			return err
		}
		if firstDifference(got, h.contents[i].data) >= 0 {
			t.Fatalf("point %d reads wrong, without an error", i)
		}
		return nil
	}
	for i := 1; i <= h.acked; i++ {
		if err := open(i, func() (*vault.Image, error) { return v.OpenPoint(ctxOf, server, point(i).ID) }); err != nil {
			return err
		}
	}
	return open(2, func() (*vault.Image, error) { return v.OpenHead(ctxOf, server, "i-1") })
}

// scrub checks an object without any key, as a scrub would.
func scrub(name string, b []byte) error {
	kinds := map[string]envelope.Kind{".root": envelope.Root, ".key": envelope.ServerKey,
		".manifest": envelope.Manifest, ".checkpoint": envelope.Checkpoint, ".run": envelope.MapRun, ".pack": envelope.Pack}
	kind, ok := kinds[name[strings.LastIndexByte(name, '.'):]]
	if !ok {
		return segment.Verify(name, b)
	}
	h, length, err := envelope.Check(name, kind, b)
	if err != nil {
		return err
	}
	if int64(len(b)) != length+int64(h.Attached) {
		return fmt.Errorf("%d bytes, want %d", len(b), length+int64(h.Attached))
	}
	if h.Attached > 0 {
		return segment.Verify(name, b[length:])
	}
	return nil
}

// detected tells whether an error is one that damage may show as.
func detected(err error) bool {
	var corrupt *vault.CorruptError
	return errors.As(err, &corrupt) || errors.Is(err, vault.ErrWrongKey) || errors.Is(err, vault.ErrNewerFormat)
}

func TestEveryFlippedBitIsDetected(t *testing.T) {
	for _, plain := range []bool{false, true} {
		t.Run(fmt.Sprintf("plain=%v", plain), func(t *testing.T) {
			t.Parallel()
			world, h := damageWorld(t, plain)
			for _, name := range some(world.Names(), 5) {
				whole := world.Bytes(name)
				if err := scrub(name, whole); err != nil {
					t.Fatalf("scrub of a sound object: %v", err)
				}
				for _, at := range some(sample(len(whole)), 2) {
					b := world.Bytes(name)
					b[at] ^= 1 << (at % 8)
					if scrub(name, b) == nil {
						t.Errorf("%s: a scrub misses the flip at byte %d", name, at)
					}
					store := cloneStore(t, world)
					store.Replace(name, b)
					err := h.readAll(t, store)
					if err != nil && !detected(err) {
						t.Fatalf("%s, flip at byte %d: got %v, want a CorruptError", name, at, err)
					}
					if err != nil && derived(name) {
						t.Errorf("%s, flip at byte %d of derived data: %v", name, at, err)
					}
					if err == nil && !derived(name) && !maybeUnused(name, at) {
						t.Errorf("%s: the flip at byte %d goes unseen", name, at)
					}
				}
			}
		})
	}
}

// maybeUnused tells whether reading all points may do without a byte: what a
// pack stands for is not read again, nor are hidden frames. A scrub finds it.
func maybeUnused(name string, at int) bool {
	var n int
	if _, err := fmt.Sscanf(name[strings.LastIndexByte(name, '/')+1:], "%016x.manifest", &n); err == nil {
		return n <= 6 || at > envelope.HeaderSize
	}
	return strings.HasSuffix(name, ".segment")
}

// sample picks the offsets to damage: all of the beginning and end, some between.
func sample(n int) []int {
	var out []int
	for i := 0; i < n; {
		out = append(out, i)
		switch {
		case i < 64:
			i += 9
		default:
			i += 1 + rand.IntN(n/6+8)
		}
	}
	return append(out, n-1)
}

func TestTruncatedAndAbsentObjectsAreDetected(t *testing.T) {
	world, h := damageWorld(t, false)
	for _, name := range some(world.Names(), 5) {
		whole := world.Bytes(name)
		for _, n := range some([]int{-1, len(whole) / 2, 0, 1, 100, len(whole) - 1}, 2) {
			store := cloneStore(t, world)
			if n < 0 {
				store.Replace(name, nil)
			} else {
				store.Replace(name, whole[:n])
			}
			if n < 0 && strings.HasSuffix(name, "/main/000000000000000a.manifest") {
				continue // without its newest commit a branch is a shorter, sound branch
			}
			err := h.readAll(t, store)
			switch {
			case maybeUnused(name, n):
			case derived(name) && err != nil:
				t.Errorf("%s cut to %d bytes: %v", name, n, err)
			case derived(name) || detected(err):
			case n < 0 && (errors.Is(err, vault.ErrNotVault) || errors.Is(err, vault.ErrAbsent)):
				// the whole vault, server or branch is gone
			default:
				t.Errorf("%s cut to %d bytes: got %v, want a CorruptError", name, n, err)
			}
		}
	}
}

func TestSwappedObjectsAreDetected(t *testing.T) {
	world, h := damageWorld(t, true) // no cipher helps
	names := world.Names()
	for _, a := range some(names, 5) {
		for _, b := range some(names, 8) {
			kind := a[strings.LastIndexByte(a, '.'):]
			if a >= b || !strings.HasSuffix(b, kind) {
				continue
			}
			store := cloneStore(t, world)
			store.Replace(a, world.Bytes(b))
			store.Replace(b, world.Bytes(a))
			err := h.readAll(t, store)
			if derived(a) && err != nil || !derived(a) && !detected(err) {
				t.Errorf("%s swapped with %s: got %v", a, b, err)
			}
		}
	}
}

// TestDamageNamesWhatItHurts: points before the damage stay usable, those after it
// are named, also that of the damaged commit itself if a checkpoint knows it.
func TestDamageNamesWhatItHurts(t *testing.T) {
	for _, c := range []struct {
		how      string
		manifest int // commit n is manifest n+1
		good     int // points left
		named    int // the first point named
	}{{"absent", 7, 5, 7}, {"flipped", 7, 5, 7}, {"absent", 4, 2, 3}} {
		t.Run(fmt.Sprintf("%s %d", c.how, c.manifest), func(t *testing.T) {
			world, h := damageWorld(t, false)
			name := fmt.Sprintf("servers/%s/branches/main/%016x.manifest", server, c.manifest)
			if b := world.Bytes(name); c.how == "flipped" {
				b[300] ^= 1
				world.Replace(name, b)
			} else {
				world.Replace(name, nil)
			}
			var hurt []drs.RecoverySnapshotID
			for i := c.named; i <= h.acked; i++ {
				hurt = append(hurt, point(i).ID)
			}
			v := must(vault.Open(ctxOf, world, h.keys, vault.Options{}.Small()))(t)
			defer v.Close()
			points, err := v.Points(ctxOf, server)
			var damage *vault.DamageError
			if !errors.As(err, &damage) {
				t.Fatalf("got %v, want a DamageError", err)
			}
			if fmt.Sprint(damage.Points) != fmt.Sprint(hurt) || damage.Cause.Object != name {
				t.Errorf("hurt %v by %s, want %v by %s", damage.Points, damage.Cause.Object, hurt, name)
			}
			if len(points) != c.good {
				t.Errorf("%d points are left, want %d", len(points), c.good)
			}
			img := must(v.OpenPoint(ctxOf, server, point(c.good).ID))(t)
			h.contents[c.good].check(t, img, 1)
			img.Close()
			img = must(v.OpenHead(ctxOf, server, "i-1"))(t) // began before the damage
			h.contents[2].check(t, img, 1)
			img.Close()
			for _, id := range hurt {
				if _, err := v.OpenPoint(ctxOf, server, id); !detected(err) {
					t.Errorf("OpenPoint(%s): got %v, want the damage", id, err)
				}
			}
			if _, err := v.Writer(ctxOf, server, vault.MainBranch); !detected(err) {
				t.Errorf("Writer: got %v, want the damage", err)
			}
		})
	}
}

func TestDamagedFrameHurtsOnlyItself(t *testing.T) {
	store := newStore(t)
	v := newVault(t, store, newKey(t), vault.Options{}.NoInline())
	w := must(v.Writer(ctxOf, server, vault.MainBranch))(t)
	e := must(w.Begin(ctxOf, []vault.Volume{{ID: 1, Size: 4 * vault.ChunkSize}}))(t)
	for i := range uint64(4) {
		if err := e.Append(frame(1, blocks(i, 16), vault.CodecRaw, vault.Extent{Block: i * 16, Count: 16})); err != nil {
			t.Fatal(err)
		}
	}
	must(e.Commit(ctxOf, nil))(t)
	for _, name := range store.Names() {
		if strings.HasSuffix(name, ".segment") {
			b := store.Bytes(name)
			b[168+2*(vault.ChunkSize+16)+999] ^= 4 // in frame 2
			store.Replace(name, b)
		}
	}
	img := must(v.OpenHead(ctxOf, server, vault.MainBranch))(t)
	defer img.Close()
	r := must(img.Volume(1))(t)
	p := make([]byte, vault.ChunkSize)
	for i := range int64(4) {
		_, err := r.ReadAt(p, i*vault.ChunkSize)
		if i == 2 {
			var corrupt *vault.CorruptError
			if !errors.As(err, &corrupt) || corrupt.Offset != 168+2*(vault.ChunkSize+16) {
				t.Errorf("damaged frame: got %v, want a CorruptError with its offset", err)
			}
		} else if err != nil && !errors.Is(err, io.EOF) || firstDifference(p, blocks(uint64(i), 16)) >= 0 {
			t.Errorf("frame %d beside a damaged one: %v, or wrong", i, err)
		}
	}
}

// TestForgedObjectsAreRefused: who can write the store, but has no key, can destroy
// but not invent.
func TestForgedObjectsAreRefused(t *testing.T) {
	world, h := damageWorld(t, false)
	name := fmt.Sprintf("servers/%s/branches/main/%016x.manifest", server, 10)
	last := world.Bytes(fmt.Sprintf("servers/%s/branches/main/%016x.manifest", server, 9))
	_, length, err := envelope.DecodeHeader("x", envelope.Manifest, last)
	if err != nil {
		t.Fatal(err)
	}
	forged, _, err := envelope.Encode(envelope.Header{Kind: envelope.Manifest, Number: 10, Server: string(server),
		Branch: vault.MainBranch, Link: sha256.Sum256(last[:length])}, seal.Key{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	store := cloneStore(t, world)
	store.Replace(name, forged)
	if err := h.readAll(t, store); !detected(err) || !strings.Contains(err.Error(), "forged") {
		t.Errorf("plain manifest in an encrypted vault: got %v", err)
	}

	plain, other := damageWorld(t, true)
	_, err = vault.Open(ctxOf, plain, other.keys, vault.Options{})
	wantErr(t, err, vault.ErrWrongKey)
}
