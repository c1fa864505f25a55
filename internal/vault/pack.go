package vault

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/envelope"
)

// A pack holds the bodies of many consecutive manifests, so that opening a branch
// reads few objects. It is derived: where it is absent or damaged, the manifests
// serve as well. Packs end at multiples of the limit's number of manifests, and each
// manifest is written to one pack once: they cost in proportion to what changed.

// pack is the manifests from first on.
type pack struct {
	first   uint64
	before  [32]byte // hash of the manifest before the first; zero when there is none
	entries []packEntry
}

type packEntry struct {
	hash [32]byte
	body []byte
}

func packName(b *branch, number uint64) string {
	return fmt.Sprintf("%s%016x.pack", branchFolder(b.server, b.name), number)
}

// maxPack bounds the body of a pack, in bytes. The manifests of a stretch that would be
// larger, such as those of a large initial sync, are read one by one.
const maxPack = 256 << 20

// packed sees to it that the manifests up to a number, which ends a pack, are packed.
func (b *branch) packed(number uint64) {
	name := packName(b, number)
	b.derive("pack "+name, func(ctx context.Context) error {
		p, err := b.collectPack(ctx, number)
		if err != nil || p == nil {
			return err
		}
		stored, _, err := envelope.Encode(envelope.Header{
			Kind: envelope.Pack, Cipher: b.v.cipher, Number: number,
			Server: string(b.server), Branch: b.name, Link: p.entries[len(p.entries)-1].hash,
		}, b.key, p.put())
		if err != nil {
			return err
		}
		err = b.v.store.PutIfAbsent(ctx, name, stored)
		if !errors.Is(err, blob.ErrExists) {
			return err
		}
		if _, err := b.readPack(ctx, number); !damaged(err) {
			return nil // somebody else made it
		}
		if err := b.v.store.Delete(ctx, name); err != nil && !errors.Is(err, blob.ErrAbsent) {
			return err
		}
		return b.v.store.PutIfAbsent(ctx, name, stored)
	})
}

// collectPack reads the manifests of a pack, or returns nil where some are gone or
// too large.
func (b *branch) collectPack(ctx context.Context, number uint64) (*pack, error) {
	n := b.v.limits.pack
	envs := make([]*envelope.Envelope, n)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(b.v.distance.manifests)
	for i := range envs {
		g.Go(func() (err error) {
			envs[i], err = b.readManifest(ctx, number-n+1+uint64(i))
			return err
		})
	}
	if err := g.Wait(); errors.Is(err, blob.ErrAbsent) || damaged(err) {
		return nil, nil // no longer needed, or told by who reads the branch
	} else if err != nil {
		return nil, err
	}
	p := &pack{first: number - n + 1, before: envs[0].Link}
	size, last := 0, p.before
	for _, env := range envs {
		if env.Link != last {
			return nil, nil
		}
		last = env.Hash
		size += len(env.Body)
		p.entries = append(p.entries, packEntry{env.Hash, env.Body})
	}
	if size > maxPack {
		return nil, nil
	}
	return p, nil
}

func (p *pack) put() []byte {
	b := binary.LittleEndian.AppendUint64(nil, p.first)
	b = append(b, p.before[:]...)
	for _, e := range p.entries {
		b = append(b, e.hash[:]...)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(e.body)))
		b = append(b, e.body...)
	}
	return b
}

func decodePack(body []byte) (*pack, error) {
	c := cursor{b: body}
	p := &pack{first: c.u64(), before: c.hash()}
	for len(c.b) > 0 {
		p.entries = append(p.entries, packEntry{c.hash(), c.take(uint64(c.u32()))})
	}
	if c.short {
		return nil, errShort
	}
	if len(p.entries) == 0 || p.first == 0 || p.first+uint64(len(p.entries)) < p.first {
		return nil, errors.New("impossible numbers")
	}
	return p, nil
}

func (b *branch) readPack(ctx context.Context, number uint64) (*pack, error) {
	name := packName(b, number)
	env, err := b.v.readSealed(ctx, name, envelope.Pack, b.key)
	if err != nil {
		return nil, err
	}
	if env.Number != number || env.Server != string(b.server) || env.Branch != b.name {
		return nil, &CorruptError{Object: name, Reason: "swapped with another pack"}
	}
	p, err := decodePack(env.Body)
	if err == nil && (p.first+uint64(len(p.entries))-1 != number || p.entries[len(p.entries)-1].hash != env.Link) {
		err = errors.New("it ends elsewhere")
	}
	if err != nil {
		return nil, &CorruptError{Object: name, Offset: envelope.HeaderSize, Reason: err.Error()}
	}
	return p, nil
}

// replayPacks applies what packs tell of the manifests after st, up to last. It stops
// where there is no good pack, and never fails for want of one.
func (r *listing) replayPacks(ctx context.Context, st *state, last uint64) (*state, error) {
	b := r.b
	i, _ := slices.BinarySearch(r.packs, st.number+1)
	numbers := r.packs[i:]
	for len(numbers) > 0 && numbers[len(numbers)-1] > last {
		numbers = numbers[:len(numbers)-1]
	}
	const batch = 16
	for len(numbers) > 0 {
		n := min(batch, len(numbers))
		packs, errs := make([]*pack, n), make([]error, n)
		var g errgroup.Group
		g.SetLimit(b.v.distance.manifests)
		for i := range n {
			g.Go(func() error {
				packs[i], errs[i] = b.readPack(ctx, numbers[i])
				return nil
			})
		}
		_ = g.Wait() // each has its own error
		for i, p := range packs {
			switch {
			case damaged(errs[i]):
				b.v.log.Warn("pack is of no use, reading the manifests", "err", errs[i])
				b.discardPack(ctx, numbers[i])
				return st, nil
			case errors.Is(errs[i], blob.ErrAbsent), errors.Is(errs[i], ErrNewerFormat):
				return st, nil
			case errs[i] != nil:
				return st, errs[i]
			}
			if !p.follows(st) {
				return st, nil
			}
			last, err := b.readManifest(ctx, numbers[i])
			if err != nil || last.Hash != p.entries[len(p.entries)-1].hash {
				return st, nil //nolint:nilerr // what is wrong shows when the manifests are read
			}
			if st, err = b.applyPack(p, st); err != nil {
				return st, err
			}
			st.salt = last.Salt
		}
		numbers = numbers[n:]
	}
	return st, nil
}

// follows tells whether the pack goes on where st is.
func (p *pack) follows(st *state) bool {
	if st.number+1 < p.first || st.number >= p.first+uint64(len(p.entries)) {
		return false
	}
	before := p.before
	if i := st.number + 1 - p.first; i > 0 {
		before = p.entries[i-1].hash
	}
	return before == st.hash
}

func (b *branch) applyPack(p *pack, st *state) (*state, error) {
	for _, e := range p.entries[st.number+1-p.first:] {
		next, err := b.applyBody(manifestName(b.server, b.name, st.number+1), st, e.hash, [32]byte{}, e.body)
		if err != nil {
			return st, err
		}
		st = next
	}
	return st, nil
}

// discardPack deletes a damaged pack: it would keep a good one from being written.
func (b *branch) discardPack(ctx context.Context, number uint64) {
	if b.v.readOnly {
		return
	}
	if err := b.v.store.Delete(ctx, packName(b, number)); err != nil && !errors.Is(err, blob.ErrAbsent) {
		b.v.log.Warn("delete damaged pack", "err", err)
	}
}

// makePacks has the packs made that could have helped to read st.
func (r *listing) makePacks(st *state) {
	n := r.b.v.limits.pack
	for end := max(st.restated.checkpoint, r.first())/n*n + n; end <= st.number; end += n {
		if _, there := slices.BinarySearch(r.packs, end); !there && r.missing(end-n+1, end) == 0 {
			r.b.packed(end)
		}
	}
}
