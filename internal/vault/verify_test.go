package vault_test

import (
	"context"
	"errors"
	"fmt"
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

func (h *history) audit(t *testing.T, store blob.Store, opt vault.VerifyOptions) (vault.VerifyReport, error) {
	t.Helper()
	// In these histories manifest n+1 made point n.
	opt.Catalogue = func(_ context.Context, id drs.SourceServerID, manifest uint64) (drs.RecoverySnapshotID, error) {
		if n := int(manifest) - 1; id == server && n >= 1 && n <= h.acked {
			return point(n).ID, nil
		}
		return "", nil
	}
	return vault.Verify(ctxOf, store, h.keys, vault.Options{Plain: h.plain}.Small(), opt)
}

// unreadable returns the points that a fresh process cannot read whole.
func (h *history) unreadablePoints(t *testing.T, store objects) (hurt []drs.RecoverySnapshotID) {
	t.Helper()
	v := must(vault.Open(ctxOf, cloneStore(t, store), h.keys, vault.Options{Plain: h.plain}.Small()))(t)
	defer func() {
		v.WaitTasks()
		v.Close()
	}()
	read := func(i int) error {
		img, err := v.OpenPoint(ctxOf, server, point(i).ID)
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
		if err := read(i); err != nil {
			hurt = append(hurt, point(i).ID)
		}
	}
	return hurt
}

func TestVerifyFindsNothingWrongInASoundVault(t *testing.T) {
	for _, plain := range []bool{false, true} {
		world, h := damageWorld(t, plain)
		report, err := h.audit(t, world, vault.VerifyOptions{})
		if err != nil || !report.Sound() || report.Next != "" || report.UnknownCount+report.UnreferencedCount != 0 {
			t.Fatalf("%+v, %v", report, err)
		}
		if n := int64(len(world.Names())); report.Objects != n {
			t.Errorf("checked %d objects of %d", report.Objects, n)
		}
		if s := report.Servers; len(s) != 1 || len(s[0].Hurt) != 0 || len(s[0].Unhurt) != h.acked {
			t.Errorf("servers: %+v", s)
		}
		report, err = vault.Scrub(ctxOf, world, vault.VerifyOptions{})
		if err != nil || !report.Sound() || report.Objects != int64(len(world.Names())) {
			t.Errorf("without a key: %+v, %v", report, err)
		}
	}
}

// TestVerifyNamesExactlyWhatDamageHurts flips a bit in every object, in many places:
// the object must be named, and with it the points that indeed cannot be read.
func TestVerifyNamesExactlyWhatDamageHurts(t *testing.T) {
	t.Parallel()
	world, h := damageWorld(t, false)
	for _, name := range some(world.Names(), 3) {
		whole := world.Bytes(name)
		for k, at := range some(sample(len(whole)), 2) {
			if k%3 != 0 && at != len(whole)-1 {
				continue
			}
			b := world.Bytes(name)
			b[at] ^= 1 << (at % 8)
			store := cloneStore(t, world)
			store.Replace(name, b)
			h.expect(t, store, name, fmt.Sprintf("flip at byte %d of %d", at, len(whole)))
		}
		for _, n := range some([]int{len(whole) - 1, 0, 100}, 1) {
			store := cloneStore(t, world)
			store.Replace(name, whole[:n])
			h.expect(t, store, name, fmt.Sprintf("cut to %d bytes", n))
		}
		store := cloneStore(t, world)
		store.Replace(name, append(slices.Clone(whole), 0))
		h.expect(t, store, name, "a byte longer")
	}
}

// expect verifies a store in which one object is damaged.
func (h *history) expect(t *testing.T, store objects, name, how string) {
	t.Helper()
	report, err := h.audit(t, store, vault.VerifyOptions{})
	if strings.HasPrefix(name, "root/") {
		if !detected(err) && report.Sound() {
			t.Errorf("%s, %s: %v, want the damage", name, how, err)
		}
		return
	}
	if err != nil {
		t.Fatalf("%s, %s: %v", name, how, err)
	}
	at := slices.IndexFunc(report.Damages, func(d vault.Damage) bool { return d.Object == name })
	if at < 0 {
		t.Fatalf("%s, %s: not named: %+v", name, how, report)
	}
	keyless, err := vault.Scrub(ctxOf, store, vault.VerifyOptions{})
	if err != nil || keyless.Sound() {
		t.Errorf("%s, %s: a scrub without key: %v, %+v", name, how, err, keyless)
	}
	if strings.HasPrefix(name, "keys/") {
		if report.Servers[0].Err == "" && how != "a byte longer" {
			t.Errorf("%s, %s: points of a server without a key are told whole", name, how)
		}
		return
	}
	if derived(name) != report.Damages[at].Derived {
		t.Errorf("%s, %s: derived is %v", name, how, report.Damages[at].Derived)
	}
	want := h.unreadablePoints(t, store)
	got := slices.Sorted(slices.Values(report.Servers[0].Hurt))
	if !slices.Equal(got, want) {
		t.Errorf("%s, %s: hurt %v, want %v\n%+v", name, how, got, want, report.Damages)
	}
	if n := len(report.Servers[0].Unhurt); n+len(want) < h.acked && !strings.HasSuffix(name, ".manifest") {
		t.Errorf("%s, %s: %d points unhurt beside %d hurt, of %d", name, how, n, len(want), h.acked)
	}
}

func TestVerifyFindsWhatIsAbsent(t *testing.T) {
	world, h := damageWorld(t, false)
	for _, name := range some(world.Names(), 3) {
		if derived(name) || strings.HasPrefix(name, "root/") || strings.HasPrefix(name, "keys/") ||
			strings.HasSuffix(name, "main/000000000000000a.manifest") || strings.Contains(name, "/i-1/") {
			continue // made again, or not to be missed
		}
		store := cloneStore(t, world)
		store.Replace(name, nil)
		h.expectAbsent(t, store, name)
	}
}

func (h *history) expectAbsent(t *testing.T, store objects, name string) {
	t.Helper()
	report, err := h.audit(t, store, vault.VerifyOptions{Share: vault.Share{Part: 1, Of: 1 << 20}}) // reads next to nothing
	if err != nil || !slices.ContainsFunc(report.Damages, func(d vault.Damage) bool { return d.Object == name }) {
		t.Fatalf("%s is gone: %v, %+v", name, err, report.Damages)
	}
	got, want := slices.Sorted(slices.Values(report.Servers[0].Hurt)), h.unreadablePoints(t, store)
	if len(got) == len(want)-1 && strings.HasSuffix(name, ".manifest") {
		want = want[1:] // as above
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s is gone: hurt %v, want %v", name, got, want)
	}
}

// TestSharesAddUp: every object has its turn, in one share and always the same.
func TestSharesAddUp(t *testing.T) {
	world, h := damageWorld(t, false)
	var objects int64
	for part := 1; part <= 7; part++ {
		report, err := h.audit(t, world, vault.VerifyOptions{Share: vault.Share{Part: part, Of: 7}})
		if err != nil || !report.Sound() {
			t.Fatal(err, report)
		}
		if report.Objects == int64(len(world.Names())) {
			t.Errorf("share %d holds everything", part)
		}
		objects += report.Objects
	}
	if objects != int64(len(world.Names())) {
		t.Errorf("7 shares hold %d objects, want %d", objects, len(world.Names()))
	}
	for _, bad := range []string{"", "1", "0/3", "4/3", "a/b", "1/3/5", "1/99999999"} {
		if _, err := vault.ParseShare(bad); err == nil {
			t.Errorf("share %q is taken", bad)
		}
	}
}

// TestVerifyGoesOn: stopped anywhere, it continues and checks nothing twice.
func TestVerifyGoesOn(t *testing.T) {
	world, h := damageWorld(t, false)
	var objects int64
	after, runs := "", 0
	for {
		ctx, stop := context.WithCancel(ctxOf)
		report, err := vault.Verify(ctx, world, h.keys, vault.Options{}.Small(), vault.VerifyOptions{
			After: after, Progress: func(vault.VerifyProgress) { stop() },
		})
		stop()
		objects += report.Objects
		if runs++; err == nil {
			break
		}
		if !errors.Is(err, context.Canceled) || report.Next <= after {
			t.Fatalf("stopped after %q: %v, next %q", after, err, report.Next)
		}
		after = report.Next
	}
	if objects != int64(len(world.Names())) || runs < 2 {
		t.Errorf("%d runs checked %d objects, want %d", runs, objects, len(world.Names()))
	}
}

func TestVerifyTellsStrangersFromDamage(t *testing.T) {
	world, h := damageWorld(t, false)
	world.Replace("lost+found/x", []byte("x"))
	world.Replace("servers/"+string(server)+"/notes.txt", []byte("x"))
	for _, name := range world.Names() {
		if strings.HasSuffix(name, ".segment") { // a copy that nobody refers to
			world.Replace("servers/"+string(server)+"/segments/00000000000000000000000000000000.segment", world.Bytes(name))
		}
	}
	report, err := h.audit(t, world, vault.VerifyOptions{})
	if err != nil || !report.Sound() || len(report.Unknown) != 2 || len(report.Unreferenced) != 1 {
		t.Errorf("%v: %+v", err, report)
	}
}

// A store that is away ends the verification; it is not taken for damage.
func TestVerifyOfAStoreThatIsAway(t *testing.T) {
	world, h := damageWorld(t, false)
	for n := 1; n < 40; n += step(3, 13) {
		faults := blobtest.NewFaults(cloneStore(t, world), n, blobtest.Refused)
		report, err := h.audit(t, faults, vault.VerifyOptions{})
		if err != nil && len(report.Damages) > 0 {
			t.Errorf("call %d fails: %v, and damage: %+v", n, err, report.Damages)
		}
		for _, d := range report.Damages {
			if !strings.HasPrefix(d.Reason, "cannot be read: ") {
				t.Errorf("call %d fails: %+v", n, d)
			}
		}
	}
	gone := &awayStore{Store: world}
	if _, err := h.audit(t, gone, vault.VerifyOptions{}); err == nil {
		t.Error("a store that fails every read of a segment is told to be sound")
	}
}

// awayStore fails all reads but those that opening a vault needs.
type awayStore struct{ blob.Store }

func (s *awayStore) Size(ctx context.Context, name string) (int64, error) {
	return 0, errors.New("connection refused")
}

// Verification bears commits, folds and collections that go on meanwhile, in another
// process: what vanishes because nothing needs it any more is no damage.
func TestVerifyBesideUpkeep(t *testing.T) {
	store, keys := blobtest.NewMem(), newKey(t)
	v := newVault(t, store, keys, vault.Options{}.Small())
	policy := retention.Policy{Rules: []retention.Rule{{Every: time.Hour, For: 24 * time.Hour}}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		w, err := v.Writer(ctxOf, server, vault.MainBranch)
		for i := 1; i <= 150 && err == nil; i++ {
			var e *vault.Epoch
			if e, err = w.Begin(ctxOf, []vault.Volume{{ID: 1, Size: 64 * vault.BlockSize}}); err != nil {
				break
			}
			for b := range uint64(1 + i%40) {
				if err == nil {
					err = e.Append(frame(1, blocks(uint64(i), 1), vault.CodecRaw, vault.Extent{Block: (b + uint64(i)) % 64, Count: 1}))
				}
			}
			p := point(i)
			p.Taken = p.Taken.Add(time.Duration(i) * 10 * time.Minute)
			if err == nil {
				_, err = e.Commit(ctxOf, p)
			}
			if err == nil && i%3 == 0 {
				_, err = v.Maintain(ctxOf, server, policy, p.Taken)
			}
			if err == nil && i%20 == 0 {
				_, err = v.Collect(ctxOf, server)
			}
		}
		if err != nil {
			t.Error(err)
		}
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		report, err := vault.Verify(ctxOf, store, keys, vault.Options{}.Small(), vault.VerifyOptions{})
		if err != nil || !report.Sound() {
			t.Fatalf("%v: %+v", err, report)
		}
		if report.UnknownCount > 0 {
			t.Fatalf("unknown: %v", report.Unknown)
		}
	}
}

// A checkpoint at which reading begins, because older manifests are gone, is not
// derived: its loss is told, although the one before it stands in.
func TestVerifyMissesABegin(t *testing.T) {
	store, keys := blobtest.NewMem(), newKey(t)
	v := newVault(t, store, keys, vault.Options{}.Small())
	w := must(v.Writer(ctxOf, server, vault.MainBranch))(t)
	var checkpoint string
	for i := 1; i <= 400 && checkpoint == ""; i++ {
		e := must(w.Begin(ctxOf, []vault.Volume{{ID: 1, Size: 64 * vault.BlockSize}}))(t)
		if err := e.Append(frame(1, blocks(uint64(i), 1), vault.CodecRaw, vault.Extent{Block: uint64(i % 64), Count: 1})); err != nil {
			t.Fatal(err)
		}
		p := point(i)
		p.Taken = p.Taken.Add(time.Duration(i) * 10 * time.Minute)
		must(e.Commit(ctxOf, p))(t)
		must(v.Maintain(ctxOf, server, retention.Policy{}, p.Taken))(t)
		for _, name := range store.Names() {
			if strings.HasSuffix(name, ".checkpoint") {
				checkpoint = name
			}
		}
	}
	if checkpoint == "" {
		t.Fatal("no checkpoint was ever written")
	}
	w.Close()
	v.WaitTasks()
	store.Replace(checkpoint, nil)
	report, err := vault.Verify(ctxOf, store, keys, vault.Options{}.Small(), vault.VerifyOptions{})
	if err != nil || len(report.Damages) != 1 || report.Damages[0].Object != checkpoint || report.Damages[0].Derived || len(report.Servers[0].Hurt) != 0 {
		t.Errorf("%v: %+v", err, report)
	}
}
