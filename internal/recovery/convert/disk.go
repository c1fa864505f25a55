package convert

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
)

// disk reads foreign bytes without ever reading past the end.
type disk struct {
	r    io.ReaderAt
	size int64
}

// read returns n bytes from off. What lies outside of the disk reads as zeros, so
// that no offset taken from the disk itself can hurt.
func (d disk) read(off int64, n int) ([]byte, error) {
	buf := make([]byte, n)
	if off < 0 || off >= d.size {
		return buf, nil
	}
	got, err := d.r.ReadAt(buf[:min(int64(n), d.size-off)], off)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		clear(buf[got:])
		err = nil // shorter than it was said to be
	}
	return buf, err
}

// signature is a magic number of a file system or volume.
type signature struct {
	offset int64
	magic  string
	name   string
}

// signatures in order of trust: containers first, as the file system inside may
// shine through.
var signatures = []signature{
	{0, "LUKS\xba\xbe", "luks"},
	{3, "-FVE-FS-", "bitlocker"},
	{4096, "\xfc\x4e\x2b\xa9", "mdraid"},
	{512 + 24, "LVM2 001", "lvm2"},
	{0, "XFSB", "xfs"},
	{3, "NTFS    ", "ntfs"},
	{3, "EXFAT   ", "exfat"},
	{82, "FAT32   ", "vfat"},
	{54, "FAT16   ", "vfat"},
	{54, "FAT12   ", "vfat"},
	{4086, "SWAPSPACE2", "swap"},
	{0, "hsqs", "squashfs"},
	{1024 + 56, "\x53\xef", "ext4"}, // or its forebears; they differ by features
	{0x8001, "CD001", "iso9660"},
	{0x10040, "_BHRfS_M", "btrfs"},
}

// filesystem tells what lies at off, from at most 66 KiB.
func (d disk) filesystem(off, size int64) (string, error) {
	const near, far = 8 << 10, 0x10000 + 512
	if size < 512 {
		return "", nil
	}
	head, err := d.read(off, near)
	if err != nil {
		return "", err
	}
	for _, s := range signatures {
		at := head
		if s.offset+int64(len(s.magic)) > near {
			if size < far {
				continue
			}
			if at, err = d.read(off+s.offset, len(s.magic)); err != nil {
				return "", err
			}
		} else {
			at = at[s.offset:]
		}
		if bytes.HasPrefix(at, []byte(s.magic)) {
			return s.name, nil
		}
	}
	return "", nil
}

var le = binary.LittleEndian
