package blocktrack

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"os"

	"github.com/zeebo/xxh3"
)

// Origin is what a table is the table of. Another origin is another table.
type Origin struct {
	Server string // source server; at most 24 bytes
	Disk   string // what tells the disk from others, at most 1024 bytes
	Size   int64  // in bytes
	Seed   uint64 // of the vault's digests
}

// Head names the state of the vault's branch that a table is about.
type Head struct {
	Number uint64
	Hash   [32]byte
}

// The layout of a table file; docs/formats/agent-table.md has it in words.
const (
	tableMagic      = "LBTABLE\x00"
	tableVersion    = 1
	tableHeaderSize = 4096

	tableOpen   = 1
	tableSealed = 2
)

// tableHeader is the first 4096 bytes of a table file.
type tableHeader struct {
	state  uint8
	id     [16]byte // random; the first half seeds the sums of blocks
	boot   [16]byte // the kernel's boot ID when the table was last opened
	origin Origin
	head   Head
}

func (h *tableHeader) sum(block []byte) uint64 {
	return max(xxh3.HashSeed(block, binary.LittleEndian.Uint64(h.id[:])), 1) // 0 stands for no sum
}

var tableCRC = crc32.MakeTable(crc32.Castagnoli)

func (h *tableHeader) encode() []byte {
	b := make([]byte, 0, tableHeaderSize)
	b = append(b, tableMagic...)
	b = binary.LittleEndian.AppendUint16(b, tableVersion)
	b = append(b, h.state, 0, 0, 0, 0, 0)
	b = append(b, h.id[:]...)
	b = append(b, h.boot[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(h.origin.Size))
	b = binary.LittleEndian.AppendUint64(b, h.origin.Seed)
	b = binary.LittleEndian.AppendUint64(b, h.head.Number)
	b = append(b, h.head.Hash[:]...)
	var server [24]byte
	copy(server[:], h.origin.Server)
	b = append(b, server[:]...)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(h.origin.Disk)))
	b = append(b, h.origin.Disk...)
	b = b[:tableHeaderSize]
	binary.LittleEndian.PutUint32(b[tableHeaderSize-4:], crc32.Checksum(b[:tableHeaderSize-4], tableCRC))
	return b
}

var errTable = errors.New("not a table of digests that this agent can use")

func (h *tableHeader) decode(b []byte) error {
	switch {
	case len(b) != tableHeaderSize || string(b[:8]) != tableMagic:
		return fmt.Errorf("%w: no header", errTable)
	case crc32.Checksum(b[:tableHeaderSize-4], tableCRC) != binary.LittleEndian.Uint32(b[tableHeaderSize-4:]):
		return fmt.Errorf("%w: checksum of its header", errTable)
	case binary.LittleEndian.Uint16(b[8:]) != tableVersion:
		return fmt.Errorf("%w: version %d", errTable, binary.LittleEndian.Uint16(b[8:]))
	case b[10] != tableOpen && b[10] != tableSealed:
		return fmt.Errorf("%w: state %d", errTable, b[10])
	}
	h.state = b[10]
	copy(h.id[:], b[16:])
	copy(h.boot[:], b[32:])
	h.origin.Size = int64(binary.LittleEndian.Uint64(b[48:]))
	h.origin.Seed = binary.LittleEndian.Uint64(b[56:])
	h.head.Number = binary.LittleEndian.Uint64(b[64:])
	copy(h.head.Hash[:], b[72:])
	h.origin.Server = string(bytes.TrimRight(b[104:128], "\x00"))
	n := int(binary.LittleEndian.Uint16(b[128:]))
	if n > maxDisk || h.origin.Size <= 0 {
		return fmt.Errorf("%w: a name of %d bytes, a disk of %d", errTable, n, h.origin.Size)
	}
	h.origin.Disk = string(b[130 : 130+n])
	return nil
}

const maxDisk = 1024

// CreateTable makes the table of a disk of which the vault has nothing, in place of
// whatever file there was.
func CreateTable(path string, origin Origin, digest DigestFunc) (*Table, error) {
	// A new file: the old one may still be open by another agent that is about to end.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, &TableError{err}
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, &TableError{err}
	}
	t, err := createTable(file, origin, digest)
	if err != nil {
		file.Close()
	}
	return t, err
}

func createTable(file *os.File, origin Origin, digest DigestFunc) (*Table, error) {
	if len(origin.Disk) > maxDisk || len(origin.Server) > 24 {
		return nil, &TableError{fmt.Errorf("a disk named by %d bytes", len(origin.Disk))}
	}
	t := &Table{file: file, head: tableHeader{state: tableOpen, boot: bootID(), origin: origin}}
	rand.Read(t.head.id[:])
	t.init(digest)
	if err := file.Truncate(tableHeaderSize + t.length*entrySize); err != nil {
		return nil, &TableError{err}
	}
	return t, t.writeHeader()
}

// ReopenTable opens the table that a run of the agent left behind, with the head
// it was sealed at. From then on it is not sealed any more, which is durable when
// ReopenTable returns: after a power cut nobody takes it for one that is. A file
// that is absent, was not sealed, or is of another origin is an error; CreateTable
// then begins anew.
func ReopenTable(path string, origin Origin, digest DigestFunc) (*Table, Head, error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, Head{}, &TableError{err}
	}
	t := &Table{file: file}
	err = t.reopen(origin)
	if err == nil {
		t.init(digest)
		err = t.writeHeader()
	}
	if err == nil {
		err = file.Sync()
	}
	if err != nil {
		file.Close()
		return nil, Head{}, &TableError{err}
	}
	return t, t.head.head, nil
}

func (t *Table) reopen(origin Origin) error {
	raw := make([]byte, tableHeaderSize)
	if _, err := t.file.ReadAt(raw, 0); err != nil {
		return err
	}
	if err := t.head.decode(raw); err != nil {
		return err
	}
	info, err := t.file.Stat()
	switch {
	case err != nil:
		return err
	case t.head.origin != origin:
		return fmt.Errorf("it is of disk %q of %d bytes of %s", t.head.origin.Disk, t.head.origin.Size, t.head.origin.Server)
	case t.head.state != tableSealed:
		return errors.New("the agent that wrote it did not end in good order")
	case info.Size() != tableHeaderSize+chunksOf(origin.Size)*entrySize:
		return fmt.Errorf("it has %d bytes", info.Size())
	}
	t.head.state, t.head.boot = tableOpen, bootID()
	return nil
}

// Seal makes the table durable as what the vault has at a head; whatever was not
// Settled is forgotten. After it the table can only be closed.
func (t *Table) Seal(head Head) error {
	t.Rollback()
	t.held.Store(false)
	if err := t.spill(0); err != nil {
		return err
	}
	// The entries first: a sealed header is about what is surely there.
	if err := t.file.Sync(); err != nil {
		return &TableError{err}
	}
	t.head.state, t.head.head = tableSealed, head
	if err := t.writeHeader(); err != nil {
		return err
	}
	if err := t.file.Sync(); err != nil {
		return &TableError{err}
	}
	return nil
}

// Close lets go of the file.
func (t *Table) Close() error { return t.file.Close() }

func (t *Table) writeHeader() error {
	if _, err := t.file.WriteAt(t.head.encode(), 0); err != nil {
		return &TableError{err}
	}
	return nil
}

// bootID is the kernel's name for the time since the machine was started; zero
// where it has none.
func bootID() (id [16]byte) {
	raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	digits := bytes.ReplaceAll(bytes.TrimSpace(raw), []byte("-"), nil)
	if err == nil && len(digits) == 2*len(id) {
		_, err = hex.Decode(id[:], digits)
	}
	if err != nil {
		return [16]byte{}
	}
	return id
}
