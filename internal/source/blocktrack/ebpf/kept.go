package ebpf

import (
	"sync/atomic"

	"lifeboat/internal/source/blocktrack"
)

// kept is what Swap has handed out of a whole disk since the last Settle, in memory
// of the kernel: should the agent end before it has dealt with it, its successor
// finds it here. A bit stands for 64 KiB, in which disks are compared anyway: 2 MiB
// per TiB of disk.
type kept struct {
	all   *uint32 // not 0: the disk as a whole
	words []uint64
}

const keptShift = 16

func keptWords(size int64) int64 { return (size>>keptShift + 64) / 64 }

func (k kept) addAll() { atomic.StoreUint32(k.all, 1) }

func (k kept) add(ranges []blocktrack.Range) {
	for _, r := range ranges {
		last := min((r.Offset+r.Length-1)>>keptShift, int64(len(k.words))*64-1)
		for bit := r.Offset >> keptShift; bit <= last; bit++ {
			k.words[bit/64] |= 1 << (bit % 64)
		}
	}
}

// changes returns what is kept.
func (k kept) changes() blocktrack.Changes {
	if atomic.LoadUint32(k.all) != 0 {
		return blocktrack.Changes{All: true, Why: "the agent before this one had not read all of it"}
	}
	var out runs
	for i, word := range k.words {
		if word != 0 {
			out.word(int64(i)*64, word, keptShift)
		}
	}
	return blocktrack.Changes{Ranges: out.list}
}

func (k kept) forget() {
	wipe(k.words)
	atomic.StoreUint32(k.all, 0)
}
