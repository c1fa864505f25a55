package vault_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault"
	"lifeboat/internal/vault/blob/blobtest"
	"lifeboat/internal/vault/blob/s3/s3test"
	"lifeboat/internal/vault/retention"
)

// chronicle is the life of a vault with several source servers, through everything that
// befalls one, on a clock of its own. Beside it stands what every kept point held when
// it was made. A block's content follows from its disk, place and version, so that this
// is remembered cheaply.
//
// Each event draws from a source of its own, made of the seed and the event's number: the
// seed tells the whole life again, but for which of the operations that run side by
// side a fault strikes.
type chronicle struct {
	t        testing.TB
	seed     uint64
	event    uint64
	rnd      *rand.Rand // of this event
	bare     objects
	location string
	keyFile  string
	keys     vault.KeyWrapper
	opt      vault.Options
	at       time.Time

	v       *vault.Vault
	store   *blobtest.Faults // what v stands on
	sources []*source
	number  int // of the newest point, branch or disk
	made    int // points
	done    map[string]int
	dataDir string // of the last rebuild
}

// source is a source server.
type source struct {
	id      drs.SourceServerID
	policy  retention.Policy
	lines   map[string]*timeline // its branches
	points  map[drs.RecoverySnapshotID]*moment
	leaving map[drs.RecoverySnapshotID]bool // what retention was allowed to drop
}

// timeline is a branch: what was committed.
type timeline struct {
	w     *vault.Writer
	disks platters
	base  drs.RecoverySnapshotID // where it began
	newer time.Time              // when its newest point was taken
}

// moment is a kept point.
type moment struct {
	line   string
	taken  time.Time
	locked time.Time
	disks  platters
}

// platters are the disks of a server.
type platters map[vault.VolumeID]*platter

type platter struct {
	size     int64
	gone     bool     // it is not named any more
	versions []uint32 // of each block; 0: zeros
}

func (p platters) clone() platters {
	out := platters{}
	for id, d := range p {
		out[id] = &platter{d.size, d.gone, slices.Clone(d.versions)}
	}
	return out
}

func (d *platter) grow(size int64) {
	d.size = size
	n := int(size+vault.BlockSize-1) / vault.BlockSize
	d.versions = append(d.versions, make([]uint32, n-len(d.versions))...)
}

// fill makes the content of n blocks.
func (d *platter) fill(id vault.VolumeID, block, n int) []byte {
	raw := make([]byte, n*vault.BlockSize)
	for i := range n {
		x := uint64(id)<<56 | uint64(block+i)<<32 | uint64(d.versions[block+i])
		if uint32(x) == 0 {
			continue
		}
		p := raw[i*vault.BlockSize:][:vault.BlockSize]
		if x%3 == 0 {
			p = p[:vault.BlockSize/4] // it compresses
		}
		for k := 0; k < len(p); k += 8 {
			x ^= x << 13
			x ^= x >> 7
			x ^= x << 17
			for b := range 8 {
				p[k+b] = byte(x >> (8 * b))
			}
		}
	}
	if over := int64(block*vault.BlockSize+len(raw)) - d.size; over > 0 {
		clear(raw[int64(len(raw))-over:]) // as agents do
	}
	return raw
}

// newChronicle makes a vault of its own in a directory, or in a bucket.
func newChronicle(t testing.TB, seed uint64, servers int) *chronicle {
	c := &chronicle{t: t, seed: seed, at: simulated, done: map[string]int{}}
	c.begin()
	if onS3() {
		bucket := newStore(t).(*s3test.Bucket)
		c.bare, c.location = bucket, bucket.Where.String()
	} else {
		dir := newDirectory(t)
		c.bare, c.location = dir, "file:"+dir.path
	}
	c.keyFile = filepath.Join(t.TempDir(), "master.key")
	c.keys = must(vault.CreateKeyFile(c.keyFile))(t)
	c.opt = vault.Options{CacheBytes: 4 << 20, Now: func() time.Time { return c.at }, Retire: func(_ context.Context, id drs.SourceServerID, points []drs.RecoverySnapshotID) ([]drs.RecoverySnapshotID, error) {
		return points, c.retire(id, points)
	}}
	if seed%4 > 0 { // else with the limits of everyday life
		c.opt = c.opt.Small()
	}
	must(vault.Create(ctxOf, c.bare, c.keys, c.opt))(t).Close()
	c.open()
	t.Cleanup(func() { c.v.Close() })
	for range servers {
		c.addServer()
	}
	return c
}

// begin starts the next event.
func (c *chronicle) begin() {
	c.event++
	c.rnd = rand.New(rand.NewPCG(c.seed, c.event))
}

func (c *chronicle) next() int { c.number++; return c.number }

func (c *chronicle) addServer() {
	s := &source{
		id: drs.SourceServerID(fmt.Sprintf("s-%017x", c.next())), policy: retention.Default(),
		lines: map[string]*timeline{vault.MainBranch: {disks: platters{}}}, points: map[drs.RecoverySnapshotID]*moment{},
	}
	if onS3() || c.rnd.IntN(2) == 0 {
		s.policy.Journal = time.Duration(1+c.rnd.IntN(step(120, 20))) * time.Minute
	}
	c.sources = append(c.sources, s)
	c.attempt("create server", vault.ErrExists, func() error { return c.v.CreateServer(ctxOf, s.id) })
}

func (c *chronicle) anySource() *source { return c.sources[c.rnd.IntN(len(c.sources))] }

// anyLine chooses a branch, mostly the main one.
func (c *chronicle) anyLine(s *source) string {
	names := slices.Sorted(maps.Keys(s.lines))
	if c.rnd.IntN(3) > 0 {
		return vault.MainBranch
	}
	return names[c.rnd.IntN(len(names))]
}

func (c *chronicle) anyPoint(s *source) drs.RecoverySnapshotID {
	ids := slices.Sorted(maps.Keys(s.points))
	if len(ids) == 0 {
		return ""
	}
	return ids[c.rnd.IntN(len(ids))]
}

// change is a run of blocks that an epoch writes.
type change struct {
	disk         vault.VolumeID
	block, count int
	zero         bool
}

// evolve draws what happens to the disks between two epochs.
func (c *chronicle) evolve(disks platters, version uint32) (changes []change) {
	if live := disks.live(); len(live) == 0 || len(disks) < 5 && c.rnd.IntN(200) == 0 {
		d := &platter{}
		d.grow(1 + c.rnd.Int64N(120*vault.BlockSize))
		disks[vault.VolumeID(c.next())] = d
	} else if len(live) > 1 && c.rnd.IntN(400) == 0 {
		disks[live[c.rnd.IntN(len(live))]].gone = true
	}
	live := disks.live()
	for range 1 + c.rnd.IntN(5) {
		id := live[c.rnd.IntN(len(live))]
		d := disks[id]
		if c.rnd.IntN(100) == 0 && d.size < 300*vault.BlockSize {
			last := len(d.versions) - 1
			d.grow(d.size + c.rnd.Int64N(20*vault.BlockSize))
			d.versions[last] = version // its end was zeros
			changes = append(changes, change{id, last, 1, false})
		}
		block := c.rnd.IntN(len(d.versions))
		if c.rnd.IntN(3) > 0 {
			block %= len(d.versions)/8 + 1 // most writes go to the same places
		}
		n := 1 + c.rnd.IntN(3)
		if c.rnd.IntN(20) == 0 {
			n = len(d.versions)
		}
		n = min(n, len(d.versions)-block)
		ch := change{id, block, n, c.rnd.IntN(12) == 0}
		for i := range n {
			d.versions[block+i] = version
			if ch.zero {
				d.versions[block+i] = 0
			}
		}
		changes = append(changes, ch)
	}
	return changes
}

func (p platters) live() []vault.VolumeID {
	var out []vault.VolumeID
	for id, d := range p {
		if !d.gone {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

func (p platters) volumes() (out []vault.Volume) {
	for _, id := range p.live() {
		out = append(out, vault.Volume{ID: id, Device: fmt.Sprintf("/dev/%d", id), Size: p[id].size})
	}
	return out
}

// commit writes an epoch to a branch, as a point most of the times.
func (c *chronicle) commit(s *source, name string) {
	c.at = c.at.Add(time.Duration(1+c.rnd.IntN(90)) * time.Second)
	line := s.lines[name]
	disks := line.disks.clone()
	n := c.next()
	changes := c.evolve(disks, uint32(n))
	var p *drs.RecoveryPoint
	if c.rnd.IntN(12) > 0 {
		p = point(n)
		p.SourceServer, p.Taken, p.Expected = s.id, c.at, c.at
	}
	if c.rnd.IntN(40) == 0 { // the line breaks
		c.attempt("epoch that is given up", nil, func() error {
			e, err := c.write(s, name, disks, changes)
			if err == nil {
				e.Abort()
			}
			return err
		})
		return
	}
	before, begun := uint64(0), false
	c.attempt("commit", nil, func() error {
		w, err := c.writer(s, name)
		if err != nil {
			return err
		}
		head := w.Head().Number
		if begun && head > before {
			return nil // it was made, although the store said otherwise
		}
		before, begun = head, true
		e, err := c.write(s, name, disks, changes)
		if err != nil {
			return err
		}
		_, err = e.Commit(ctxOf, p)
		return err
	})
	line.disks = disks
	if p != nil {
		c.made++
		line.newer = c.at
		s.points[p.ID] = &moment{line: name, taken: c.at, disks: disks.clone()}
	}
}

func (c *chronicle) writer(s *source, name string) (w *vault.Writer, err error) {
	line := s.lines[name]
	if line.w == nil {
		line.w, err = c.v.Writer(ctxOf, s.id, name)
	}
	return line.w, err
}

func (c *chronicle) write(s *source, name string, disks platters, changes []change) (*vault.Epoch, error) {
	w, err := c.writer(s, name)
	if err != nil {
		return nil, err
	}
	e, err := w.Begin(ctxOf, disks.volumes())
	if err != nil {
		return nil, err
	}
	for _, ch := range changes {
		for n := 0; err == nil && n < ch.count && !ch.zero; n += vault.FrameBlocks {
			count := min(vault.FrameBlocks, ch.count-n)
			// What a later change of this epoch overwrites need not be right.
			raw := disks[ch.disk].fill(ch.disk, ch.block+n, count)
			err = e.Append(frame(ch.disk, raw, vault.Codec(len(changes)%3), vault.Extent{Block: uint64(ch.block + n), Count: uint32(count)}))
		}
		if ch.zero && err == nil {
			err = e.Zero(ch.disk, uint64(ch.block), uint32(ch.count))
		}
	}
	if err != nil {
		e.Abort()
		return nil, err
	}
	return e, nil
}

// attempt does something that the store may fail at any call. What fails is done again, by
// this process or the next one; again is what only a repetition may be answered.
func (c *chronicle) attempt(what string, again error, op func() error) {
	c.t.Helper()
	armed := c.rnd.IntN(10) == 0
	if armed {
		c.store.Arm(1+c.rnd.IntN(15), blobtest.Outcomes[c.rnd.IntN(len(blobtest.Outcomes))])
	}
	err := op()
	for try := 0; err != nil; try++ {
		if again != nil && try > 0 && errors.Is(err, again) {
			break
		}
		if !c.store.Hit() || try == 2 {
			c.t.Fatalf("event %d: %s: %v", c.event, what, err)
		}
		c.done["faults"]++
		if c.store.Dead() || c.rnd.IntN(2) == 0 {
			c.restart(true)
		}
		for _, s := range c.sources {
			for _, line := range s.lines {
				line.w = nil
			}
		}
		err = op()
	}
	if c.store.Dead() {
		c.restart(true)
	}
	c.store.Arm(0, blobtest.Refused)
	c.done[what]++
}
