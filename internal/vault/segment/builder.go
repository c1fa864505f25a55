package segment

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"

	"lifeboat/internal/vault/extent"
	"lifeboat/internal/vault/seal"
)

// Builder makes one segment in memory. Not safe for concurrent use.
type Builder struct {
	header  Header
	box     seal.Box
	buf     []byte
	table   []byte // the frame table, entry by entry
	digests [][16]byte
	digest  bool // any digest is known
	volumes map[uint32]*volumeLog
	extents int
	blocks  int // in the frames
	zeros   int // runs of zeros, as they were added
}

type volumeLog struct {
	log    []extent.Record
	sorted bool
}

// NewBuilder starts a segment in buf, whose capacity it uses. The caller sees
// to it that h.Salt and h.ID are never used for another segment.
func NewBuilder(h Header, key seal.Key, buf []byte) *Builder {
	return &Builder{
		header:  h,
		box:     h.Cipher.Box(key, h.Salt, purpose),
		buf:     append(buf[:0], h.encode()...),
		volumes: map[uint32]*volumeLog{},
	}
}

// Frame adds one frame: payload holds the blocks of runs, in order, under codec.
// Runs use Block and Count only. The payload may be reused after return.
//
// Later frames hide earlier ones. The caller has checked all limits.
func (b *Builder) Frame(volume uint32, runs []extent.Record, codec Codec, rawLen int, payload []byte, digest [16]byte) {
	ordinal := uint32(len(b.digests))
	begin := len(b.buf)
	context := frameContext(b.header.ID, ordinal)
	b.buf = b.box.Seal(b.buf, ordinal, payload, context[:])
	stored := b.buf[begin:]

	var e [entrySize]byte
	binary.LittleEndian.PutUint32(e[0:], uint32(len(stored)))
	binary.LittleEndian.PutUint32(e[4:], uint32(rawLen)|uint32(codec)<<24)
	binary.LittleEndian.PutUint32(e[8:], crc32.Checksum(stored, castagnoli))
	b.table = append(b.table, e[:]...)
	b.digests = append(b.digests, digest)
	b.digest = b.digest || digest != [16]byte{}
	b.blocks += rawLen / BlockSize

	pos := ordinal * uint32(b.header.FrameBlocks)
	for _, r := range runs {
		b.add(volume, extent.Record{Block: r.Block, Count: r.Count, Pos: pos})
		pos += r.Count
	}
}

// Zero records that blocks became zeros.
func (b *Builder) Zero(volume uint32, block uint64, count uint32) {
	b.zeros++
	b.add(volume, extent.Record{Block: block, Count: count, Pos: extent.ZeroPos})
}

func (b *Builder) add(volume uint32, r extent.Record) {
	v := b.volumes[volume]
	if v == nil {
		v = &volumeLog{sorted: true}
		b.volumes[volume] = v
	}
	n := len(v.log)
	if n > 0 && r.Block < v.log[n-1].End() {
		v.sorted = false
	}
	v.log = extent.Append(v.log, r)
	b.extents += len(v.log) - n
}

// Room returns how many bytes of frames fit before the buffer must grow.
func (b *Builder) Room() int { return cap(b.buf) - len(b.buf) }

// Move continues in a larger buffer and returns the old one.
func (b *Builder) Move(buf []byte) (old []byte) {
	old = b.buf
	b.buf = append(buf[:0], old...)
	return old
}

// Size returns the bytes of the finished segment, or a little more.
func (b *Builder) Size() int {
	return len(b.buf) + len(b.table) + 16*len(b.digests) + recordSize*b.extents + 8*len(b.volumes) + 64 + footerSize
}

// Empty tells whether nothing was added.
func (b *Builder) Empty() bool { return len(b.volumes) == 0 }

// Frames and Extents are what a segment's owner limits besides its size.
func (b *Builder) Frames() int  { return len(b.digests) }
func (b *Builder) Extents() int { return b.extents }

// Sealed is a finished segment.
type Sealed struct {
	Header      Header
	Bytes       []byte
	IndexOffset int64    // where the index begins
	IndexSum    [32]byte // SHA-256 of everything from there on
	Blocks      int      // in the frames, whether extents still point at them or not
	Zeros       int      // runs of zeros that were added
}

// Finish adds index and footer. The builder is done after it; Bytes is its buffer.
func (b *Builder) Finish() Sealed {
	header := b.header.encode()
	indexOffset := len(b.buf)

	plain := binary.LittleEndian.AppendUint32(make([]byte, 0, 4+len(b.table)), uint32(len(b.digests)))
	plain = append(plain, b.table...)
	b.buf = append(b.buf, plain...)
	b.buf = b.box.Seal(b.buf, indexNumber, b.private(), slices.Concat(header, plain))
	index := b.buf[indexOffset:]

	f := make([]byte, footerSize)
	copy(f, header)
	binary.LittleEndian.PutUint64(f[168:], uint64(indexOffset))
	binary.LittleEndian.PutUint32(f[176:], uint32(len(plain)))
	binary.LittleEndian.PutUint32(f[180:], uint32(len(index)-len(plain)))
	binary.LittleEndian.PutUint32(f[184:], crc32.Checksum(index, castagnoli))
	copy(f[192:], footerMagic)
	binary.LittleEndian.PutUint32(f[204:], crc32.Checksum(f[:204], castagnoli))
	b.buf = append(b.buf, f...)
	return Sealed{Header: b.header, Bytes: b.buf, IndexOffset: int64(indexOffset), IndexSum: sha256.Sum256(b.buf[indexOffset:]),
		Blocks: b.blocks, Zeros: b.zeros}
}

// private encodes what only the owner of the key may see: which blocks changed,
// and what they hash to.
func (b *Builder) private() []byte {
	ids := make([]uint32, 0, len(b.volumes))
	for id := range b.volumes {
		ids = append(ids, id)
	}
	slices.Sort(ids)

	out := make([]byte, 0, 8+8*len(ids)+recordSize*b.extents+16*len(b.digests))
	flags := uint32(0)
	if b.digest {
		flags = flagDigests
	}
	out = binary.LittleEndian.AppendUint32(out, flags)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(ids)))
	for _, id := range ids {
		v := b.volumes[id]
		m := v.log
		if !v.sorted {
			m = extent.Resolve(v.log)
		}
		out = binary.LittleEndian.AppendUint32(out, id)
		out = binary.LittleEndian.AppendUint32(out, uint32(len(m)))
		for _, r := range m {
			out = binary.LittleEndian.AppendUint64(out, r.Block)
			out = binary.LittleEndian.AppendUint32(out, r.Count)
			out = binary.LittleEndian.AppendUint32(out, r.Pos)
		}
	}
	if b.digest {
		for _, d := range b.digests {
			out = append(out, d[:]...)
		}
	}
	return out
}

const flagDigests = 1

// CheckFrame returns an error when a frame from outside breaks a limit of the
// format. Blocks is the size of the volume.
func CheckFrame(runs []extent.Record, codec Codec, rawLen, payload int, blocks uint64) error {
	if rawLen <= 0 || rawLen%BlockSize != 0 || rawLen > FrameBlocks*BlockSize {
		return fmt.Errorf("raw length %d: want a multiple of %d up to %d", rawLen, BlockSize, FrameBlocks*BlockSize)
	}
	if codec > S2 {
		return fmt.Errorf("codec %d is not known", codec)
	}
	if payload <= 0 || payload > MaxPayload || codec == Raw && payload != rawLen {
		return fmt.Errorf("payload of %d bytes does not fit a raw length of %d", payload, rawLen)
	}
	left := uint64(rawLen / BlockSize)
	for _, r := range runs {
		if r.Count == 0 || uint64(r.Count) > left {
			return fmt.Errorf("extent of %d blocks where %d are left of the frame", r.Count, left)
		}
		if r.Block >= blocks || uint64(r.Count) > blocks-r.Block {
			return fmt.Errorf("blocks %d+%d lie beyond the volume's %d", r.Block, r.Count, blocks)
		}
		left -= uint64(r.Count)
	}
	if left != 0 {
		return fmt.Errorf("%d blocks of the frame belong to no extent", left)
	}
	return nil
}
