package blocktrack

// ChunkSize is the grain in which disks are read, compared and sent, in bytes.
const ChunkSize = 64 << 10

const blockSize = 4096

// Digest is the content digest of a chunk.
type Digest [16]byte

// DigestFunc digests one chunk; the last chunk of a disk is shorter, and padded
// with zeros to a multiple of 4096 bytes.
type DigestFunc func(chunk []byte) Digest

// Table holds the digests of all chunks of one disk as the vault has it: 16
// bytes of memory for each 64 KiB. Different chunks may be read and set
// concurrently; Grow needs the Table alone.
type Table struct {
	size     int64
	digest   DigestFunc
	chunks   []Digest
	zero     Digest // of a whole chunk of zeros
	zeroLast Digest // of the last chunk, if that is zeros
}

// NewTable returns the table of a disk of the given size in bytes, all zeros.
func NewTable(size int64, digest DigestFunc) *Table {
	t := &Table{digest: digest, zero: digest(zeros[:])}
	t.Grow(size)
	return t
}

var zeros [ChunkSize]byte

// Grow adapts the table to a larger disk, whose new part is zeros in the vault.
// The chunk that used to be last may change its length and so its digest; it is
// forgotten, which makes the next pass send it again.
func (t *Table) Grow(size int64) {
	last := t.Len() - 1
	t.size = size
	for int64(len(t.chunks)) < (size+ChunkSize-1)/ChunkSize {
		t.chunks = append(t.chunks, t.zero)
	}
	t.zeroLast = t.zero
	if n := t.chunkLen(t.Len() - 1); n < ChunkSize {
		t.zeroLast = t.digest(zeros[:n])
	}
	if last >= 0 {
		t.chunks[last] = Digest{}
	}
	if t.Len()-1 > last {
		t.chunks[t.Len()-1] = t.zeroLast
	}
}

// Size is the disk's size in bytes.
func (t *Table) Size() int64 { return t.size }

// Len is the number of chunks.
func (t *Table) Len() int64 { return int64(len(t.chunks)) }

// At returns the digest of chunk i.
func (t *Table) At(i int64) Digest { return t.chunks[i] }

// Set replaces the digest of chunk i.
func (t *Table) Set(i int64, d Digest) { t.chunks[i] = d }

// ZeroAt is the digest that chunk i has when it is all zeros.
func (t *Table) ZeroAt(i int64) Digest {
	if i == t.Len()-1 {
		return t.zeroLast
	}
	return t.zero
}

// chunkLen is the length of chunk i in bytes, padded to whole blocks.
func (t *Table) chunkLen(i int64) int64 {
	n := min(t.size-i*ChunkSize, ChunkSize)
	return (n + blockSize - 1) / blockSize * blockSize
}
