package agent

import (
	"fmt"
	"os"
	"slices"

	"lifeboat/internal/source/freeze"
	"lifeboat/internal/source/inventory"
)

// wholeMachine lists this machine's disks, the one that it boots from first.
func wholeMachine() ([]string, error) {
	disks, err := inventory.Collector{}.WholeDisks()
	if err != nil {
		return nil, err
	}
	for _, dir := range []string{"/", "/boot", "/boot/efi"} { // the last one found is the one to boot from
		for i, disk := range disks {
			mounts, err := freeze.Mounts([]string{disk})
			if err != nil {
				return nil, fmt.Errorf("find the disk that this machine boots from: %w", err)
			}
			if slices.ContainsFunc(mounts, func(m freeze.Mount) bool { return m.Dir == dir }) {
				disks = slices.Insert(slices.Delete(disks, i, i+1), 0, disk)
				break
			}
		}
	}
	return disks, nil
}

// onlyFiles tells whether what the user names, or what is remembered where he names
// nothing, are disk image files: those are looked for nowhere else.
func onlyFiles(named []string, m memory) bool {
	paths := slices.Clone(named)
	if len(named) == 0 {
		for _, d := range m.Disks {
			paths = append(paths, d.Name)
		}
	}
	return len(paths) > 0 && !slices.ContainsFunc(paths, func(path string) bool {
		info, err := os.Stat(path)
		return err != nil || !info.Mode().IsRegular()
	})
}
