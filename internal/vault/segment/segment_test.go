package segment_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/klauspost/compress/s2"

	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/extent"
	"lifeboat/internal/vault/seal"
	"lifeboat/internal/vault/segment"
)

func header(c seal.Cipher) segment.Header {
	h := segment.Header{Cipher: c, FrameBlocks: segment.FrameBlocks, Sequence: 7, Server: "s-0123456789abcdef0", Branch: "main"}
	for i := range h.ID {
		h.ID[i] = byte(i)
	}
	for i := range h.Salt {
		h.Salt[i] = byte(0xa0 + i)
	}
	return h
}

func testKey() (k seal.Key) {
	for i := range k {
		k[i] = byte(i)
	}
	return k
}

func build(c seal.Cipher) segment.Sealed {
	b := segment.NewBuilder(header(c), testKey(), nil)
	two := bytes.Repeat([]byte("lifeboat"), 2*segment.BlockSize/8)
	b.Frame(1, []extent.Record{{Block: 8, Count: 1}, {Block: 3, Count: 1}}, segment.S2, len(two), s2.Encode(nil, two), [16]byte{1, 2, 3})
	b.Frame(2, []extent.Record{{Block: 0, Count: 1}}, segment.Raw, segment.BlockSize, two[:segment.BlockSize], [16]byte{})
	b.Zero(1, 3, 5)
	return b.Finish()
}

func TestRoundTrip(t *testing.T) {
	for _, c := range []seal.Cipher{seal.None, seal.AESGCM} {
		s := build(c)
		if err := segment.Verify("x", s.Bytes); err != nil {
			t.Fatal(err)
		}
		ix, err := segment.DecodeIndex("x", s.Bytes[s.IndexOffset:], s.IndexOffset, testKey())
		if err != nil {
			t.Fatal(err)
		}
		if ix.Header != header(c) {
			t.Errorf("header %+v", ix.Header)
		}
		if len(ix.Volumes) != 2 || len(ix.Volumes[0].Extents) != 2 || ix.Volumes[0].Extents[0] != (extent.Record{Block: 3, Count: 5, Pos: extent.ZeroPos}) ||
			ix.Volumes[1].Extents[0] != (extent.Record{Block: 0, Count: 1, Pos: 16}) {
			t.Errorf("volumes %+v", ix.Volumes)
		}
		for i, n := range []int{2, 1} {
			f := ix.Frames[i]
			raw, err := ix.Open(i, s.Bytes[f.Offset:f.End()])
			if err != nil || !bytes.Equal(raw, bytes.Repeat([]byte("lifeboat"), n*segment.BlockSize/8)) {
				t.Errorf("frame %d: %v, or it differs", i, err)
			}
		}
		if c == seal.None {
			continue
		}
		var corrupt *blob.CorruptError
		if _, err := segment.DecodeIndex("x", s.Bytes[s.IndexOffset:], s.IndexOffset, seal.Key{}); !errors.As(err, &corrupt) {
			t.Errorf("index with another key: got %v, want a CorruptError", err)
		}
		// A frame moved to another place, its checksum moved along, is not opened.
		f0, f1 := ix.Frames[0], ix.Frames[1]
		ix.Frames[0], ix.Frames[1] = f1, f0
		if _, err := ix.Open(0, s.Bytes[f1.Offset:f1.End()]); !errors.As(err, &corrupt) {
			t.Errorf("swapped frame: got %v, want a CorruptError", err)
		}
	}
}

func TestNewerVersionIsToldApart(t *testing.T) {
	s := build(seal.None)
	b := bytes.Clone(s.Bytes)
	b[8] = 2
	if err := segment.Verify("x", b); !errors.Is(err, blob.ErrNewerFormat) {
		t.Errorf("header of version 2: got %v", err)
	}
	b = bytes.Clone(s.Bytes)
	b[len(b)-208+8] = 2
	if _, err := segment.DecodeIndex("x", b[s.IndexOffset:], s.IndexOffset, testKey()); !errors.Is(err, blob.ErrNewerFormat) {
		t.Errorf("footer of version 2: got %v", err)
	}
}
