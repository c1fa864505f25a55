package segment

import (
	"fmt"
	"hash/crc32"
	"slices"
	"sync"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"lifeboat/internal/vault/blob"
)

// zstdDecoder only ever decodes into given room and is safe for concurrent use.
var zstdDecoder = sync.OnceValue(func() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecodeAllCapLimit(true), zstd.IgnoreChecksum(true), // ours covers more
		zstd.WithDecoderMaxMemory(64<<20), zstd.WithDecoderLowmem(true))
	if err != nil {
		panic(err) // the options are constant
	}
	return d
})

var zstdEncoder = sync.OnceValue(func() *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false))
	if err != nil {
		panic(err) // the options are constant
	}
	return e
})

// Compress returns the payload for raw bytes, and its codec: Zstd where that is
// shorter, else the bytes themselves.
func Compress(raw []byte) (Codec, []byte) {
	if packed := zstdEncoder().EncodeAll(raw, make([]byte, 0, len(raw))); len(packed) < len(raw) {
		return Zstd, packed
	}
	return Raw, raw
}

// Payload checks and opens frame i, given its stored bytes, and returns what
// was sealed, compressed as it is: another builder may take it over.
func (ix *Index) Payload(i int, stored []byte) ([]byte, error) {
	f := ix.Frames[i]
	corrupt := func(reason string) error {
		return &blob.CorruptError{Object: ix.object, Offset: f.Offset, Reason: fmt.Sprintf("frame %d: %s", i, reason)}
	}
	if len(stored) != int(f.Stored) || crc32.Checksum(stored, castagnoli) != f.CRC {
		return nil, corrupt("checksum differs")
	}
	context := frameContext(ix.Header.ID, uint32(i))
	payload, err := ix.box.Open(make([]byte, 0, len(stored)), uint32(i), stored, context[:])
	if err != nil {
		return nil, corrupt(err.Error())
	}
	return payload, nil
}

// Open checks, opens and decompresses frame i, given its stored bytes, and
// returns its raw bytes, which are the caller's.
func (ix *Index) Open(i int, stored []byte) ([]byte, error) {
	return ix.OpenInto(make([]byte, 0, ix.Frames[i].Raw), i, slices.Clone(stored))
}

// OpenInto is Open for those who open many: the raw bytes are written to the room
// of raw, which must be empty and have room for them, and what stored holds is
// lost, since it is opened in its place.
func (ix *Index) OpenInto(raw []byte, i int, stored []byte) ([]byte, error) {
	f := ix.Frames[i]
	corrupt := func(reason string) error {
		return &blob.CorruptError{Object: ix.object, Offset: f.Offset, Reason: fmt.Sprintf("frame %d: %s", i, reason)}
	}
	if len(stored) != int(f.Stored) || crc32.Checksum(stored, castagnoli) != f.CRC {
		return nil, corrupt("checksum differs")
	}
	raw = raw[:0:f.Raw] // nothing decompresses to more
	context := frameContext(ix.Header.ID, uint32(i))
	if f.Codec == Raw {
		raw, err := ix.box.Open(raw, uint32(i), stored, context[:])
		if err != nil {
			return nil, corrupt(err.Error())
		}
		if len(raw) != int(f.Raw) {
			return nil, corrupt("length differs")
		}
		return raw, nil
	}
	payload, err := ix.box.Open(stored[:0], uint32(i), stored, context[:])
	if err != nil {
		return nil, corrupt(err.Error())
	}
	switch f.Codec {
	case Zstd:
		raw, err = zstdDecoder().DecodeAll(payload, raw)
	case S2:
		n, e := s2.DecodedLen(payload)
		if e == nil && n != int(f.Raw) {
			return nil, corrupt("length differs")
		}
		if err = e; err == nil {
			raw, err = s2.Decode(raw[:f.Raw], payload)
		}
	default:
		return nil, corrupt("unknown codec")
	}
	if err != nil {
		return nil, corrupt("does not decompress: " + err.Error())
	}
	if len(raw) != int(f.Raw) {
		return nil, corrupt("length differs")
	}
	return raw, nil
}

// Verify checks every byte of a whole segment without a key.
func Verify(object string, b []byte) error {
	h, err := decodeHeader(object, b, 0)
	if err != nil {
		return err
	}
	base, err := IndexOffset(object, b)
	if err != nil {
		return err
	}
	p, err := decodePlain(object, b[base:], base)
	if err != nil {
		return err
	}
	if p.header != h {
		return &blob.CorruptError{Object: object, Reason: "header and footer differ"}
	}
	for i, f := range p.frames {
		if crc32.Checksum(b[f.Offset:f.End()], castagnoli) != f.CRC {
			return &blob.CorruptError{Object: object, Offset: f.Offset, Reason: fmt.Sprintf("frame %d: checksum differs", i)}
		}
	}
	return nil
}

// IndexOffset tells where the index of a whole segment begins.
func IndexOffset(object string, b []byte) (int64, error) {
	if len(b) < headerSize+footerSize {
		return 0, &blob.CorruptError{Object: object, Reason: "too short for a segment"}
	}
	at := len(b) - footerSize
	offset := le64(b[at+168:])
	if offset < headerSize || offset > uint64(at) {
		return 0, &blob.CorruptError{Object: object, Offset: int64(at) + 168, Reason: "impossible index offset"}
	}
	return int64(offset), nil
}
