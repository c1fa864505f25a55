package vault_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault"
	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/blob/blobtest"
	"lifeboat/internal/vault/retention"
)

// foldedWorld has a branch that was folded, restated twice and trimmed, and is closed.
func foldedWorld(t *testing.T) (*blobtest.Mem, *history) {
	t.Helper()
	const commits = 30
	h := &history{keys: newKey(t), contents: historyContents(commits)}
	store := blobtest.NewMem()
	v := newVault(t, store, h.keys, upkeepOptions())
	for i := 1; i <= commits; i++ {
		if err := h.commit(v, i); err != nil {
			t.Fatal(err)
		}
		must(v.Maintain(ctxOf, server, upkeepPolicy, upkeepClock()))(t)
	}
	h.acked = commits
	v.WaitTasks()
	must(v.Collect(ctxOf, server))(t)
	v.Close()
	names := strings.Join(store.Names(), " ")
	if n := strings.Count(names, ".checkpoint"); n != 2 || strings.Contains(names, "/0000000000000001.manifest") || !strings.Contains(names, ".pack") {
		t.Fatalf("%d checkpoints, or not trimmed, or no pack", n)
	}
	return store, h
}

// TestDamageToAFoldedBranch flips bits everywhere: it is an error or of no consequence, never
// data. Either checkpoint may be lost.
func TestDamageToAFoldedBranch(t *testing.T) {
	t.Parallel()
	world, h := foldedWorld(t)
	sound := h.openable(t, copyOf(t, world))
	for _, name := range some(world.Names(), 3) {
		if strings.HasPrefix(name, "root/") || strings.HasPrefix(name, "keys/") {
			continue
		}
		whole := world.Bytes(name)
		every := step(14, 60)
		turn := rand.IntN(every) // others are damaged the next time
		for k, at := range append(sample(len(whole)), -1) {
			if k%every != turn && at >= 0 {
				continue
			}
			store := copyOf(t, world)
			if at < 0 {
				store.Replace(name, nil)
			} else {
				b := world.Bytes(name)
				b[at] ^= 1 << (at % 8)
				store.Replace(name, b)
			}
			left := h.openable(t, store)
			if (derived(name) || strings.HasSuffix(name, ".checkpoint")) && left != sound {
				t.Errorf("%s, byte %d: %d points are left of %d", name, at, left, sound)
			}
		}
	}
}

// openable counts the points that can be read; one that reads wrong fails the test.
func (h *history) openable(t *testing.T, store objects) (n int) {
	t.Helper()
	v := must(vault.Open(ctxOf, store, h.keys, upkeepOptions()))(t)
	defer func() {
		v.WaitTasks()
		v.Close()
	}()
	points, err := v.Points(ctxOf, server)
	if err != nil && !detected(err) && !errors.Is(err, vault.ErrAbsent) {
		t.Fatal(err)
	}
	for _, p := range points {
		img, err := v.OpenPoint(ctxOf, server, p.ID)
		if err == nil {
			want := h.contents[lastPoint(&p)]
			got := make([]byte, want.size)
			_, err = must(img.Volume(1))(t).ReadAt(got, 0)
			img.Close()
			if err == nil && firstDifference(got, want.data) >= 0 {
				t.Fatalf("%s reads wrong, without an error", p.ID)
			}
		}
		if err == nil {
			n++
		} else if !detected(err) {
			t.Fatal(err)
		}
	}
	return n
}

// TestLostManifestsAreMissed: from the floor on, every manifest that is gone is told, also
// where a checkpoint knows what it said.
func TestLostManifestsAreMissed(t *testing.T) {
	world, h := foldedWorld(t)
	names := must(world.List(ctxOf, fmt.Sprintf("servers/%s/branches/main/", server)))(t)
	var manifests, checkpoints []string
	for _, name := range names {
		if strings.HasSuffix(name, ".manifest") {
			manifests = append(manifests, name)
		} else if strings.HasSuffix(name, ".checkpoint") {
			checkpoints = append(checkpoints, name)
		}
	}
	floor := strings.TrimSuffix(checkpoints[0], ".checkpoint") + ".manifest"
	for _, name := range some(manifests[:len(manifests)-1], 2) {
		if name < floor {
			continue // it carries a segment
		}
		store := copyOf(t, world)
		store.Replace(name, nil)
		v := must(vault.Open(ctxOf, store, h.keys, upkeepOptions()))(t)
		_, err := v.Points(ctxOf, server)
		var damage *vault.DamageError
		if !errors.As(err, &damage) || damage.Cause.Object != name {
			t.Errorf("%s is gone: got %v", name, err)
		}
		if _, err := v.Maintain(ctxOf, server, upkeepPolicy, upkeepClock()); err == nil {
			t.Errorf("%s is gone, and the branch is maintained", name)
		}
		v.Close()
	}
}

func TestLockedPointsStay(t *testing.T) {
	store, keys := newStore(t), newKey(t)
	now := point(100).Taken
	opt := vault.Options{Now: func() time.Time { return now }}.Small()
	v := newVault(t, store, keys, opt)
	h := &history{keys: keys, contents: historyContents(20)}
	for i := 1; i <= 20; i++ {
		if err := h.commit(v, i); err != nil {
			t.Fatal(err)
		}
	}
	until := now.Add(time.Hour)
	lock := func(n int, until time.Time) error { return v.LockPoint(ctxOf, server, point(n).ID, until) }
	if err := lock(3, until); err != nil {
		t.Fatal(err)
	}
	wantErr(t, lock(3, until.Add(-time.Minute)), vault.ErrLocked)
	wantErr(t, lock(77, until), vault.ErrAbsent)
	if err := lock(4, now); err == nil {
		t.Error("a lock until now: want an error")
	}
	if err := lock(3, until.Add(time.Minute)); err != nil {
		t.Errorf("extend: %v", err)
	}
	nothing := retention.Policy{}
	report := must(v.Maintain(ctxOf, server, nothing, now.Add(1000*time.Hour)))(t) // a clock of the caller opens no lock
	if len(report.Dropped) != 18 || len(report.Kept) != 2 || report.Kept[0].Reason != retention.Locked {
		t.Errorf("dropped %d, kept %v", len(report.Dropped), report.Kept)
	}
	wantErr(t, v.DropPoints(ctxOf, server, point(3).ID), vault.ErrLocked)
	wantErr(t, v.DropServer(ctxOf, server), vault.ErrLocked)
	infos := must(v.ListPoints(ctxOf, server))(t)
	if len(infos) != 2 || !infos[0].LockedUntil.Equal(until.Add(time.Minute)) || !infos[1].LockedUntil.IsZero() {
		t.Errorf("listed %+v", infos)
	}
	v.WaitTasks()
	v.Close()
	v = must(vault.Open(ctxOf, store, keys, opt))(t)
	defer func() { v.Close() }()
	wantErr(t, v.DropPoints(ctxOf, server, point(3).ID), vault.ErrLocked)
	img := must(v.OpenPoint(ctxOf, server, point(3).ID))(t)
	h.contents[3].check(t, img, 1)
	img.Close()
	now = now.Add(2 * time.Hour)
	report = must(v.Maintain(ctxOf, server, nothing, now))(t)
	if !slices.Equal(report.Dropped, []drs.RecoverySnapshotID{point(3).ID}) {
		t.Errorf("dropped %v after the date", report.Dropped)
	}
}

func TestDropServer(t *testing.T) {
	const objectsLeft = 1 // the root
	for fault := 0; ; fault += step(7, 100) {
		store, keys := newStore(t), newKey(t)
		v := newVault(t, store, keys, upkeepOptions())
		h := &history{keys: keys, contents: historyContents(8)}
		for i := 1; i <= 8; i++ {
			if err := h.commit(v, i); err != nil {
				t.Fatal(err)
			}
		}
		if err := v.Fork(ctxOf, server, point(3).ID, "i-1"); err != nil {
			t.Fatal(err)
		}
		v.WaitTasks()
		v.Close()
		cut := &cutStore{Store: store, left: fault}
		v = must(vault.Open(ctxOf, cut, keys, upkeepOptions()))(t)
		err := v.DropServer(ctxOf, server)
		v.WaitTasks()
		v.Close()
		if err == nil {
			if n := len(store.Names()); n != objectsLeft {
				t.Errorf("left: %v", store.Names())
			}
			if fault > 0 && !cut.past() {
				return
			}
		}
		if report := must(vault.Verify(ctxOf, store, keys, upkeepOptions(), vault.VerifyOptions{}))(t); !report.Sound() {
			t.Errorf("cut short after %d deletions: verify takes it for damage: %+v", fault, report)
		}
		v = must(vault.Open(ctxOf, store, keys, upkeepOptions()))(t)
		if err := v.DropServer(ctxOf, server); err != nil && !errors.Is(err, vault.ErrAbsent) {
			t.Fatalf("drop again after %d deletions: %v", fault, err)
		}
		v.Close()
		if n := len(store.Names()); n != objectsLeft {
			t.Fatalf("cut short after %d deletions, repeated, and left: %v", fault, store.Names())
		}
		if fault > 200 {
			t.Fatal("it never ends")
		}
	}
}

// TestDropDamagedServer: a server that can never be read again can be deleted, but for locks
// that can be read.
func TestDropDamagedServer(t *testing.T) {
	store, keys := newStore(t), newKey(t)
	now := time.Now()
	options := upkeepOptions()
	options.Now = func() time.Time { return now }
	v := newVault(t, store, keys, options)
	h := &history{keys: keys, contents: historyContents(8)}
	for i := 1; i <= 8; i++ {
		if err := h.commit(v, i); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.Fork(ctxOf, server, point(3).ID, "i-1"); err != nil {
		t.Fatal(err)
	}
	until := now.Add(time.Hour).Truncate(time.Second)
	if err := v.LockPoint(ctxOf, server, point(6).ID, until); err != nil {
		t.Fatal(err)
	}
	v.WaitTasks()
	v.Close()
	lost := false
	for _, name := range store.Names() {
		if strings.Contains(name, "/main/") && strings.HasSuffix(name, "0000000004.manifest") {
			store.Replace(name, nil)
			lost = true
		}
	}
	if !lost {
		t.Fatal("no manifest to lose")
	}
	v = must(vault.Open(ctxOf, store, keys, options))(t)
	defer v.Close()
	if got := must(v.LockedUntil(ctxOf, server))(t); !got.Equal(until) {
		t.Errorf("locked until %s, want %s", got, until)
	}
	wantErr(t, v.DropServer(ctxOf, server), vault.ErrLocked)
	now = now.Add(2 * time.Hour)
	if err := v.DropServer(ctxOf, server); err != nil {
		t.Fatal(err)
	}
	v.WaitTasks()
	if n := len(store.Names()); n != 1 { // the root
		t.Errorf("left: %v", store.Names())
	}
	if err := v.CreateServer(ctxOf, server); err != nil {
		t.Errorf("create it again: %v", err)
	}
}

// TestDropDamagedBranch: one that can never be read again can be dropped, which lets the
// server be maintained again.
func TestDropDamagedBranch(t *testing.T) {
	store, keys := newStore(t), newKey(t)
	v := newVault(t, store, keys, upkeepOptions())
	h := &history{keys: keys, contents: historyContents(8)}
	for i := 1; i <= 8; i++ {
		if err := h.commit(v, i); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"i-1", "i-2"} {
		if err := v.Fork(ctxOf, server, point(3).ID, name); err != nil {
			t.Fatal(err)
		}
	}
	v.WaitTasks()
	v.Close()
	for _, name := range store.Names() {
		if strings.Contains(name, "/i-1/") {
			b := store.Bytes(name)
			b[len(b)-1] ^= 1
			store.Replace(name, b)
		}
	}
	v = must(vault.Open(ctxOf, store, keys, upkeepOptions()))(t)
	defer v.Close()
	if err := v.DropBranch(ctxOf, server, "i-2"); err == nil {
		t.Error("dropped a branch at which another one may begin, for all that can be read")
	}
	if err := v.DropBranch(ctxOf, server, "i-1"); err != nil {
		t.Fatal(err)
	}
	if err := v.DropBranch(ctxOf, server, "i-2"); err != nil {
		t.Error(err)
	}
	for _, p := range must(v.ListPoints(ctxOf, server))(t) {
		if len(p.Branches) > 0 {
			t.Errorf("point %s is held for %v", p.ID, p.Branches)
		}
	}
	if _, err := v.Maintain(ctxOf, server, retention.Policy{}, point(100).Taken); err != nil {
		t.Error(err)
	}
}

// cutStore refuses every deletion after so many; 0: none.
type cutStore struct {
	blob.Store
	left int
	hit  bool
}

func (s *cutStore) past() bool { return s.hit }

func (s *cutStore) Delete(ctx context.Context, name string) error {
	if s.left == 1 {
		s.hit = true
		return errors.New("cut short")
	}
	if s.left > 1 {
		s.left--
	}
	return s.Store.Delete(ctx, name)
}

// TestAThousandBranches begin at one point without copying anything.
func TestAThousandBranches(t *testing.T) {
	n := step(1000, 20)
	store, keys := newStore(t), newKey(t)
	v := newVault(t, store, keys, upkeepOptions())
	h := &history{keys: keys, contents: historyContents(8)}
	for i := 1; i <= 8; i++ {
		if err := h.commit(v, i); err != nil {
			t.Fatal(err)
		}
	}
	segments := func() (n int) {
		for _, name := range store.Names() {
			if strings.HasSuffix(name, ".segment") {
				n++
			}
		}
		return n
	}
	before := segments()
	for i := range n {
		if err := v.Fork(ctxOf, server, point(4).ID, fmt.Sprintf("i-%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	v.WaitTasks()
	if after := segments(); after != before {
		t.Errorf("%d segments before, %d after", before, after)
	}
	must(v.Maintain(ctxOf, server, retention.Policy{}, upkeepClock()))(t)
	for _, name := range []string{"i-0", fmt.Sprintf("i-%d", n-1)} {
		img := must(v.OpenHead(ctxOf, server, name))(t)
		h.contents[4].check(t, img, 1)
		img.Close()
	}
	if points := must(v.Points(ctxOf, server))(t); len(points) != 2 {
		t.Errorf("%d points, want the newest and that of the branches", len(points))
	}
}
