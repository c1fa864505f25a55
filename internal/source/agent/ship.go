package agent

import (
	"context"
	"time"

	"lifeboat/internal/replication"
)

// Progress is committed whenever an epoch holds this much, or is this old, so
// that a break costs little: an initial sync is many epochs.
const (
	progressBytes = 256 << 20
	progressAfter = 5 * time.Second
)

// shipper sends epochs. The cutter's goroutine or the shipping one of its pass
// uses it, never both.
type shipper struct {
	s       *session
	last    uint64 // ID of the last epoch begun
	open    bool
	restart bool // the next epoch answers a refusal
	bytes   int64
	since   time.Time
	// zero is a run of zeros not yet sent; Count 0: none. It is sent before its
	// pass or epoch ends. A pass reads each chunk once, so nothing sent while the
	// run waits can lie under it; what a later pass sends must come after it, for
	// an epoch may span passes and what comes later in it hides what came before.
	zero    replication.Zero
	extents []replication.Extent // scratch
	data    replication.Data     // scratch

	// frozen: the disks' filesystems are, and nothing is waited for that need not be.
	frozen bool

	line line
}

func (p *shipper) begin() error {
	if p.open {
		return nil
	}
	p.last++
	p.open, p.bytes, p.since = true, 0, time.Now()
	p.s.a.ledger.begin(p.last)
	m := &replication.Begin{Epoch: p.last, Restart: p.restart}
	p.restart = false
	return p.s.conn.Queue(m)
}

// chunk ships the changed blocks of one chunk and makes the table say so.
func (p *shipper) chunk(ctx context.Context, it item) error {
	if p.s.a.ledger.refusal() != nil {
		return errRefused
	}
	if err := p.begin(); err != nil {
		return err
	}
	defer p.line.measure(time.Now(), len(it.packed))
	d := p.s.a.disks.all[it.disk]
	if err := p.blocks(ctx, d.volume, it); err != nil {
		return err
	}
	size := it.chunk.Bytes()
	p.s.a.ledger.note(change{d, it.chunk.Index, it.chunk.Entry, size})
	p.bytes += size
	if p.bytes >= progressBytes || time.Since(p.since) >= progressAfter {
		if err := p.commit(ctx, replication.Commit{}); err != nil {
			return err
		}
	}
	return p.thin(ctx)
}

// thin waits for acknowledgements where too many are owed.
func (p *shipper) thin(ctx context.Context) error {
	id, crowded := p.s.a.ledger.crowded()
	if !crowded || p.frozen {
		return nil
	}
	if err := p.commit(ctx, replication.Commit{}); err != nil {
		return err
	}
	if refused, err := p.s.a.ledger.await(ctx, id); err != nil || refused == nil {
		return err
	}
	return errRefused
}

const chunkBlocks = 16

// blocks sends the blocks of an item.
func (p *shipper) blocks(ctx context.Context, volume uint32, it item) (err error) {
	base := uint64(it.chunk.Index) * chunkBlocks
	it.chunk.Zero.Runs(func(first, count int) bool {
		err = p.zeros(ctx, volume, base+uint64(first), uint32(count))
		return err == nil
	})
	if err != nil || it.chunk.Data == 0 {
		return err
	}
	p.extents = p.extents[:0]
	it.chunk.Data.Runs(func(first, count int) bool {
		p.extents = append(p.extents, replication.Extent{Block: base + uint64(first), Count: uint32(count)})
		return true
	})
	p.data = replication.Data{
		Volume: volume, Codec: it.codec, RawLen: uint32(it.chunk.Data.Len()) * vaultBlock,
		Digest: it.chunk.Digest, Extents: p.extents, Payload: it.packed,
	}
	if err := p.pay(ctx, p.data.Cost()); err != nil {
		return err
	}
	return p.s.conn.Queue(&p.data)
}

// maxZeroRun keeps the count of a run of zeros within its field.
const maxZeroRun = 1 << 30

// zeros joins runs that follow each other.
func (p *shipper) zeros(ctx context.Context, volume uint32, block uint64, count uint32) error {
	z := &p.zero
	if z.Count > 0 && z.Volume == volume && z.Block+uint64(z.Count) == block && z.Count < maxZeroRun {
		z.Count += count
		return nil
	}
	if err := p.flushZeros(ctx); err != nil {
		return err
	}
	*z = replication.Zero{Volume: volume, Block: block, Count: count}
	return nil
}

func (p *shipper) flushZeros(ctx context.Context) error {
	if p.zero.Count == 0 {
		return nil
	}
	z := p.zero
	p.zero = replication.Zero{}
	if err := p.pay(ctx, z.Cost()); err != nil {
		return err
	}
	return p.s.conn.Queue(&z)
}

// pay waits for credit and for the throttle.
func (p *shipper) pay(ctx context.Context, n int) error {
	if !p.s.window.TryTake(n) {
		if err := p.hungry(); err != nil {
			return err
		}
		begun := time.Now()
		err := p.s.window.Take(ctx, n)
		p.s.a.cfg.Metrics.waited.Add(int64(time.Since(begun)))
		if err != nil {
			return err
		}
	}
	held, err := p.s.a.throttle.Wait(ctx, n)
	p.s.a.cfg.Metrics.held.Add(int64(held))
	return err
}

// hungry sends what is buffered, and tells the server that there is more than it has
// given credit for.
func (p *shipper) hungry() error {
	if p.s.welcome.Version < replication.CreditVersion {
		return p.s.conn.Flush()
	}
	return p.s.conn.Send(&replication.CreditRequest{})
}

// commit closes the open epoch, if there is one, with what c says. It does not
// wait for the acknowledgement.
func (p *shipper) commit(ctx context.Context, c replication.Commit) error {
	if !p.open {
		return nil
	}
	if err := p.flushZeros(ctx); err != nil {
		return err
	}
	p.open = false
	c.Epoch = p.last
	if c.Point {
		p.s.a.ledger.committing(c.Taken)
	}
	return p.s.conn.Send(&c)
}

// abandon forgets the open epoch after a refusal; the next one restarts.
func (p *shipper) abandon() {
	p.open, p.restart, p.zero = false, true, replication.Zero{}
}

func (p *shipper) flush() error { return p.s.conn.Flush() }

// endPass sends all that the pass found.
func (p *shipper) endPass(ctx context.Context) error {
	if err := p.flushZeros(ctx); err != nil {
		return err
	}
	return p.flush()
}
