package cached

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"

	"github.com/zeebo/xxh3"
)

// key names a block of an object in all the world.
type key [16]byte

func keyOf(name string, block int64) key {
	h := sha256.New()
	h.Write(binary.LittleEndian.AppendUint64(nil, uint64(block)))
	h.Write([]byte(name))
	return key(h.Sum(nil)[:16])
}

func (k key) folder() string { return hex.EncodeToString(k[:1]) }
func (k key) file() string   { return hex.EncodeToString(k[1:]) }

// keyFrom reads the key of the names that folder and file make.
func keyFrom(folder, file string) (k key, ok bool) {
	b, err := hex.DecodeString(folder + file)
	if err != nil || len(folder) != 2 || len(b) != len(k) {
		return k, false
	}
	return key(b), true
}

// A block lies in a file of its own:
//
//	 0  8  magic "LBCACHE1", its last character the version
//	 8 16  key
//	24  4  length of the data in bytes, 1 to BlockSize
//	28  8  XXH3-64 of bytes 0 to 27 and the data, seeded with 0
//	36     the data
const (
	magic      = "LBCACHE1"
	headerSize = 36
)

var errDamaged = errors.New("damaged block")

// encode returns what is written for a block.
func encode(k key, data []byte) []byte {
	b := make([]byte, 0, headerSize+len(data))
	b = append(b, magic...)
	b = append(b, k[:]...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(data)))
	b = binary.LittleEndian.AppendUint64(b, sum(b[:28], data))
	return append(b, data...)
}

// decode returns the data of a block as it was encoded under that key.
func decode(k key, b []byte) ([]byte, error) {
	if len(b) <= headerSize || len(b) > headerSize+BlockSize || string(b[:8]) != magic || key(b[8:24]) != k ||
		int(binary.LittleEndian.Uint32(b[24:])) != len(b)-headerSize {
		return nil, errDamaged
	}
	data := b[headerSize:]
	if binary.LittleEndian.Uint64(b[28:]) != sum(b[:28], data) {
		return nil, errDamaged
	}
	return data, nil
}

func sum(header, data []byte) uint64 {
	h := xxh3.New()
	_, _ = h.Write(header) // it never fails
	_, _ = h.Write(data)
	return h.Sum64()
}
