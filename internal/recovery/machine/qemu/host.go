package qemu

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"lifeboat/internal/recovery/convert"
)

// Host returns what this host can give to machines: the processors this process
// may use, and the memory of the host or, if less, of its control group.
func Host() (convert.Host, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return convert.Host{}, fmt.Errorf("memory of the host: %w", err)
	}
	h := convert.Host{CPUs: runtime.NumCPU(), Memory: int64(info.Totalram) * int64(info.Unit)}
	// "max", an old kernel or no such group: the host's memory is the limit.
	if text, err := os.ReadFile("/sys/fs/cgroup/memory.max"); err == nil {
		if limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && limit > 0 {
			h.Memory = min(h.Memory, limit)
		}
	}
	return h, nil
}
