package vault_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault"
	"lifeboat/internal/vault/retention"
)

// model is a vault beside plain arrays that must always agree with it.
type model struct {
	t     *rapid.T
	store objects
	keys  vault.KeyWrapper
	opt   vault.Options
	v     *vault.Vault
	rnd   *rand.Rand

	branches map[string]*line
	points   map[drs.RecoverySnapshotID]map[vault.VolumeID]*disk
	locked   map[drs.RecoverySnapshotID]time.Time
	images   []openImage
	next     int // the next point's or branch's number
}

// line is a branch: what is committed.
type line struct {
	w     *vault.Writer
	disks map[vault.VolumeID]*disk
	base  drs.RecoverySnapshotID          // where it began
	own   map[drs.RecoverySnapshotID]bool // its points
}

// openImage is an image that stays open for a while.
type openImage struct {
	img   *vault.Image
	disks map[vault.VolumeID]*disk
	kept  func() bool // what it shows cannot be folded away, by another process either
}

func cloneDisks(disks map[vault.VolumeID]*disk) map[vault.VolumeID]*disk {
	out := map[vault.VolumeID]*disk{}
	for id, d := range disks {
		out[id] = d.clone()
	}
	return out
}

func (m *model) writer(name string) *vault.Writer {
	b := m.branches[name]
	if b.w == nil {
		b.w = must(m.v.Writer(context.Background(), server, name))(m.t)
	}
	return b.w
}

// epoch writes random changes and commits them, as a point or not, or abandons them.
func (m *model) epoch(name string) {
	b, w := m.branches[name], m.writer(name)
	disks := cloneDisks(b.disks)
	if len(disks) < 3 && m.rnd.IntN(4) == 0 {
		id := vault.VolumeID(m.rnd.IntN(5))
		if disks[id] == nil {
			disks[id] = &disk{}
			disks[id].grow(1 + m.rnd.Int64N(90*vault.BlockSize))
		}
	}
	var vols []vault.Volume
	for id, d := range disks {
		if m.rnd.IntN(5) == 0 {
			d.grow(d.size + m.rnd.Int64N(20*vault.BlockSize))
		}
		vols = append(vols, vault.Volume{ID: id, Device: fmt.Sprintf("/dev/%d", id), Size: d.size})
	}
	e := must(w.Begin(context.Background(), vols))(m.t)
	for range m.rnd.IntN(30) {
		m.change(e, disks)
	}
	switch m.rnd.IntN(8) {
	case 0:
		e.Abort()
		return
	case 1: // the process dies with the epoch open
		m.reopen()
		return
	}
	var p *drs.RecoveryPoint
	if m.rnd.IntN(3) > 0 {
		m.next++
		p = point(m.next)
		m.points[p.ID] = cloneDisks(disks)
		b.own[p.ID] = true
	}
	before := w.Head()
	head := must(e.Commit(context.Background(), p))(m.t)
	if p != nil && (head.LastPoint == nil || head.LastPoint.ID != p.ID || head.LastPoint.Epoch != head.Number || head.Number <= before.Number) {
		m.t.Fatalf("head after the commit of %s: %+v", p.ID, head)
	}
	b.disks = disks
}

func (m *model) change(e *vault.Epoch, disks map[vault.VolumeID]*disk) {
	if len(disks) == 0 {
		return
	}
	ids := slices.Sorted(maps.Keys(disks))
	id := ids[m.rnd.IntN(len(ids))]
	d := disks[id]
	total := len(d.data) / vault.BlockSize
	if m.rnd.IntN(4) == 0 {
		block := m.rnd.IntN(total)
		count := 1 + m.rnd.IntN(total-block)
		if err := e.Zero(id, uint64(block), uint32(count)); err != nil {
			m.t.Fatal(err)
		}
		clear(d.data[block*vault.BlockSize : (block+count)*vault.BlockSize])
		return
	}
	if m.rnd.IntN(3) == 0 { // a whole chunk, with its digest
		chunk := m.rnd.IntN((total + vault.FrameBlocks - 1) / vault.FrameBlocks)
		n := min(vault.FrameBlocks, total-chunk*vault.FrameBlocks)
		raw := blocks(m.rnd.Uint64(), n)
		m.pad(d, chunk*vault.FrameBlocks, raw)
		f := frame(id, raw, vault.Codec(m.rnd.IntN(3)), vault.Extent{Block: uint64(chunk * vault.FrameBlocks), Count: uint32(n)})
		f.Digest = vault.ChunkDigest(e.Seed(), raw)
		m.append(e, f)
		copy(d.data[chunk*vault.ChunkSize:], raw)
		return
	}
	var extents []vault.Extent
	var raw []byte
	for left := 1 + m.rnd.IntN(vault.FrameBlocks); left > 0; {
		block := m.rnd.IntN(total)
		count := 1 + m.rnd.IntN(min(left, total-block))
		b := blocks(m.rnd.Uint64(), count)
		m.pad(d, block, b)
		extents, raw, left = append(extents, vault.Extent{Block: uint64(block), Count: uint32(count)}), append(raw, b...), left-count
		copy(d.data[block*vault.BlockSize:], b)
	}
	m.append(e, frame(id, raw, vault.Codec(m.rnd.IntN(3)), extents...))
}

// pad zeroes what lies beyond the end of the disk, as agents do.
func (m *model) pad(d *disk, block int, raw []byte) {
	if over := int64(block*vault.BlockSize+len(raw)) - d.size; over > 0 {
		clear(raw[int64(len(raw))-over:])
	}
}

func (m *model) append(e *vault.Epoch, f vault.Frame) {
	payload := slices.Clone(f.Payload)
	f.Payload = payload
	if err := e.Append(f); err != nil {
		m.t.Fatal(err)
	}
	clear(payload) // it is the caller's again
}

// reopen forgets everything in memory, as a restart does.
func (m *model) reopen() {
	m.closeImages()
	if m.v != nil {
		if m.rnd.IntN(2) == 0 {
			m.v.WaitTasks()
		}
		m.v.Close()
	}
	m.v = must(vault.Open(context.Background(), m.store, m.keys, m.opt))(m.t)
	for _, b := range m.branches {
		b.w = nil
	}
	if m.rnd.IntN(4) == 0 { // derived data may vanish at any time
		for _, name := range m.store.Names() {
			if derived(name) && m.rnd.IntN(2) == 0 {
				m.store.Replace(name, nil)
			}
		}
	}
}

func (m *model) fork() {
	id := m.anyPoint()
	if id == "" || len(m.branches) > 4 {
		return
	}
	m.next++
	name := fmt.Sprintf("i-%d", m.next)
	if err := m.v.Fork(context.Background(), server, id, name); err != nil {
		m.t.Fatal(err)
	}
	m.branches[name] = &line{disks: cloneDisks(m.points[id]), base: id, own: map[drs.RecoverySnapshotID]bool{}}
}

// now is the vault's clock: the last point's, a little later.
func (m *model) now() time.Time { return point(m.next).Taken.Add(time.Millisecond) }

// held tells why a point cannot be dropped; nil: it can.
func (m *model) held(id drs.RecoverySnapshotID) error {
	for _, b := range m.branches {
		if b.base == id {
			return errHeld
		}
	}
	if m.locked[id].After(m.now()) {
		return vault.ErrLocked
	}
	return nil
}

var errHeld = errors.New("a branch began there")

func (m *model) forget(id drs.RecoverySnapshotID) {
	if m.points[id] == nil {
		m.t.Fatalf("%s was dropped, but was not there", id)
	}
	if err := m.held(id); err != nil {
		m.t.Fatalf("%s was dropped: %v", id, err)
	}
	delete(m.points, id)
	for _, b := range m.branches {
		delete(b.own, id)
	}
}

// maintain applies some policy, in this process or another one.
func (m *model) maintain() {
	v := m.v
	if m.rnd.IntN(3) == 0 {
		v = must(vault.Open(context.Background(), m.store, m.keys, m.opt))(m.t)
		defer v.Close()
		defer v.WaitTasks()
	}
	policy := retention.Policy{Journal: time.Duration(1+m.rnd.IntN(10)) * time.Second, Rules: []retention.Rule{{Every: 3 * time.Second, For: 20 * time.Second}}}
	for range 1 + m.rnd.IntN(4) {
		r := must(v.Maintain(context.Background(), server, policy, m.now()))(m.t)
		for _, id := range r.Dropped {
			m.forget(id)
		}
		if m.rnd.IntN(3) == 0 {
			freed := must(v.Collect(context.Background(), server))(m.t)
			if freed.Unknown > 0 {
				m.t.Fatalf("collected %+v", freed)
			}
		}
	}
}

func (m *model) dropPoint() {
	id := m.anyPoint()
	if id == "" {
		return
	}
	want := m.held(id)
	err := m.v.DropPoints(context.Background(), server, id)
	if (err != nil) != (want != nil) || errors.Is(want, vault.ErrLocked) && !errors.Is(err, vault.ErrLocked) {
		m.t.Fatalf("drop of %s: got %v, want %v", id, err, want)
	}
	if err == nil {
		m.forget(id)
	}
}

func (m *model) lock() {
	id := m.anyPoint()
	if id == "" {
		return
	}
	until := m.now().Add(time.Duration(m.rnd.IntN(20)-2) * time.Second)
	err := m.v.LockPoint(context.Background(), server, id, until)
	if bad := !until.After(m.now()) || until.Before(m.locked[id]); bad != (err != nil) {
		m.t.Fatalf("lock until %s, at %s, after %s: got %v", until, m.now(), m.locked[id], err)
	}
	if err == nil {
		m.locked[id] = until
	}
}

func (m *model) dropBranch(name string) {
	if name == vault.MainBranch || slices.ContainsFunc(m.images, func(o openImage) bool { return true }) {
		return
	}
	var want error
	for _, other := range m.branches {
		if m.branches[name].own[other.base] {
			want = errHeld
		}
	}
	for id := range m.branches[name].own {
		if m.locked[id].After(m.now()) {
			want = vault.ErrLocked
		}
	}
	err := m.v.DropBranch(context.Background(), server, name)
	if (err != nil) != (want != nil) {
		m.t.Fatalf("drop of %s: got %v, want %v", name, err, want)
	}
	if err == nil {
		for id := range m.branches[name].own {
			delete(m.points, id)
		}
		delete(m.branches, name)
	}
}

// keepOpen opens an image that is read later, whatever happens meanwhile.
func (m *model) keepOpen(name string) {
	if m.rnd.IntN(2) == 0 {
		img := must(m.v.OpenHead(context.Background(), server, name))(m.t)
		m.images = append(m.images, openImage{img, cloneDisks(m.branches[name].disks), func() bool { return false }})
	} else if id := m.anyPoint(); id != "" {
		img := must(m.v.OpenPoint(context.Background(), server, id))(m.t)
		m.images = append(m.images, openImage{img, cloneDisks(m.points[id]), func() bool { return m.points[id] != nil }})
	}
}

// checkOpen reads the images that are open. What is not kept may have been folded
// away by another process, but then the image must say so.
func (m *model) checkOpen() {
	for _, o := range m.images {
		for id, d := range o.disks {
			r := must(o.img.Volume(id))(m.t)
			got := make([]byte, d.size)
			n, err := r.ReadAt(got, 0)
			if errors.Is(err, vault.ErrAbsent) && !o.kept() {
				continue
			}
			if err != nil || firstDifference(got[:n], d.data[:d.size]) >= 0 {
				m.t.Fatalf("an open image reads otherwise: %v", err)
			}
		}
	}
}

func (m *model) closeImages() {
	m.checkOpen()
	for _, o := range m.images {
		o.img.Close()
	}
	m.images = nil
}

func (m *model) anyPoint() drs.RecoverySnapshotID {
	ids := slices.Sorted(maps.Keys(m.points))
	if len(ids) == 0 {
		return ""
	}
	return ids[m.rnd.IntN(len(ids))]
}

func (m *model) checkPoint(id drs.RecoverySnapshotID) {
	img := must(m.v.OpenPoint(context.Background(), server, id))(m.t)
	defer img.Close()
	m.checkImage(img, m.points[id])
}

func (m *model) checkHead(name string) {
	img := must(m.v.OpenHead(context.Background(), server, name))(m.t)
	defer img.Close()
	m.checkImage(img, m.branches[name].disks)
}

func (m *model) checkImage(img *vault.Image, disks map[vault.VolumeID]*disk) {
	if got := len(img.Volumes()); got != len(disks) {
		m.t.Fatalf("image has %d volumes, want %d", got, len(disks))
	}
	for id, d := range disks {
		d.check(m.t, img, id)
		d.checkDetails(m.t, img, id, img.DigestSeed(), m.rnd)
	}
}

// TestModel drives the vault and plain arrays through the same random history.
func TestModel(t *testing.T) {
	keys, outer := newKey(t), t
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		m := &model{
			t: t, store: newStore(outer), keys: keys, rnd: rand.New(rand.NewPCG(seed, 0)),
			opt:      vault.Options{CacheBytes: 1 << 20, Plain: seed%8 == 0}.Small(),
			branches: map[string]*line{vault.MainBranch: {disks: map[vault.VolumeID]*disk{}, own: map[drs.RecoverySnapshotID]bool{}}},
			locked:   map[drs.RecoverySnapshotID]time.Time{},
			points:   map[drs.RecoverySnapshotID]map[vault.VolumeID]*disk{},
		}
		m.opt.Now = m.now
		v := must(vault.Create(context.Background(), m.store, keys, m.opt))(t)
		if err := v.CreateServer(context.Background(), server); err != nil {
			t.Fatal(err)
		}
		v.Close()
		m.reopen()
		defer func() { m.v.Close() }()
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			names := slices.Sorted(maps.Keys(m.branches))
			name := names[m.rnd.IntN(len(names))]
			switch m.rnd.IntN(24) {
			case 0:
				m.reopen()
			case 1:
				m.fork()
			case 2:
				if id := m.anyPoint(); id != "" {
					m.checkPoint(id)
				}
			case 3:
				m.checkHead(name)
			case 4, 5, 6, 7:
				m.maintain()
			case 8:
				m.dropPoint()
			case 9:
				m.lock()
			case 10:
				m.dropBranch(name)
			case 11:
				m.keepOpen(name)
			case 12:
				m.checkOpen()
			case 13:
				m.closeImages()
			default:
				m.epoch(name)
			}
		}
		m.maintain()
		m.reopen()
		points, err := m.v.Points(context.Background(), server)
		if err != nil || len(points) != len(m.points) {
			t.Fatalf("%d points, %v; want %d", len(points), err, len(m.points))
		}
		for _, p := range points {
			m.checkPoint(p.ID)
		}
		for name := range m.branches {
			m.checkHead(name)
		}
		if err := m.v.CreateServer(context.Background(), server); !errors.Is(err, vault.ErrExists) {
			t.Fatalf("second CreateServer: got %v, want ErrExists", err)
		}
	})
}
