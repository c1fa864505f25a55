package guest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"

	backend "github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/fat32"
	"github.com/diskfs/go-diskfs/partition/gpt"
)

// espSize is the least that FAT32 allows, and a little.
const espSize = 40 * mib

// earlyConfig is built into the boot loader: it finds the root filesystem, whose
// configuration has the rest.
const earlyConfig = "search --no-floppy --label " + rootLabel + " --set=root\nconfigfile /boot/grub/grub.cfg\n"

// writeUEFI writes a GPT with an EFI system partition, holding GRUB, and one for
// the root filesystem, whose place it returns in bytes.
func writeUEFI(ctx context.Context, disk *os.File, size int64, work string, identity [sha256.Size]byte) (start, end int64, err error) {
	if !exists("/usr/lib/grub/x86_64-efi") {
		return 0, 0, fmt.Errorf("GRUB for UEFI is missing: install grub-efi-amd64-bin (Debian, Ubuntu)")
	}
	loader := filepath.Join(work, "bootx64.efi")
	if err := grubMkimage(ctx, "x86_64-efi", loader, earlyConfig, "part_gpt", "part_msdos", "fat"); err != nil {
		return 0, 0, err
	}
	program, err := os.ReadFile(loader)
	if err != nil {
		return 0, 0, err
	}
	// The last MiB is left to the backup of the table.
	start, end = firstPartition+espSize, size-mib
	table := gpt.Table{
		LogicalSectorSize: sector, PhysicalSectorSize: sector, ProtectiveMBR: true, GUID: guid(identity, 1),
		Partitions: []*gpt.Partition{
			{Index: 1, Start: firstPartition / sector, End: uint64(start)/sector - 1, Type: gpt.EFISystemPartition, Name: "EFI", GUID: guid(identity, 2)},
			{Index: 2, Start: uint64(start) / sector, End: uint64(end)/sector - 1, Type: gpt.LinuxFilesystem, Name: "root", GUID: guid(identity, 3)},
		},
	}
	if err := table.Write(disk, size); err != nil {
		return 0, 0, fmt.Errorf("write partition table: %w", err)
	}
	esp, err := fat32.Create(backend.New(disk, false), espSize, firstPartition, sector, "EFI", true)
	if err != nil {
		return 0, 0, fmt.Errorf("make EFI system partition: %w", err)
	}
	if err := esp.Mkdir("/EFI/BOOT"); err != nil {
		return 0, 0, fmt.Errorf("fill EFI system partition: %w", err)
	}
	file, err := esp.OpenFile("/EFI/BOOT/BOOTX64.EFI", os.O_CREATE|os.O_RDWR)
	if err != nil {
		return 0, 0, fmt.Errorf("fill EFI system partition: %w", err)
	}
	if _, err := file.Write(program); err != nil {
		return 0, 0, fmt.Errorf("fill EFI system partition: %w", err)
	}
	return start, end, file.Close()
}

// guid derives the nth identifier of a disk from its identity.
func guid(identity [sha256.Size]byte, n byte) string {
	sum := sha256.Sum256(append(identity[:], n))
	digits := hex.EncodeToString(sum[:16])
	return fmt.Sprintf("%s-%s-%s-%s-%s", digits[0:8], digits[8:12], digits[12:16], digits[16:20], digits[20:32])
}
