// Package envelope is the common form of every small object of the vault: a
// header that says what it is, a sealed body, and a checksum over each. It does
// no I/O. The layout is described in docs/formats/vault-manifest.md.
package envelope

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"

	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/seal"
)

// Version is the newest format version this package reads, and the one it writes.
const Version = 1

const (
	// HeaderSize is the length of the header, in bytes.
	HeaderSize = 208
	// MaxBody bounds the stored body, in bytes.
	MaxBody = 1 << 30

	serverSize = 24
	nameSize   = 64
	crcSize    = 4
)

// Kind is the magic that begins an object, and what its key is derived for.
type Kind string

const (
	Root       Kind = "LBVAULT\x00"
	ServerKey  Kind = "LBSRVKEY"
	Manifest   Kind = "LBMANIFS"
	Checkpoint Kind = "LBCHECKP"
	MapRun     Kind = "LBMAPRUN"
	Record     Kind = "LBRECORD"
	Owner      Kind = "LBOWNERS"
	Clock      Kind = "LBCLOCKS"
	Pack       Kind = "LBMPACKS"
	Trace      Kind = "LBTRACES"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Header is the plain part of an envelope. What a field means is up to the kind.
type Header struct {
	Kind     Kind
	Cipher   seal.Cipher
	Number   uint64
	Server   string   // at most 24 bytes
	Branch   string   // at most 64 bytes
	Link     [32]byte // hash of what the object follows or is derived from
	Salt     seal.Salt
	Attached uint64 // bytes that follow the envelope in the same object
}

// Envelope is a decoded object.
type Envelope struct {
	Header
	Body []byte // as it was before sealing
	// Length is the stored bytes of the envelope; attached bytes follow.
	Length int64
	// Hash is the SHA-256 of those bytes.
	Hash [32]byte
}

// Encode seals body under a fresh salt and returns the envelope's stored bytes
// and their SHA-256. It fails only when the body is larger than MaxBody.
func Encode(h Header, key seal.Key, body []byte) (stored []byte, hash [32]byte, err error) {
	return encode(h, key, seal.NewSalt(), body)
}

func encode(h Header, key seal.Key, salt seal.Salt, body []byte) ([]byte, [32]byte, error) {
	if len(h.Server) > serverSize || len(h.Branch) > nameSize || len(h.Kind) != 8 {
		return nil, [32]byte{}, fmt.Errorf("encode object of %q, branch %q: name too long", h.Server, h.Branch)
	}
	length := len(body) + h.Cipher.Overhead()
	if length > MaxBody {
		return nil, [32]byte{}, fmt.Errorf("encode object: body of %d bytes is larger than %d", len(body), MaxBody)
	}
	b := make([]byte, HeaderSize, HeaderSize+length+crcSize)
	copy(b, h.Kind)
	binary.LittleEndian.PutUint16(b[8:], Version)
	b[10] = byte(h.Cipher)
	binary.LittleEndian.PutUint64(b[16:], h.Number)
	copy(b[24:24+serverSize], h.Server)
	copy(b[48:48+nameSize], h.Branch)
	copy(b[112:], h.Link[:])
	copy(b[144:], salt[:])
	binary.LittleEndian.PutUint32(b[176:], uint32(length))
	binary.LittleEndian.PutUint64(b[184:], h.Attached)
	binary.LittleEndian.PutUint32(b[204:], crc32.Checksum(b[:204], castagnoli))
	b = h.Cipher.Box(key, salt, purpose(h.Kind)).Seal(b, 0, body, b[:HeaderSize:HeaderSize])
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[HeaderSize:], castagnoli))
	return b, sha256.Sum256(b), nil
}

// Size returns the stored length of an envelope with a body of n bytes.
func Size(c seal.Cipher, n int) int64 { return int64(HeaderSize + n + c.Overhead() + crcSize) }

func purpose(k Kind) string { return "lifeboat " + strings.TrimRight(string(k), "\x00") + " v1" }

// DecodeHeader reads the header of an object of the given kind, and returns
// how many bytes the whole envelope takes. Object is the name for errors.
func DecodeHeader(object string, kind Kind, b []byte) (h Header, length int64, err error) {
	corrupt := func(off int64, reason string) (Header, int64, error) {
		return Header{}, 0, &blob.CorruptError{Object: object, Offset: off, Reason: reason}
	}
	if len(b) < HeaderSize {
		return corrupt(int64(len(b)), "ends within its header")
	}
	if string(b[:8]) != string(kind) {
		return corrupt(0, "wrong magic: not such an object")
	}
	if v := binary.LittleEndian.Uint16(b[8:]); v > Version {
		return Header{}, 0, fmt.Errorf("%s, version %d: %w", object, v, blob.ErrNewerFormat)
	} else if v != Version {
		return corrupt(8, "no such format version")
	}
	if crc32.Checksum(b[:204], castagnoli) != binary.LittleEndian.Uint32(b[204:]) {
		return corrupt(0, "header checksum differs")
	}
	h = Header{
		Kind:     kind,
		Cipher:   seal.Cipher(b[10]),
		Number:   binary.LittleEndian.Uint64(b[16:]),
		Server:   string(bytes.TrimRight(b[24:24+serverSize], "\x00")),
		Branch:   string(bytes.TrimRight(b[48:48+nameSize], "\x00")),
		Link:     [32]byte(b[112:144]),
		Salt:     seal.Salt(b[144:176]),
		Attached: binary.LittleEndian.Uint64(b[184:]),
	}
	body := binary.LittleEndian.Uint32(b[176:])
	if !h.Cipher.Known() {
		return corrupt(10, "unknown cipher")
	}
	if body > MaxBody || int(body) < h.Cipher.Overhead() {
		return corrupt(176, "impossible length of the body")
	}
	return h, HeaderSize + int64(body) + crcSize, nil
}

// Check verifies, without a key, the envelope that begins b.
func Check(object string, kind Kind, b []byte) (Header, int64, error) {
	h, length, err := DecodeHeader(object, kind, b)
	if err != nil {
		return Header{}, 0, err
	}
	if int64(len(b)) < length {
		return Header{}, 0, &blob.CorruptError{Object: object, Offset: int64(len(b)), Reason: "ends within its body"}
	}
	end := length - crcSize
	if crc32.Checksum(b[HeaderSize:end], castagnoli) != binary.LittleEndian.Uint32(b[end:]) {
		return Header{}, 0, &blob.CorruptError{Object: object, Offset: HeaderSize, Reason: "body checksum differs"}
	}
	return h, length, nil
}

// Decode checks and opens the envelope that begins b.
func Decode(object string, kind Kind, b []byte, key seal.Key) (*Envelope, error) {
	h, length, err := Check(object, kind, b)
	if err != nil {
		return nil, err
	}
	body, err := h.Cipher.Box(key, h.Salt, purpose(kind)).Open(nil, 0, b[HeaderSize:length-crcSize], b[:HeaderSize])
	if err != nil {
		return nil, &blob.CorruptError{Object: object, Offset: HeaderSize, Reason: err.Error()}
	}
	return &Envelope{Header: h, Body: body, Length: length, Hash: sha256.Sum256(b[:length])}, nil
}
