package guest

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// wantedModules reach the disk on every bus that a machine may get and the network,
// and hear the power button. One that the kernel has built in, or lacks, is left out.
var wantedModules = []string{
	"virtio_pci", "virtio_blk", "nvme", "virtio_scsi", "sd_mod", "ahci", "ext4", "crc32c_generic", "button", "evdev", "virtio_net",
}

// collectModules writes the wanted modules found below tree, and those they
// depend on, uncompressed to dir. It returns their file names in loading order.
func collectModules(tree, dir string, wanted []string) ([]string, error) {
	files := map[string]string{} // by module name
	err := filepath.WalkDir(tree, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _, isModule := strings.Cut(entry.Name(), ".ko")
		if isModule && !entry.IsDir() {
			files[canonical(name)] = path
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var order []string
	seen := map[string]bool{}
	var collect func(name string) error
	collect = func(name string) error {
		path, found := files[name]
		if seen[name] || !found {
			return nil
		}
		seen[name] = true
		image, err := readModule(path)
		if err != nil {
			return fmt.Errorf("module %s: %w", name, err)
		}
		needs, err := dependencies(image)
		if err != nil {
			return fmt.Errorf("module %s: %w", name, err)
		}
		for _, need := range needs {
			if err := collect(need); err != nil {
				return err
			}
		}
		order = append(order, name+".ko")
		return os.WriteFile(filepath.Join(dir, name+".ko"), image, 0o644)
	}
	for _, name := range wanted {
		if err := collect(name); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// canonical spells a module's name as the kernel does; file names use both.
func canonical(name string) string { return strings.ReplaceAll(name, "-", "_") }

func readModule(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	switch filepath.Ext(path) {
	case ".xz":
		r, err := xz.NewReader(bytes.NewReader(data))
		if err != nil {
			return nil, err
		}
		return io.ReadAll(r)
	case ".zst":
		r, err := zstd.NewReader(nil)
		if err != nil {
			return nil, err
		}
		defer r.Close()
		return r.DecodeAll(data, nil)
	}
	return data, nil
}

// dependencies reads the names a module states in its .modinfo section.
func dependencies(image []byte) ([]string, error) {
	file, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return nil, err
	}
	section := file.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("no .modinfo section")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	for _, entry := range strings.Split(string(info), "\x00") {
		if list, found := strings.CutPrefix(entry, "depends="); found && list != "" {
			names := strings.Split(list, ",")
			for i, name := range names {
				names[i] = canonical(name)
			}
			return names, nil
		}
	}
	return nil, nil
}
