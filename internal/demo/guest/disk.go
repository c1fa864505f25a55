package guest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const (
	sector = 512
	mib    = 1 << 20
	// firstPartition leaves GRUB the gap of 1 MiB that partitioning tools leave.
	firstPartition = 1 * mib
)

// no_timer_check: a busy host delays an emulated machine so much that the kernel
// takes its timer for broken and gives up.
const grubConfig = `set timeout=0
serial --unit=0 --speed=115200
terminal_output serial
search --no-floppy --label ` + rootLabel + ` --set=root
linux /boot/vmlinuz console=ttyS0 quiet no_timer_check panic=-1
initrd /boot/initrd.gz
boot
`

// writeDisk writes a disk image that boots by itself and holds the files below
// root. The identity gives disk and filesystem their IDs.
func writeDisk(ctx context.Context, image, root string, spec Spec, identity [sha256.Size]byte) error {
	file, err := os.OpenFile(image, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer file.Close()
	size := int64(spec.SizeMiB) * mib
	if err := file.Truncate(size); err != nil {
		return err
	}
	work := filepath.Dir(image)
	switch spec.Firmware {
	case UEFI:
		start, end, err := writeUEFI(ctx, file, size, work, identity)
		if err != nil {
			return err
		}
		err = makeFilesystem(ctx, image, root, start, end-start, identity)
		if err != nil {
			return err
		}
	default:
		if err := makeFilesystem(ctx, image, root, firstPartition, size-firstPartition, identity); err != nil {
			return err
		}
		if err := writeBIOS(ctx, file, size, work, identity); err != nil {
			return err
		}
	}
	return file.Sync()
}

// makeFilesystem puts an ext4 with the files below root into a part of the image.
func makeFilesystem(ctx context.Context, image, root string, offset, size int64, identity [sha256.Size]byte) error {
	uuid := fmt.Sprintf("%x-%x-%x-%x-%x", identity[0:4], identity[4:6], identity[6:8], identity[8:10], identity[10:16])
	cmd := exec.CommandContext(ctx, sbin("mke2fs"), "-q", "-F", "-t", "ext4", "-b", "4096", "-L", rootLabel, "-U", uuid, "-m", "0",
		"-E", fmt.Sprintf("offset=%d,hash_seed=%s,root_owner=0:0,lazy_itable_init=0,nodiscard", offset, uuid),
		"-d", root, image, fmt.Sprintf("%dk", size/1024))
	return run(cmd)
}

// writeBIOS writes GRUB and the partition table of a disk with one partition.
func writeBIOS(ctx context.Context, disk *os.File, size int64, work string, identity [sha256.Size]byte) error {
	bootCode, err := readGRUB("i386-pc/boot.img")
	if err != nil {
		return err
	}
	core := filepath.Join(work, "core.img")
	err = grubMkimage(ctx, "i386-pc", core, "", "biosdisk", "part_msdos")
	if err != nil {
		return err
	}
	coreImage, err := os.ReadFile(core)
	if err != nil {
		return err
	}
	if len(coreImage) > firstPartition-sector {
		return fmt.Errorf("GRUB of %d bytes does not fit before the first partition", len(coreImage))
	}
	// The first 440 bytes are code; disk ID and table follow.
	var mbr [sector]byte
	copy(mbr[:440], bootCode)
	copy(mbr[440:444], identity[16:20])
	writePartition(mbr[446:462], 0x80, 0x83, firstPartition/sector, (size-firstPartition)/sector)
	mbr[510], mbr[511] = 0x55, 0xaa
	if _, err := disk.WriteAt(mbr[:], 0); err != nil {
		return err
	}
	_, err = disk.WriteAt(coreImage, sector)
	return err
}

// writePartition fills an entry of an MBR: addresses in sectors, and the old
// cylinder numbers marked as out of range.
func writePartition(entry []byte, flag, kind byte, start, count int64) {
	entry[0], entry[4] = flag, kind
	copy(entry[1:4], "\xfe\xff\xff")
	copy(entry[5:8], "\xfe\xff\xff")
	binary.LittleEndian.PutUint32(entry[8:], uint32(start))
	binary.LittleEndian.PutUint32(entry[12:], uint32(count))
}

// grubModules is what every guest's boot loader needs to find and start a kernel.
var grubModules = strings.Fields("ext2 normal configfile linux serial terminal search search_label echo test boot")

// grubMkimage makes a boot loader of format; early is the configuration built
// into it, empty for one that looks in its own partition.
func grubMkimage(ctx context.Context, format, output, early string, modules ...string) error {
	tool, err := exec.LookPath("grub-mkimage")
	if err != nil {
		if tool, err = exec.LookPath("grub2-mkimage"); err != nil {
			return fmt.Errorf("grub-mkimage is missing: install grub-common (Debian, Ubuntu)")
		}
	}
	args := []string{"-O", format, "-o", output, "-p", "(hd0,msdos1)/boot/grub"}
	if early != "" {
		config := output + ".cfg"
		if err := os.WriteFile(config, []byte(early), 0o644); err != nil {
			return err
		}
		args = []string{"-O", format, "-o", output, "-p", "/boot/grub", "-c", config}
	}
	args = append(args, modules...)
	return run(exec.CommandContext(ctx, tool, append(args, grubModules...)...))
}

func readGRUB(name string) ([]byte, error) {
	data, err := os.ReadFile(filepath.Join("/usr/lib/grub", name))
	if err != nil {
		return nil, fmt.Errorf("%w: install grub-pc-bin (Debian, Ubuntu)", err)
	}
	return data, nil
}

// sbin finds an administrator's tool also for users whose PATH lacks it.
func sbin(tool string) string {
	if path, err := exec.LookPath(tool); err == nil {
		return path
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if path := filepath.Join(dir, tool); exists(path) {
			return path
		}
	}
	return tool
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func run(cmd *exec.Cmd) error {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, strings.TrimSpace(out.String()))
	}
	return nil
}
