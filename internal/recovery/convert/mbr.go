package convert

import "fmt"

// Partition types of the MBR that matter here.
const (
	typeExtended   = 0x05
	typeExtended13 = 0x0f // the same, for disks past 8 GiB
	typeExtendedLx = 0x85
	typeProtective = 0xee
	typeESP        = 0xef
)

// maxLogical bounds the walk along an extended partition's chain.
const maxLogical = 128

// mbr is a master boot record.
type mbr struct {
	protective bool // it only says that there is a GPT
	entries    []mbrEntry
}

type mbrEntry struct {
	number       int
	active       bool
	kind         byte
	start, count int64 // sectors
}

// parseMBR reads sector 0; false if it is no MBR. File systems have the same
// signature in their first sector, and anything where the entries would be.
func parseMBR(sector []byte) (mbr, bool) {
	var m mbr
	if sector[510] != 0x55 || sector[511] != 0xaa {
		return m, false
	}
	for i := range 4 {
		e := readMBREntry(sector, i)
		if status := sector[446+16*i]; status != 0 && status != 0x80 {
			return mbr{}, false
		}
		if e.kind == 0 || e.count == 0 {
			continue
		}
		if e.start == 0 {
			return mbr{}, false
		}
		m.protective = m.protective || e.kind == typeProtective
		m.entries = append(m.entries, e)
	}
	return m, true
}

func readMBREntry(sector []byte, i int) mbrEntry {
	b := sector[446+16*i:]
	return mbrEntry{number: i + 1, active: b[0] == 0x80, kind: b[4], start: int64(le.Uint32(b[8:])), count: int64(le.Uint32(b[12:]))}
}

func (e mbrEntry) extended() bool {
	return e.kind == typeExtended || e.kind == typeExtended13 || e.kind == typeExtendedLx
}

func (e mbrEntry) partition() Partition {
	p := Partition{Number: e.number, Start: e.start * 512, Size: e.count * 512, Type: fmt.Sprintf("%02x", e.kind), Active: e.active}
	if e.kind == typeESP {
		p.Role = ESP
	}
	return p
}

// partitions lists the primary partitions and those inside extended ones.
func (m mbr) partitions(d disk, l *Layout) ([]Partition, error) {
	var list []Partition
	next := 5
	for _, e := range m.entries {
		if e.start*512 >= d.size || e.count*512 > d.size-e.start*512 {
			l.damaged(fmt.Sprintf("partition %d reaches beyond the end of the disk", e.number))
		}
		if !e.extended() {
			list = append(list, e.partition())
			continue
		}
		logical, err := chain(d, e, next, l)
		if err != nil {
			return nil, err
		}
		list = append(list, logical...)
		next += len(logical)
	}
	return list, nil
}

// chain walks the records of an extended partition: each holds one partition,
// counted from itself, and a link, counted from the extended partition.
func chain(d disk, outer mbrEntry, number int, l *Layout) ([]Partition, error) {
	var list []Partition
	at := outer.start
	for range maxLogical {
		if at*512 >= d.size {
			l.damaged("the chain of logical partitions leads beyond the end of the disk")
			return list, nil
		}
		sector, err := d.read(at*512, 512)
		if err != nil {
			return nil, err
		}
		if sector[510] != 0x55 || sector[511] != 0xaa {
			l.damaged("the chain of logical partitions is broken")
			return list, nil
		}
		if e := readMBREntry(sector, 0); e.kind != 0 && e.count != 0 {
			e.start, e.number = e.start+at, number+len(list)
			list = append(list, e.partition())
		}
		link := readMBREntry(sector, 1)
		if !link.extended() || link.count == 0 {
			return list, nil
		}
		at = outer.start + link.start
	}
	l.damaged("the chain of logical partitions does not end")
	return list, nil
}

// hasBootCode tells whether a BIOS would find a program in sector 0. An area
// before the table that is all of one byte is none.
func hasBootCode(sector []byte) bool {
	if sector[510] != 0x55 || sector[511] != 0xaa {
		return false
	}
	for _, b := range sector[1:440] {
		if b != sector[0] {
			return true
		}
	}
	return false
}
