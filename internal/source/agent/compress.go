package agent

import (
	"fmt"
	"sync"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"lifeboat/internal/replication"
	"lifeboat/internal/source/blocktrack"
)

// compressor packs chunks. Safe for concurrent use. Why these codecs and this
// order of trying is decision 0020.
type compressor struct {
	zstd *zstd.Encoder
	// buffers hold packed chunks on their way to the connection.
	buffers sync.Pool
}

func newCompressor(workers int) (*compressor, error) {
	enc, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithEncoderConcurrency(workers),
		zstd.WithEncoderCRC(false), // frames carry checksums of their own
		zstd.WithSingleSegment(true),
		zstd.WithWindowSize(blocktrack.ChunkSize))
	if err != nil {
		return nil, fmt.Errorf("set up compression: %w", err)
	}
	size := max(s2.MaxEncodedLen(blocktrack.ChunkSize), blocktrack.ChunkSize+1024)
	return &compressor{
		zstd:    enc,
		buffers: sync.Pool{New: func() any { b := make([]byte, size); return &b }},
	}, nil
}

// worthwhile is the longest packed form that is better than the raw one.
func worthwhile(raw int) int { return raw - raw/16 }

// pack returns raw in its packed form, in a buffer to put back into buffers.
// fast trades size for processor time.
func (c *compressor) pack(raw []byte, fast bool) (codec uint8, packed []byte, buf *[]byte) {
	buf = c.buffers.Get().(*[]byte)
	if !looksRandom(raw) {
		if fast {
			codec, packed = replication.CodecS2, s2.Encode(*buf, raw)
		} else {
			codec, packed = replication.CodecZstd, c.zstd.EncodeAll(raw, (*buf)[:0])
		}
		if len(packed) <= worthwhile(len(raw)) {
			return codec, packed, buf
		}
	}
	return replication.CodecRaw, (*buf)[:copy(*buf, raw)], buf
}

// Samples of looksRandom: eight runs of 512 bytes over the chunk.
const (
	sampleRuns = 8
	sampleRun  = 512
)

// looksRandom guesses from a sample whether packing is a waste of time. In data
// without any pattern all byte values are equally common: then the sum of the
// squares of their counts is near n*n/256 + n, and far above it otherwise.
func looksRandom(raw []byte) bool {
	step := len(raw) / sampleRuns
	if step < sampleRun {
		return false
	}
	var counts [256]uint32
	for off := 0; off+sampleRun <= len(raw); off += step {
		for _, b := range raw[off : off+sampleRun] {
			counts[b]++
		}
	}
	const n = sampleRuns * sampleRun
	const uniform = n*n/256 + n
	sum := uint32(0)
	for _, c := range counts {
		sum += c * c
	}
	return sum < uniform+uniform/8
}
