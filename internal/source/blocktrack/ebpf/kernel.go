package ebpf

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const kernelTypes = "/sys/kernel/btf/vmlinux"

// checkKernel says in plain words what the kernel lacks, where that can be told
// before the programs are loaded.
func checkKernel() error {
	raw, err := os.ReadFile("/sys/kernel/security/lockdown")
	if err == nil && strings.Contains(string(raw), "[confidentiality]") {
		return unavailable("the kernel is locked down (confidentiality mode)")
	}
	if _, err := os.Stat(kernelTypes); errors.Is(err, fs.ErrNotExist) {
		return unavailable("kernel %s does not describe its types (no %s; CONFIG_DEBUG_INFO_BTF)", release(), kernelTypes)
	}
	return nil
}

// explain turns the error of loading or attaching into a reason.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES) && os.Geteuid() != 0:
		return &UnavailableError{"not permitted: run the agent as root, or with CAP_BPF and CAP_PERFMON", err}
	case errors.Is(err, unix.ENOMEM):
		return &UnavailableError{"no memory for the bitmaps: raise the limit on locked memory (ulimit -l)", err}
	}
	return &UnavailableError{"kernel " + release() + " does not take the programs (Linux 5.12 or newer is needed)", err}
}

func release() string {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return "?"
	}
	return unix.ByteSliceToString(name.Release[:])
}
