package segment

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"

	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/extent"
	"lifeboat/internal/vault/seal"
)

func seedSegment(c seal.Cipher) Sealed {
	b := NewBuilder(Header{Cipher: c, FrameBlocks: FrameBlocks, Sequence: 1, Server: "s-0", Branch: "main"}, seal.Key{}, nil)
	b.Frame(1, []extent.Record{{Block: 5, Count: 2}}, S2, 2*BlockSize, []byte{0x80, 0x40, 0, 0}, [16]byte{9})
	b.Frame(1, []extent.Record{{Block: 7, Count: 1}}, Raw, BlockSize, make([]byte, BlockSize), [16]byte{})
	b.Zero(2, 1, 9)
	return b.Finish()
}

// checkIndex reads all an index leads to, and checks what readers rely on.
func checkIndex(t *testing.T, ix *Index, segment []byte) {
	for _, v := range ix.Volumes {
		if !extent.Sorted(v.Extents) {
			t.Fatalf("extents out of order: %v", v.Extents)
		}
		for _, r := range v.Extents {
			for pos := r.Pos; !r.Zero() && pos-r.Pos < r.Count; pos++ {
				if frame, off := ix.Place(pos); frame >= len(ix.Frames) || off+BlockSize > int(ix.Frames[frame].Raw) {
					t.Fatalf("position %d lies in no frame", pos)
				}
			}
		}
	}
	for i, f := range ix.Frames {
		if f.Offset < 0 || f.End() > int64(len(segment)) {
			t.Fatalf("frame %d lies outside of the segment", i)
		}
		raw, err := ix.Open(i, segment[f.Offset:f.End()])
		if err == nil && len(raw) != int(f.Raw) {
			t.Fatalf("frame %d has %d bytes, want %d", i, len(raw), f.Raw)
		}
		wantKind(t, err)
	}
}

func wantKind(t *testing.T, err error) {
	var corrupt *blob.CorruptError
	if err != nil && !errors.As(err, &corrupt) && !errors.Is(err, blob.ErrNewerFormat) {
		t.Fatalf("%v: want a CorruptError", err)
	}
}

func FuzzSegment(f *testing.F) {
	for _, c := range []seal.Cipher{seal.None, seal.AESGCM} {
		f.Add(seedSegment(c).Bytes)
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		wantKind(t, Verify("x", b))
		base, err := IndexOffset("x", b)
		if err != nil {
			return
		}
		ix, err := DecodeIndex("x", b[base:], base, seal.Key{})
		if err != nil {
			wantKind(t, err)
			return
		}
		checkIndex(t, ix, b)
	})
}

// FuzzIndex puts right checksums over arbitrary contents, to get past them.
func FuzzIndex(f *testing.F) {
	s := seedSegment(seal.None)
	at := len(s.Bytes) - footerSize
	plain := binary.LittleEndian.Uint32(s.Bytes[at+176:])
	f.Add(s.Bytes[:s.IndexOffset], s.Bytes[s.IndexOffset:][:plain], s.Bytes[int(s.IndexOffset)+int(plain):at])
	f.Fuzz(func(t *testing.T, frames, plain, private []byte) {
		b := append(append(append([]byte{}, frames...), plain...), private...)
		footer := make([]byte, footerSize)
		copy(footer, Header{FrameBlocks: FrameBlocks}.encode())
		binary.LittleEndian.PutUint64(footer[168:], uint64(len(frames)))
		binary.LittleEndian.PutUint32(footer[176:], uint32(len(plain)))
		binary.LittleEndian.PutUint32(footer[180:], uint32(len(private)))
		binary.LittleEndian.PutUint32(footer[184:], crc32.Checksum(b[len(frames):], castagnoli))
		copy(footer[192:], footerMagic)
		binary.LittleEndian.PutUint32(footer[204:], crc32.Checksum(footer[:204], castagnoli))
		b = append(b, footer...)
		ix, err := DecodeIndex("x", b[len(frames):], int64(len(frames)), seal.Key{})
		if err != nil {
			wantKind(t, err)
			return
		}
		checkIndex(t, ix, b)
	})
}

// FuzzFrame decompresses arbitrary payloads that have the right checksum.
func FuzzFrame(f *testing.F) {
	f.Add(uint8(S2), uint8(2), []byte{0x80, 0x40, 0, 0})
	f.Add(uint8(Zstd), uint8(16), []byte{0x28, 0xb5, 0x2f, 0xfd, 4, 0})
	f.Add(uint8(Raw), uint8(1), make([]byte, BlockSize))
	f.Fuzz(func(t *testing.T, codec, blocks uint8, payload []byte) {
		raw := uint32(blocks%FrameBlocks+1) * BlockSize
		ix := &Index{Frames: []Frame{{Stored: uint32(len(payload)), Raw: raw, Codec: Codec(codec), CRC: crc32.Checksum(payload, castagnoli)}}}
		got, err := ix.Open(0, payload)
		if err == nil && len(got) != int(raw) {
			t.Fatalf("%d bytes, want %d", len(got), raw)
		}
		wantKind(t, err)
	})
}
