package convert

import (
	"fmt"
	"hash/crc32"
	"slices"
)

// Partition types of the GPT that matter here.
const (
	guidESP      = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
	guidBIOSBoot = "21686148-6449-6E6F-744E-656564454649"
)

const (
	gptSignature  = "EFI PART"
	gptHeaderSize = 92
	// maxEntries and maxEntrySize bound what is read: real tables have 128 entries
	// of 128 bytes.
	maxEntries   = 1024
	maxEntrySize = 1024
	// legacyBootable is the attribute by which BIOS boot code finds its partition.
	legacyBootable = 1 << 2
)

// gpt is a table that passed its checksums.
type gpt struct {
	sectorSize int64
	partitions []Partition
	damage     []string
}

// gptHeader is the checked part of a header.
type gptHeader struct {
	alternate, entries uint64 // sectors
	count, size        uint32 // of entries
	sum                uint32 // of the entries
}

// findGPT returns the primary table or, if that is damaged, the backup; nil when
// the disk has neither.
func findGPT(d disk) (*gpt, error) {
	for _, sectorSize := range []int64{512, 4096} {
		g, err := readGPTs(d, sectorSize)
		if g != nil || err != nil {
			return g, err
		}
	}
	return nil, nil
}

func readGPTs(d disk, sectorSize int64) (*gpt, error) {
	last := uint64(max(d.size/sectorSize-1, 0))
	primary, header, err := readGPT(d, sectorSize, 1)
	if err != nil {
		return nil, err
	}
	places := []uint64{last}
	if header != nil && header.alternate != last {
		places = append(places, header.alternate) // the disk was grown
	}
	for i, at := range places {
		backup, _, err := readGPT(d, sectorSize, at)
		if err != nil {
			return nil, err
		}
		switch {
		case backup == nil:
			continue
		case primary == nil:
			backup.damage = append(backup.damage, "the primary GPT is damaged; the backup at the end of the disk was used")
			return backup, nil
		case i > 0:
			primary.damage = append(primary.damage, "the backup GPT is not at the end of the disk: the disk was grown")
		case !slices.Equal(primary.partitions, backup.partitions):
			primary.damage = append(primary.damage, "the backup GPT differs from the primary")
		}
		return primary, nil
	}
	if primary != nil {
		primary.damage = append(primary.damage, "the backup GPT is missing or damaged")
	}
	return primary, nil
}

// readGPT reads the table whose header lies at that sector; nil if it does not
// hold. The header is returned if at least that part is good.
func readGPT(d disk, sectorSize int64, at uint64) (*gpt, *gptHeader, error) {
	if at == 0 || at > uint64(d.size/sectorSize) {
		return nil, nil, nil
	}
	block, err := d.read(int64(at)*sectorSize, int(sectorSize))
	if err != nil {
		return nil, nil, err
	}
	h := parseGPTHeader(block, at)
	if h == nil || h.entries > uint64(d.size/sectorSize) {
		return nil, h, nil
	}
	entries, err := d.read(int64(h.entries)*sectorSize, int(h.count*h.size))
	if err != nil {
		return nil, h, err
	}
	if crc32.ChecksumIEEE(entries) != h.sum {
		return nil, h, nil
	}
	g := &gpt{sectorSize: sectorSize}
	sectors := uint64(d.size / sectorSize)
	for i := range int(h.count) {
		e := entries[i*int(h.size):][:128]
		kind := guid(e[:16])
		first, end := le.Uint64(e[32:]), le.Uint64(e[40:])
		if kind == "00000000-0000-0000-0000-000000000000" {
			continue
		}
		if first > end || end >= sectors {
			g.damage = append(g.damage, fmt.Sprintf("partition %d reaches beyond the end of the disk", i+1))
			continue
		}
		p := Partition{
			Number: i + 1,
			Start:  int64(first) * sectorSize,
			Size:   int64(end-first+1) * sectorSize,
			Type:   kind,
			Active: le.Uint64(e[48:])&legacyBootable != 0,
		}
		switch kind {
		case guidESP:
			p.Role = ESP
		case guidBIOSBoot:
			p.Role = BIOSBoot
		}
		g.partitions = append(g.partitions, p)
	}
	return g, h, nil
}

// parseGPTHeader checks a header that claims to lie at that sector.
func parseGPTHeader(block []byte, at uint64) *gptHeader {
	size := le.Uint32(block[12:])
	if string(block[:8]) != gptSignature || size < gptHeaderSize || int(size) > len(block) {
		return nil
	}
	header := slices.Clone(block[:size])
	sum := le.Uint32(header[16:])
	clear(header[16:20])
	if crc32.ChecksumIEEE(header) != sum || le.Uint64(header[24:]) != at {
		return nil
	}
	h := &gptHeader{
		alternate: le.Uint64(header[32:]),
		entries:   le.Uint64(header[72:]),
		count:     le.Uint32(header[80:]),
		size:      le.Uint32(header[84:]),
		sum:       le.Uint32(header[88:]),
	}
	if h.count > maxEntries || h.size < 128 || h.size > maxEntrySize {
		return nil
	}
	return h
}

// guid prints a GUID as the world writes it: the first three numbers are stored
// with their low byte first.
func guid(b []byte) string {
	return fmt.Sprintf("%08X-%04X-%04X-%X-%X", le.Uint32(b), le.Uint16(b[4:]), le.Uint16(b[6:]), b[8:10], b[10:16])
}
