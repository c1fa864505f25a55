package vault

import (
	"fmt"

	"github.com/zeebo/xxh3"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault/segment"
)

const (
	// BlockSize is the grain of all addresses, in bytes.
	BlockSize = segment.BlockSize
	// FrameBlocks is the most blocks a frame may hold.
	FrameBlocks = segment.FrameBlocks
	// MaxPayload is the longest payload a frame may have, in bytes.
	MaxPayload = segment.MaxPayload
	// ChunkSize is the grain of content digests, in bytes: FrameBlocks blocks.
	ChunkSize = FrameBlocks * BlockSize
	// MainBranch is the branch that the source server itself writes.
	MainBranch = "main"
)

// VolumeID names a volume within one server. The caller chooses it and never
// uses it again for another disk.
type VolumeID uint32

// Volume is the vault's replica of one disk.
type Volume struct {
	ID     VolumeID
	Device string // as the source names it, e.g. /dev/sda; at most 1024 bytes
	Size   int64  // in bytes; need not be a multiple of BlockSize
	// Identity tells the disk from others, whatever it is called; at most 256 bytes.
	// Empty: not known.
	Identity string
	// Apart: no point holds the volume, from the epoch on that says so until one that
	// says otherwise. Points of before keep what they hold.
	Apart Apart
}

// Apart is how a volume stands beside the points of its branch.
type Apart uint8

const (
	// Within: every point holds it.
	Within Apart = iota
	// SetAside: points do not hold it, the branch does. So is a disk that is on its way
	// into the vault, and one that the machine has lost.
	SetAside
	// Emptied: nothing holds it any more; its content is zeros. The number of the volume is
	// not used again.
	Emptied
)

func (a Apart) String() string {
	switch a {
	case Within:
		return "within"
	case SetAside:
		return "set aside"
	case Emptied:
		return "emptied"
	}
	return fmt.Sprintf("apart(%d)", uint8(a))
}

// Blocks returns the number of blocks, the last of which may be partial.
func (v Volume) Blocks() uint64 { return uint64(v.Size+BlockSize-1) / BlockSize }

// Chunks returns the number of chunks of ChunkSize, the last of which may be shorter.
func (v Volume) Chunks() uint64 { return uint64(v.Size+ChunkSize-1) / ChunkSize }

// Extent is a run of Count blocks beginning at Block.
type Extent struct {
	Block uint64
	Count uint32
}

// Codec says how a frame's payload is compressed.
type Codec = segment.Codec

const (
	CodecRaw  = segment.Raw  // as it is
	CodecZstd = segment.Zstd // one Zstandard frame
	CodecS2   = segment.S2   // one S2 block (not a stream)
)

// Frame is a run of at most FrameBlocks blocks on its way into the vault. The
// vault stores the payload as it comes and decodes it only when it is read.
type Frame struct {
	Volume VolumeID
	// Extents say which blocks the raw bytes are, in order. Their counts add up
	// to RawLen / BlockSize, at most FrameBlocks.
	Extents []Extent
	Codec   Codec
	RawLen  int // bytes before compression, a multiple of BlockSize
	Payload []byte
	// Digest is ChunkDigest of the raw bytes, or zero when not known. It is
	// of use only where the frame is exactly one chunk of the volume.
	Digest [16]byte
}

// Head is the newest state of a branch. What the vault does for its upkeep, such as
// folding, does not show in it.
type Head struct {
	Number    uint64   // of the last manifest that a writer made; the first is 1
	Hash      [32]byte // of that manifest
	Volumes   []Volume // sorted by ID
	LastPoint *drs.RecoveryPoint
	// Unheld are the volumes set aside that no kept point holds.
	Unheld     []VolumeID
	DigestSeed uint64 // for ChunkDigest, fixed for the life of the server
}

// ChunkDigest is the content digest of a chunk: XXH3, 128 bits, big-endian,
// with the server's seed. The last chunk of a volume is shorter, and its
// last block is padded with zeros to BlockSize.
func ChunkDigest(seed uint64, chunk []byte) [16]byte {
	return xxh3.Hash128Seed(chunk, seed).Bytes()
}
