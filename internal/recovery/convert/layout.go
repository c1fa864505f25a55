package convert

import (
	"fmt"
	"io"

	"lifeboat/internal/drs"
)

// Table is the kind of a partition table.
type Table string

const (
	NoTable Table = "none"
	MBR     Table = "mbr"
	GPT     Table = "gpt"
)

// Layout is what a disk shows of how it boots.
type Layout struct {
	Table      Table
	SectorSize int64 // bytes in which the table counts, 512 or 4096
	Partitions []Partition
	// BootCode tells that sector 0 holds a program that a BIOS would run.
	BootCode bool
	// Damage says in sentences what is wrong with the tables. A disk with damage
	// may still boot.
	Damage []string
	// BootMode is the firmware that can boot the disk, BootUnknown if neither
	// seems to, as for a disk of data. Why is one sentence.
	BootMode drs.BootMode
	Why      string
}

// Partition is a part of a disk.
type Partition struct {
	Number int
	Start  int64 // bytes
	Size   int64 // bytes
	// Type as the table has it: a GUID in upper case, or two hexadecimal digits.
	Type string
	Role Role
	// Active is the MBR's boot flag or the GPT's legacy BIOS bootable attribute.
	Active bool
	// Filesystem found by its magic number, empty if none is known.
	Filesystem string
}

// Role is what a partition is for, as far as booting goes.
type Role string

const (
	Data     Role = ""
	ESP      Role = "efi-system" // UEFI boots from here
	BIOSBoot Role = "bios-boot"  // GRUB's second stage on a GPT disk (bios_grub)
)

// Inspect reads a disk of size bytes. The error is a read error of the disk; a
// disk that makes no sense is no error.
func Inspect(r io.ReaderAt, size int64) (Layout, error) {
	l, err := inspect(disk{r, size})
	if err != nil {
		return Layout{}, fmt.Errorf("inspect disk: %w", err)
	}
	return l, nil
}

func inspect(d disk) (Layout, error) {
	l := Layout{Table: NoTable, SectorSize: 512}
	sector, err := d.read(0, 512)
	if err != nil {
		return l, err
	}
	mbr, isMBR := parseMBR(sector)
	l.BootCode = hasBootCode(sector)
	gpt, err := findGPT(d)
	if err != nil {
		return l, err
	}
	switch {
	case gpt != nil && (mbr.protective || !isMBR || len(mbr.entries) == 0):
		l.Table, l.SectorSize, l.Partitions, l.Damage = GPT, gpt.sectorSize, gpt.partitions, gpt.damage
		if !mbr.protective {
			l.damaged("the protective MBR is missing: some firmware will not see the GPT")
		}
	case mbr.protective:
		l.Table = GPT
		l.damaged("the protective MBR announces a GPT, but neither the primary nor the backup GPT is valid")
	case isMBR && len(mbr.entries) > 0:
		l.Table = MBR
		if gpt != nil {
			l.damaged("a GPT of an earlier use is left over; the MBR counts")
		}
		if l.Partitions, err = mbr.partitions(d, &l); err != nil {
			return l, err
		}
	}
	for i := range l.Partitions {
		p := &l.Partitions[i]
		if p.Filesystem, err = d.filesystem(p.Start, p.Size); err != nil {
			return l, err
		}
	}
	whole := ""
	if l.Table == NoTable {
		if whole, err = d.filesystem(0, d.size); err != nil {
			return l, err
		}
	}
	l.BootMode, l.Why = l.decide(whole)
	return l, nil
}

func (l *Layout) damaged(sentence string) { l.Damage = append(l.Damage, sentence) }

// decide tells the boot mode. whole is the file system of a disk without a table.
func (l *Layout) decide(whole string) (drs.BootMode, string) {
	var esp, grub, active bool
	for _, p := range l.Partitions {
		esp = esp || p.Role == ESP
		grub = grub || p.Role == BIOSBoot
		active = active || p.Active
	}
	switch {
	case l.Table == NoTable && l.BootCode && (whole == "ext4" || whole == "btrfs"):
		return drs.BootBIOS, "boot code before a " + whole + " file system that fills the disk: BIOS"
	case l.Table == NoTable && whole != "":
		return drs.BootUnknown, "a " + whole + " file system fills the disk: not a boot disk"
	case l.Table == NoTable && l.BootCode:
		return drs.BootBIOS, "boot code without a partition table: BIOS"
	case l.Table == NoTable:
		return drs.BootUnknown, "no partition table and no boot code: not a boot disk"

	// Boot code on a GPT disk proves little: partitioning tools leave some there.
	// It boots only with a second stage or a marked partition to go on to.
	case l.Table == GPT && esp && l.BootCode && (grub || active):
		return drs.BootBIOS, "GPT that boots both ways, with BIOS boot code and an EFI system partition: BIOS"
	case l.Table == GPT && esp && l.BootCode:
		return drs.BootUEFI, "GPT with EFI system partition, and BIOS boot code that leads nowhere: UEFI"
	case l.Table == GPT && esp:
		return drs.BootUEFI, "GPT with EFI system partition and no BIOS boot code: UEFI"
	case l.Table == GPT && l.BootCode && len(l.Partitions) > 0:
		return drs.BootBIOS, "GPT with BIOS boot code and no EFI system partition: BIOS"
	case l.Table == GPT:
		return drs.BootUnknown, "GPT without EFI system partition or BIOS boot code: not a boot disk"

	case l.BootCode && esp:
		return drs.BootBIOS, "MBR with boot code, and an EFI system partition beside it: BIOS"
	case l.BootCode:
		return drs.BootBIOS, "MBR with boot code: BIOS"
	case esp:
		return drs.BootUEFI, "MBR with EFI system partition and no boot code: UEFI"
	}
	return drs.BootUnknown, "MBR without boot code or EFI system partition: not a boot disk"
}
