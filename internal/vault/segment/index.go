package segment

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/extent"
	"lifeboat/internal/vault/seal"
)

// Frame says where a frame lies and what it must be.
type Frame struct {
	Offset int64 // in the segment
	Stored uint32
	Raw    uint32
	CRC    uint32 // CRC-32C of the stored bytes
	Codec  Codec
}

// End returns the offset after the frame.
func (f Frame) End() int64 { return f.Offset + int64(f.Stored) }

// Index tells everything about a segment but the contents of its blocks. It is
// immutable and safe for concurrent use.
type Index struct {
	Header  Header
	Frames  []Frame
	Volumes []Volume
	// Digests holds the content digest of each frame, zero where not known; nil
	// when none is known.
	Digests [][16]byte

	object string
	box    seal.Box
}

// DecodeIndex reads the index from the tail of a segment, that is all bytes
// from offset base on, where the index begins. Object is the name for errors.
func DecodeIndex(object string, tail []byte, base int64, key seal.Key) (*Index, error) {
	p, err := decodePlain(object, tail, base)
	if err != nil {
		return nil, err
	}
	ix := &Index{Header: p.header, Frames: p.frames, object: object}
	ix.box = p.header.Cipher.Box(key, p.header.Salt, purpose)
	context := append(p.header.encode(), p.plain...)
	private, err := ix.box.Open(nil, indexNumber, p.private, context)
	if err != nil {
		return nil, &blob.CorruptError{Object: object, Offset: base + int64(len(p.plain)), Reason: "index: " + err.Error()}
	}
	if err := ix.decodePrivate(private); err != nil {
		return nil, &blob.CorruptError{Object: object, Offset: base + int64(len(p.plain)), Reason: "index: " + err.Error()}
	}
	return ix, nil
}

// plainIndex is what can be known without a key.
type plainIndex struct {
	header         Header
	frames         []Frame
	plain, private []byte
}

func decodePlain(object string, tail []byte, base int64) (p plainIndex, err error) {
	corrupt := func(off int, reason string) (plainIndex, error) {
		return plainIndex{}, &blob.CorruptError{Object: object, Offset: base + int64(off), Reason: reason}
	}
	if len(tail) < footerSize+4 || len(tail) > MaxIndex {
		return corrupt(0, "impossible length of the index")
	}
	at := len(tail) - footerSize
	f := tail[at:]
	if string(f[192:200]) != footerMagic {
		return corrupt(at+192, "segment does not end in a footer: truncated or overwritten")
	}
	// A newer version is told before its checksum, which may be elsewhere.
	if p.header, err = decodeHeader(object, f, base+int64(at)); err != nil {
		return plainIndex{}, err
	}
	if crc32.Checksum(f[:204], castagnoli) != binary.LittleEndian.Uint32(f[204:]) {
		return corrupt(at, "footer checksum differs")
	}
	plainLen, privateLen := binary.LittleEndian.Uint32(f[176:]), binary.LittleEndian.Uint32(f[180:])
	if binary.LittleEndian.Uint64(f[168:]) != uint64(base) || uint64(plainLen)+uint64(privateLen) != uint64(at) || plainLen < 4 {
		return corrupt(at+168, "footer does not fit the index before it")
	}
	if crc32.Checksum(tail[:at], castagnoli) != binary.LittleEndian.Uint32(f[184:]) {
		return corrupt(0, "index checksum differs")
	}
	p.plain, p.private = tail[:plainLen], tail[plainLen:at]
	count := binary.LittleEndian.Uint32(p.plain)
	if count > maxFrames || uint64(len(p.plain)) != 4+uint64(count)*entrySize {
		return corrupt(0, "impossible number of frames")
	}
	p.frames = make([]Frame, count)
	offset := int64(headerSize)
	for i := range p.frames {
		e := p.plain[4+i*entrySize:]
		kind := binary.LittleEndian.Uint32(e[4:])
		fr := Frame{Offset: offset, Stored: binary.LittleEndian.Uint32(e), Raw: kind & 0xffffff,
			Codec: Codec(kind >> 24), CRC: binary.LittleEndian.Uint32(e[8:])}
		if fr.Raw == 0 || fr.Raw%BlockSize != 0 || int(fr.Raw) > p.header.FrameBlocks*BlockSize || fr.Codec > S2 ||
			fr.Stored > uint32(p.header.FrameBlocks*BlockSize+4096+p.header.Cipher.Overhead()) {
			return corrupt(4+i*entrySize, fmt.Sprintf("frame %d has impossible lengths or codec", i))
		}
		offset = fr.End()
		p.frames[i] = fr
	}
	if offset != base {
		return corrupt(0, "frames do not fill the segment")
	}
	return p, nil
}

func (ix *Index) decodePrivate(b []byte) error {
	if len(b) < 8 {
		return fmt.Errorf("too short")
	}
	flags, volumes := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
	b = b[8:]
	if flags&^flagDigests != 0 {
		return fmt.Errorf("unknown flags %#x", flags)
	}
	if uint64(volumes)*8 > uint64(len(b)) {
		return fmt.Errorf("impossible number of volumes")
	}
	ix.Volumes = make([]Volume, volumes)
	for i := range ix.Volumes {
		if len(b) < 8 {
			return fmt.Errorf("ends within volume %d", i)
		}
		v := &ix.Volumes[i]
		v.ID = binary.LittleEndian.Uint32(b)
		count := binary.LittleEndian.Uint32(b[4:])
		b = b[8:]
		if uint64(count)*recordSize > uint64(len(b)) {
			return fmt.Errorf("impossible number of extents")
		}
		if i > 0 && v.ID <= ix.Volumes[i-1].ID {
			return fmt.Errorf("volumes out of order")
		}
		v.Extents = make([]extent.Record, count)
		for j := range v.Extents {
			r := extent.Record{Block: binary.LittleEndian.Uint64(b), Count: binary.LittleEndian.Uint32(b[8:]), Pos: binary.LittleEndian.Uint32(b[12:])}
			b = b[recordSize:]
			if !ix.backed(r) {
				return fmt.Errorf("volume %d: blocks %d+%d lie in no frame", v.ID, r.Block, r.Count)
			}
			v.Extents[j] = r
		}
		if !extent.Sorted(v.Extents) {
			return fmt.Errorf("volume %d: extents out of order", v.ID)
		}
	}
	if flags&flagDigests != 0 {
		if len(b) != 16*len(ix.Frames) {
			return fmt.Errorf("impossible number of digests")
		}
		ix.Digests = make([][16]byte, len(ix.Frames))
		for i := range ix.Digests {
			ix.Digests[i] = [16]byte(b[16*i:])
		}
		b = nil
	}
	if len(b) != 0 {
		return fmt.Errorf("%d bytes too many", len(b))
	}
	return nil
}

// backed tells whether there is a stored block for each position of r.
func (ix *Index) backed(r extent.Record) bool {
	if r.Zero() || r.Count == 0 {
		return true // Sorted refuses empty records
	}
	size := uint64(ix.Header.FrameBlocks)
	end := uint64(r.Pos) + uint64(r.Count)
	if end > uint64(len(ix.Frames))*size {
		return false
	}
	for f := uint64(r.Pos) / size; f*size < end; f++ {
		if min(end-f*size, size)*BlockSize > uint64(ix.Frames[f].Raw) {
			return false
		}
	}
	return true
}

// Place returns the frame that holds a position, and where in its raw bytes.
func (ix *Index) Place(pos uint32) (frame int, offset int) {
	return int(pos) / ix.Header.FrameBlocks, int(pos) % ix.Header.FrameBlocks * BlockSize
}
