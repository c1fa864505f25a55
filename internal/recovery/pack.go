package recovery

import (
	"iter"
	"slices"

	"github.com/klauspost/compress/s2"

	"lifeboat/internal/vault"
	"lifeboat/internal/vault/branchlog"
)

// appendRecords adds changes of a log to an epoch, in their order: blocks in
// frames of up to vault.FrameBlocks, small writes together.
func appendRecords(epoch *vault.Epoch, volume vault.VolumeID, records iter.Seq2[branchlog.Record, error]) error {
	p := &packer{epoch: epoch, volume: volume}
	for r, err := range records {
		if err != nil {
			return err
		}
		if r.Kind != branchlog.Data {
			if err := p.flush(); err != nil {
				return err
			}
			if err := epoch.Zero(volume, r.Block, r.Count); err != nil {
				return err
			}
			continue
		}
		if err := p.add(r.Block, r.Data); err != nil {
			return err
		}
	}
	return p.flush()
}

// packer gathers blocks for a frame.
type packer struct {
	epoch   *vault.Epoch
	volume  vault.VolumeID
	raw     []byte
	extents []vault.Extent
	packed  []byte // scratch
}

const frameBytes = vault.FrameBlocks * vault.BlockSize

// add takes blocks that follow each other on the disk.
func (p *packer) add(block uint64, data []byte) error {
	for len(data) > 0 {
		n := min(len(data), frameBytes-len(p.raw)) / vault.BlockSize
		x := vault.Extent{Block: block, Count: uint32(n)}
		// A frame holds a block once: which of two is the later one, it does not say.
		if n == 0 || slices.ContainsFunc(p.extents, func(y vault.Extent) bool { return overlap(x, y) }) {
			if err := p.flush(); err != nil {
				return err
			}
			continue
		}
		p.raw = append(p.raw, data[:n*vault.BlockSize]...)
		p.extents = append(p.extents, x)
		block, data = block+uint64(n), data[n*vault.BlockSize:]
	}
	return nil
}

func overlap(x, y vault.Extent) bool {
	return x.Block < y.Block+uint64(y.Count) && y.Block < x.Block+uint64(x.Count)
}

// flush appends what was gathered.
func (p *packer) flush() error {
	if len(p.raw) == 0 {
		return nil
	}
	f := vault.Frame{Volume: p.volume, Extents: p.extents, Codec: vault.CodecRaw, RawLen: len(p.raw), Payload: p.raw}
	if p.packed == nil {
		p.packed = make([]byte, s2.MaxEncodedLen(frameBytes))
	}
	if packed := s2.Encode(p.packed, p.raw); len(packed) < len(p.raw)-len(p.raw)/16 {
		f.Codec, f.Payload = vault.CodecS2, packed
	}
	err := p.epoch.Append(f)
	p.raw, p.extents = p.raw[:0], p.extents[:0]
	return err
}
