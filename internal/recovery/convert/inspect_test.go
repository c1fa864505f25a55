package convert_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"lifeboat/internal/drs"
	"lifeboat/internal/recovery/convert"
)

const (
	mib      = 1 << 20
	diskSize = 32 * mib
)

// partitioned makes a disk image with sfdisk, the tool that made most real tables.
func partitioned(t *testing.T, script string) []byte {
	t.Helper()
	program, err := exec.LookPath("sfdisk")
	if err != nil {
		t.Skip("sfdisk is not installed (package fdisk or util-linux)")
	}
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, diskSize); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "--quiet", "--no-reread", "--no-tell-kernel", path)
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sfdisk: %v: %s", err, out)
	}
	image, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

func inspect(t *testing.T, image []byte) convert.Layout {
	t.Helper()
	l, err := convert.Inspect(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// withBootCode adds what a boot loader's installer writes before the table.
func withBootCode(image []byte) []byte {
	copy(image, "\xeb\x63\x90 a boot loader")
	return image
}

const (
	gptESP      = "label: gpt\nstart=2048,size=20480,type=U\nstart=24576,type=L\n"
	gptGRUB     = "label: gpt\nstart=2048,size=2048,type=21686148-6449-6E6F-744E-656564454649\nstart=4096,type=L\n"
	gptBoth     = "label: gpt\nstart=2048,size=2048,type=21686148-6449-6E6F-744E-656564454649\nsize=20480,type=U\ntype=L\n"
	gptLegacy   = "label: gpt\nstart=2048,size=20480,type=U\nstart=24576,type=L,attrs=LegacyBIOSBootable\n"
	gptData     = "label: gpt\nstart=2048,type=L\n"
	mbrLinux    = "label: dos\nstart=2048,size=20480,type=83,bootable\nstart=24576,type=83\n"
	mbrESP      = "label: dos\nstart=2048,size=20480,type=ef\nstart=24576,type=83\n"
	mbrExtended = "label: dos\nstart=2048,size=20480,type=83,bootable\nstart=24576,type=5\nstart=26624,size=10240,type=83\nstart=38912,size=10240,type=82\nstart=51200,size=10240,type=83\n"
)

func TestBootMode(t *testing.T) {
	whole := func(at int, text string) []byte {
		image := make([]byte, mib)
		copy(image[at:], text)
		image[510], image[511] = 0x55, 0xaa
		return image
	}
	for _, c := range []struct {
		name  string
		image []byte
		table convert.Table
		parts int
		want  drs.BootMode
	}{
		{"GPT, ESP", partitioned(t, gptESP), convert.GPT, 2, drs.BootUEFI},
		{"GPT, ESP, stray boot code", withBootCode(partitioned(t, gptESP)), convert.GPT, 2, drs.BootUEFI},
		{"GPT, GRUB for BIOS", withBootCode(partitioned(t, gptGRUB)), convert.GPT, 2, drs.BootBIOS},
		{"GPT, both", withBootCode(partitioned(t, gptBoth)), convert.GPT, 3, drs.BootBIOS},
		{"GPT, both but no boot code", partitioned(t, gptBoth), convert.GPT, 3, drs.BootUEFI},
		{"GPT, syslinux beside ESP", withBootCode(partitioned(t, gptLegacy)), convert.GPT, 2, drs.BootBIOS},
		{"GPT, data only", partitioned(t, gptData), convert.GPT, 1, drs.BootUnknown},
		{"MBR, boot code", withBootCode(partitioned(t, mbrLinux)), convert.MBR, 2, drs.BootBIOS},
		{"MBR, data only", partitioned(t, mbrLinux), convert.MBR, 2, drs.BootUnknown},
		{"MBR, ESP", partitioned(t, mbrESP), convert.MBR, 2, drs.BootUEFI},
		{"MBR, ESP and boot code", withBootCode(partitioned(t, mbrESP)), convert.MBR, 2, drs.BootBIOS},
		{"MBR, logical partitions", withBootCode(partitioned(t, mbrExtended)), convert.MBR, 4, drs.BootBIOS},
		{"boot sector alone", withBootCode(whole(510, "")), convert.NoTable, 0, drs.BootBIOS},
		{"FAT without table", whole(0, "\xeb\x3c\x90mkfs.fat"+strings.Repeat("\x00", 43)+"FAT16   this is not a bootable disk"), convert.NoTable, 0, drs.BootUnknown},
		{"zeros", make([]byte, mib), convert.NoTable, 0, drs.BootUnknown},
		{"tiny", []byte{1, 2, 3}, convert.NoTable, 0, drs.BootUnknown},
		{"empty", nil, convert.NoTable, 0, drs.BootUnknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := inspect(t, c.image)
			if l.Table != c.table || len(l.Partitions) != c.parts || l.BootMode != c.want {
				t.Errorf("got table %s, %d partitions, boot mode %q (%s); want %s, %d, %q", l.Table, len(l.Partitions), l.BootMode, l.Why, c.table, c.parts, c.want)
			}
			if l.Why == "" || len(l.Damage) != 0 {
				t.Errorf("why %q, damage %q", l.Why, l.Damage)
			}
			if says := strings.HasSuffix(l.Why, ": "+string(l.BootMode)); l.BootMode != drs.BootUnknown && !says {
				t.Errorf("boot mode %s, but the sentence is %q", l.BootMode, l.Why)
			}
		})
	}
}

func TestPartitionsAsTheToolMadeThem(t *testing.T) {
	l := inspect(t, partitioned(t, gptESP))
	if p := l.Partitions[0]; p.Number != 1 || p.Start != mib || p.Size != 10*mib || p.Role != convert.ESP || p.Type != "C12A7328-F81F-11D2-BA4B-00A0C93EC93B" {
		t.Errorf("ESP is %+v", p)
	}
	l = inspect(t, partitioned(t, mbrExtended))
	if p := l.Partitions[1]; p.Number != 5 || p.Start < 12*mib || p.Size != 5*mib || p.Type != "83" {
		t.Errorf("first logical partition is %+v", p)
	}
	if p := l.Partitions[2]; p.Number != 6 || p.Type != "82" || p.Start <= l.Partitions[1].Start {
		t.Errorf("second logical partition is %+v", p)
	}
	if !l.Partitions[0].Active {
		t.Error("the boot flag was not seen")
	}
}

func TestDamage(t *testing.T) {
	const last = diskSize - 512
	for _, c := range []struct {
		name  string
		spoil func(image []byte) []byte
		want  string // in the damage
		mode  drs.BootMode
	}{
		{"primary header", func(i []byte) []byte { i[512+60] ^= 1; return i }, "backup at the end of the disk was used", drs.BootUEFI},
		{"primary entries", func(i []byte) []byte { i[1024+5] ^= 1; return i }, "backup at the end of the disk was used", drs.BootUEFI},
		{"backup header", func(i []byte) []byte { i[last+60] ^= 1; return i }, "backup GPT is missing or damaged", drs.BootUEFI},
		{"both headers", func(i []byte) []byte { i[512+60] ^= 1; i[last+60] ^= 1; return i }, "neither", drs.BootUnknown},
		{"protective MBR", func(i []byte) []byte { clear(i[:512]); return i }, "protective MBR is missing", drs.BootUEFI},
		{"grown disk", func(i []byte) []byte { return append(i, make([]byte, mib)...) }, "the disk was grown", drs.BootUEFI},
		{"shrunk disk", func(i []byte) []byte { return i[:20*mib] }, "beyond the end", drs.BootUEFI},
		{"repartitioned as MBR", func(i []byte) []byte {
			copy(i[446:], []byte{0x80, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0})
			clear(i[462:510])
			return withBootCode(i)
		}, "left over", drs.BootBIOS},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := inspect(t, c.spoil(partitioned(t, gptESP)))
			if !strings.Contains(strings.Join(l.Damage, "; "), c.want) || l.BootMode != c.mode {
				t.Errorf("damage %q, boot mode %q; want %q, %q", l.Damage, l.BootMode, c.want, c.mode)
			}
		})
	}
}

// TestSectorsOf4096Bytes: few tools make such a table in a file, so it is made here.
func TestSectorsOf4096Bytes(t *testing.T) {
	const sector, sectors = 4096, 4096
	image := make([]byte, sector*sectors)
	image[450], image[510], image[511] = 0xee, 0x55, 0xaa
	binary.LittleEndian.PutUint32(image[454:], 1)
	binary.LittleEndian.PutUint32(image[458:], sectors-1)
	entries := image[2*sector:][:128*128]
	copy(entries, "\x28\x73\x2a\xc1\x1f\xf8\xd2\x11\xba\x4b\x00\xa0\xc9\x3e\xc9\x3b")
	binary.LittleEndian.PutUint64(entries[32:], 256)
	binary.LittleEndian.PutUint64(entries[40:], 511)
	copy(image[sector:], gptHeader(1, sectors-1, 2, entries))
	l := inspect(t, image)
	if l.Table != convert.GPT || l.SectorSize != sector || len(l.Partitions) != 1 || l.BootMode != drs.BootUEFI {
		t.Fatalf("layout %+v", l)
	}
	if p := l.Partitions[0]; p.Start != 256*sector || p.Size != 256*sector {
		t.Errorf("partition %+v", p)
	}
}

func gptHeader(at, alternate, table uint64, entries []byte) []byte {
	h := make([]byte, 92)
	copy(h, "EFI PART\x00\x00\x01\x00")
	le := binary.LittleEndian
	le.PutUint32(h[12:], 92)
	le.PutUint64(h[24:], at)
	le.PutUint64(h[32:], alternate)
	le.PutUint64(h[72:], table)
	le.PutUint32(h[80:], uint32(len(entries)/128))
	le.PutUint32(h[84:], 128)
	le.PutUint32(h[88:], crc32.ChecksumIEEE(entries))
	le.PutUint32(h[16:], crc32.ChecksumIEEE(h))
	return h
}

func TestFilesystems(t *testing.T) {
	for _, c := range []struct{ want, program, args string }{
		{"ext4", "mke2fs", "-q -t ext4"},
		{"vfat", "mkfs.vfat", ""},
		{"xfs", "mkfs.xfs", "-q"},
		{"btrfs", "mkfs.btrfs", "-q"},
		{"swap", "mkswap", "-q"},
		{"ntfs", "mkntfs", "-q -F -Q"},
	} {
		t.Run(c.want, func(t *testing.T) {
			program, err := exec.LookPath(c.program)
			if err != nil {
				t.Skipf("%s is not installed", c.program)
			}
			path := filepath.Join(t.TempDir(), "fs")
			f, err := os.Create(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := f.Truncate(320 * mib); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command(program, append(strings.Fields(c.args), path)...).CombinedOutput(); err != nil {
				t.Skipf("%s: %v: %s", c.program, err, out)
			}
			l, err := convert.Inspect(f, 320*mib)
			if err != nil || l.Table != convert.NoTable || l.BootMode != drs.BootUnknown || !strings.Contains(l.Why, c.want) {
				t.Errorf("layout %+v, %v", l, err)
			}
		})
	}
}

// brokenDisk fails every read from some offset on.
type brokenDisk struct {
	image []byte
	from  int64
	err   error
}

func (b brokenDisk) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > b.from {
		return 0, b.err
	}
	return bytes.NewReader(b.image).ReadAt(p, off)
}

// TestReadErrorIsNoLayout: a disk that cannot be read is not a disk of data.
func TestReadErrorIsNoLayout(t *testing.T) {
	image := partitioned(t, gptESP)
	bad := errors.New("bad sector")
	for _, from := range []int64{0, 512, 1024, mib, diskSize - 512} {
		if _, err := convert.Inspect(brokenDisk{image, from, bad}, int64(len(image))); !errors.Is(err, bad) {
			t.Errorf("disk broken at %d: error %v", from, err)
		}
	}
}

// meter counts what is read.
type meter struct {
	r io.ReaderAt
	n int64
}

func (m *meter) ReadAt(p []byte, off int64) (int, error) {
	m.n += int64(len(p))
	return m.r.ReadAt(p, off)
}

func FuzzInspect(f *testing.F) {
	f.Add([]byte{}, []byte{}, int64(0), false)
	head := make([]byte, 40<<10)
	head[450], head[510], head[511] = 0xee, 0x55, 0xaa
	entries := head[1024:][:128*128]
	copy(entries, "\x28\x73\x2a\xc1\x1f\xf8\xd2\x11\xba\x4b\x00\xa0\xc9\x3e\xc9\x3b\x01")
	copy(head[512:], gptHeader(1, 1000, 2, entries))
	f.Add(head, head[:1024], int64(1<<40), true)
	loop := make([]byte, 1024)
	copy(loop[446:], []byte{0, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, 255, 255, 255, 255})
	copy(loop[512+462:], []byte{0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0})
	loop[510], loop[511], loop[1022], loop[1023] = 0x55, 0xaa, 0x55, 0xaa
	f.Add(loop, []byte{}, int64(1<<62), false)
	f.Fuzz(func(t *testing.T, head, tail []byte, size int64, sums bool) {
		if sums {
			head = withSums(head)
		}
		m := &meter{r: sparse{head, tail, size}}
		l, err := convert.Inspect(m, size)
		if err != nil {
			t.Fatal(err)
		}
		if l.Why == "" || len(l.Partitions) > 1024 {
			t.Errorf("layout %+v", l)
		}
		if m.n > 32<<20 {
			t.Errorf("read %d bytes", m.n)
		}
	})
}

// withSums mends the checksums of the primary GPT, for what lies behind them.
func withSums(head []byte) []byte {
	const header, entries = 512, 1024
	if len(head) < entries {
		return head
	}
	head = bytes.Clone(head)
	le := binary.LittleEndian
	length := uint64(le.Uint32(head[header+80:])) * uint64(le.Uint32(head[header+84:]))
	if length <= 1<<20 {
		table := make([]byte, length)
		copy(table, head[entries:])
		le.PutUint32(head[header+88:], crc32.ChecksumIEEE(table))
	}
	if size := le.Uint32(head[header+12:]); size >= 92 && size <= 512 {
		clear(head[header+16:][:4])
		le.PutUint32(head[header+16:], crc32.ChecksumIEEE(head[header:][:size]))
	}
	return head
}

// sparse is a disk of any size with something at both ends.
type sparse struct {
	head, tail []byte
	size       int64
}

func (s sparse) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	if off < int64(len(s.head)) {
		copy(p, s.head[off:])
	}
	if from := s.size - int64(len(s.tail)); off >= from && off-from < int64(len(s.tail)) {
		copy(p, s.tail[off-from:])
	}
	return len(p), nil
}
