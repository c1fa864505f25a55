package vault_test

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault"
	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/retention"
)

// simulation runs days of epochs on a clock of its own. A block's content follows from
// its number and version, so that what every point held is remembered cheaply.
type simulation struct {
	t      testing.TB
	store  blob.Store
	keys   vault.KeyWrapper
	opt    vault.Options
	policy retention.Policy
	rnd    *rand.Rand

	v     *vault.Vault
	w     *vault.Writer
	at    time.Time
	epoch int
	raw   []byte

	versions []uint32 // of each block; 0: zeros
	held     map[drs.RecoverySnapshotID][]uint32
	payload  int64 // bytes that were written to the disk
}

var simulated = time.Date(2026, 3, 1, 7, 11, 0, 0, time.UTC)

func newSimulation(t testing.TB, store blob.Store, opt vault.Options, blocks int, seed uint64) *simulation {
	s := &simulation{
		t: t, store: store, keys: newKey(t), policy: retention.Default(), rnd: rand.New(rand.NewPCG(seed, 0)),
		at: simulated, raw: make([]byte, vault.BlockSize),
		versions: make([]uint32, blocks), held: map[drs.RecoverySnapshotID][]uint32{},
	}
	opt.Now = func() time.Time { return s.at }
	s.opt = opt
	s.v = newVault(t, store, s.keys, opt)
	return s
}

// block fills p with a block's content, which does not compress.
func (s *simulation) block(p []byte, block int, version uint32) {
	if version == 0 {
		clear(p)
		return
	}
	x := uint64(block)<<32 | uint64(version)
	for i := 0; i < len(p); i += 8 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		binary.LittleEndian.PutUint64(p[i:], x)
	}
}

// step commits an epoch that changes these blocks, some of them to zeros.
func (s *simulation) step(distance time.Duration, changed []int) {
	s.t.Helper()
	s.at = s.at.Add(distance)
	s.epoch++
	if s.w == nil {
		s.w = must(s.v.Writer(ctxOf, server, vault.MainBranch))(s.t)
	}
	e := must(s.w.Begin(ctxOf, []vault.Volume{{ID: 1, Device: "/dev/sda", Size: int64(len(s.versions)) * vault.BlockSize}}))(s.t)
	slices.Sort(changed)
	changed = slices.Compact(changed)
	var extents []vault.Extent
	var raw []byte
	flush := func() {
		if len(raw) == 0 {
			return
		}
		if err := e.Append(vault.Frame{Volume: 1, Extents: extents, Codec: vault.CodecRaw, RawLen: len(raw), Payload: raw}); err != nil {
			s.t.Fatal(err)
		}
		extents, raw = nil, nil
	}
	for _, b := range changed {
		if s.rnd.IntN(20) == 0 {
			s.versions[b] = 0
			flush()
			if err := e.Zero(1, uint64(b), 1); err != nil {
				s.t.Fatal(err)
			}
			continue
		}
		s.versions[b] = uint32(s.epoch)
		s.block(s.raw, b, s.versions[b])
		s.payload += vault.BlockSize
		extents = append(extents, vault.Extent{Block: uint64(b), Count: 1})
		if raw = append(raw, s.raw...); len(raw) == vault.ChunkSize {
			flush()
		}
	}
	flush()
	p := point(s.epoch)
	p.Taken, p.Expected = s.at, s.at
	if s.epoch%17 == 0 {
		p = nil // progress only
	} else {
		s.held[p.ID] = slices.Clone(s.versions)
	}
	if _, err := e.Commit(ctxOf, p); err != nil {
		s.t.Fatal(err)
	}
}

// maintain does everything there is to do, and forgets the points that were dropped.
func (s *simulation) maintain() vault.Report {
	s.t.Helper()
	var sum vault.Report
	for i := 0; ; i++ {
		r, err := s.v.Maintain(ctxOf, server, s.policy, s.at)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, id := range r.Dropped {
			if s.held[id] == nil {
				s.t.Fatalf("dropped %s, which was not there", id)
			}
			delete(s.held, id)
		}
		sum.Folded.Written += r.Folded.Written
		sum.Folded.Removed += r.Folded.Removed
		sum.Folded.Added += r.Folded.Added
		sum.Freed.Segments.Objects += r.Freed.Segments.Objects
		sum.Freed.Manifests.Objects += r.Freed.Manifests.Objects
		if !r.More {
			return sum
		}
		if i > 1000 {
			s.t.Fatal("there is no end of what is to be done")
		}
	}
}

func (s *simulation) reopen() {
	s.v.WaitTasks()
	s.v.Close()
	s.v = must(vault.Open(ctxOf, s.store, s.keys, s.opt))(s.t)
	s.w = nil
}

// check compares a point with what it held when it was made.
func (s *simulation) check(id drs.RecoverySnapshotID) {
	s.t.Helper()
	img := must(s.v.OpenPoint(ctxOf, server, id))(s.t)
	defer img.Close()
	s.checkImage(img, s.held[id], string(id))
}

func (s *simulation) checkImage(img *vault.Image, versions []uint32, what string) {
	s.t.Helper()
	r := must(img.Volume(1))(s.t)
	got := make([]byte, len(versions)*vault.BlockSize)
	must(r.ReadAt(got, 0))(s.t)
	for b, version := range versions {
		s.block(s.raw, b, version)
		if at := firstDifference(got[b*vault.BlockSize:][:vault.BlockSize], s.raw); at >= 0 {
			s.t.Fatalf("%s: block %d differs, want version %d", what, b, version)
		}
	}
}

func (s *simulation) ids() []drs.RecoverySnapshotID {
	var out []drs.RecoverySnapshotID
	for id := range s.held {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}

// checkAll compares every kept point, and what is listed.
func (s *simulation) checkAll() {
	s.t.Helper()
	points := must(s.v.Points(ctxOf, server))(s.t)
	if len(points) != len(s.held) {
		s.t.Fatalf("%d points are listed, want %d", len(points), len(s.held))
	}
	for _, p := range points {
		s.check(p.ID)
	}
}

// busy are the blocks a usual server changes: most of them again and again.
func (s *simulation) busy(n int) []int {
	var out []int
	for range n {
		b := s.rnd.IntN(len(s.versions))
		if s.rnd.IntN(4) > 0 {
			b %= max(1, len(s.versions)/10)
		}
		out = append(out, b)
	}
	return out
}

// TestDaysOfEpochs: whatever is folded, collected and reopened, every kept point reads as
// what it was.
func TestDaysOfEpochs(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	// Where each epoch takes a request or two, fewer of them fill three days.
	store, distance, least := newStore(t), time.Duration(step(1, 60))*time.Minute, step(1000, 12)
	s := newSimulation(t, store, vault.Options{CacheBytes: 4 << 20}.Small(), 256, seed)
	var sum vault.Report
	for s.at.Before(simulated.Add(3 * 24 * time.Hour)) {
		s.step(distance, s.busy(1+s.rnd.IntN(8)))
		if s.rnd.IntN(step(30, 10)) == 0 {
			r := s.maintain()
			sum.Folded.Removed += r.Folded.Removed
			sum.Folded.Added += r.Folded.Added
			sum.Freed.Manifests.Objects += r.Freed.Manifests.Objects
			sum.Freed.Segments.Objects += r.Freed.Segments.Objects
			for _, id := range s.some(3) {
				s.check(id)
			}
		}
		if s.rnd.IntN(step(400, 40)) == 0 {
			s.reopen()
		}
	}
	s.maintain()
	s.checkAll()
	s.reopen()
	must(s.v.Collect(ctxOf, server))(t)
	s.checkAll()
	if sum.Folded.Removed < least || sum.Freed.Manifests.Objects < least && !again() { // few epochs may come to no trimming
		t.Errorf("little was done: %+v", sum)
	}
	if n := len(store.Names()); n > 1500 {
		t.Errorf("%d objects for %d points", n, len(s.held))
	}
	t.Logf("%d epochs, %d points, %d objects; %+v", s.epoch, len(s.held), len(store.Names()), sum)
}

func (s *simulation) some(n int) []drs.RecoverySnapshotID {
	ids := s.ids()
	s.rnd.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	return ids[:min(n, len(ids))]
}
