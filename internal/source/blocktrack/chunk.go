package blocktrack

import (
	"bytes"
	"math/bits"
)

// Blocks is a set of blocks of a chunk: bit i stands for block i.
type Blocks uint16

func blockRun(from, to int) Blocks { return Blocks((1<<to - 1) &^ (1<<from - 1)) }

// Len is the number of blocks.
func (b Blocks) Len() int { return bits.OnesCount16(uint16(b)) }

// Runs calls f for each run of blocks, in order, until it returns false.
func (b Blocks) Runs(f func(first, count int) bool) {
	for at := 0; at < chunkBlocks; {
		at += bits.TrailingZeros16(uint16(b >> at))
		if at >= chunkBlocks {
			return
		}
		n := bits.TrailingZeros16(^uint16(b >> at))
		if !f(at, n) {
			return
		}
		at += n
	}
}

// Chunk is a chunk of which blocks differ from the table.
type Chunk struct {
	Index int64
	Zero  Blocks // those that became zeros
	Data  Blocks // those with other content
	// Raw is the content of the blocks of Data, one after the other. It is valid
	// only until emit returns.
	Raw []byte
	// Digest is that of the whole chunk, when Data is all of it; else Digest{}.
	Digest Digest
	// Entry is what the table holds once the vault has these blocks.
	Entry Entry
}

// Bytes is the length of all blocks that differ.
func (c *Chunk) Bytes() int64 { return int64(c.Zero.Len()+c.Data.Len()) * blockSize }

// compare finds out which of the blocks that were read differ. raw is the chunk's
// place in memory, of which only those blocks count. It returns false when none
// differs. What it learns of a chunk that does not differ the table keeps.
func (t *Table) compare(i int64, e Entry, read Blocks, raw []byte) (Chunk, bool) {
	all := blockRun(0, t.blocks(i))
	c := Chunk{Index: i}
	was, whole := e.plain(t.zero), e.zeros()
	if d, ok := e.opaque(); ok {
		// All of it was read: what the plan sees to.
		if c.Digest = t.digest(raw); c.Digest == d {
			t.learn(i, t.sums(all, raw).canonical(t.zero))
			return c, false
		}
		was, whole = Entry{}, true
	}
	c.Entry = was
	for b := range chunkBlocks {
		if read&(1<<b) == 0 {
			if was[b] == 0 {
				c.Entry[b] = t.zero // past the disk's end
			}
			continue
		}
		block := raw[b*blockSize : (b+1)*blockSize]
		sum := t.zero
		if !bytes.Equal(block, zeros[:blockSize]) {
			sum = t.head.sum(block)
		}
		c.Entry[b] = sum
		switch sum {
		case was[b]:
		case t.zero:
			c.Zero |= 1 << b
		default:
			c.Data |= 1 << b
		}
	}
	if c.Zero|c.Data == 0 {
		return c, false
	}
	c.Entry = c.Entry.canonical(t.zero)
	switch {
	case c.Entry.zeros():
		c.Zero, c.Data = all, 0
	case read == all && (whole || c.Data == all):
		// Of a chunk that the vault has nothing of, all is one piece with a digest:
		// the zeros within weigh nothing once packed.
		c.Zero, c.Data = 0, all
	}
	if c.Data == all && c.Digest == (Digest{}) {
		c.Digest = t.digest(raw)
	} else if c.Data != all {
		c.Digest = Digest{}
	}
	return c, true
}

func (t *Table) sums(blocks Blocks, raw []byte) (e Entry) {
	for b := range chunkBlocks {
		if e[b] = t.zero; blocks&(1<<b) != 0 {
			e[b] = t.head.sum(raw[b*blockSize : (b+1)*blockSize])
		}
	}
	return e
}

// gather moves the blocks of Data to the front of the chunk's place in memory.
func (c *Chunk) gather(raw []byte) {
	n := 0
	c.Data.Runs(func(first, count int) bool {
		n += copy(raw[n:], raw[first*blockSize:(first+count)*blockSize])
		return true
	})
	c.Raw = raw[:n]
}

// Each calls f for each run of bytes of the disk that differs, with its new content;
// nil stands for zeros.
func (c *Chunk) Each(f func(r Range, content []byte)) {
	raw := c.Raw
	run := func(first, count int) Range {
		return Range{c.Index*ChunkSize + int64(first)*blockSize, int64(count) * blockSize}
	}
	c.Zero.Runs(func(first, count int) bool { f(run(first, count), nil); return true })
	c.Data.Runs(func(first, count int) bool {
		r := run(first, count)
		f(r, raw[:r.Length])
		raw = raw[r.Length:]
		return true
	})
}
