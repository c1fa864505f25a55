package server

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"lifeboat/internal/recovery/convert"
)

// hostCapacity is what this host can give to a machine.
func hostCapacity() (convert.Host, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return convert.Host{}, fmt.Errorf("ask for the host's memory: %w", err)
	}
	return convert.Host{CPUs: runtime.NumCPU(), Memory: int64(info.Totalram) * int64(info.Unit)}, nil
}
