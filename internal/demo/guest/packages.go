package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// kernelPackages are the packages that stand for "the kernel of this release",
// smallest first: Debian's and Ubuntu's kernels for virtual machines, then
// their general ones.
var kernelPackages = []string{
	"linux-image-cloud-amd64", "linux-image-virtual", "linux-image-amd64", "linux-image-generic",
}

// fetchPackages downloads kernel and busybox with apt-get, which checks their
// signatures, and unpacks them into tree. Nothing is installed. It returns the
// name of the kernel's package.
func fetchPackages(ctx context.Context, work, tree string) (string, error) {
	for _, tool := range []string{"apt-get", "apt-cache", "dpkg-deb"} {
		if _, err := exec.LookPath(tool); err != nil {
			return "", fmt.Errorf("guests are made of Debian or Ubuntu packages, and %s is not here: run on Debian or Ubuntu, or in a container of one", tool)
		}
	}
	packages, err := choosePackages(ctx)
	if err == nil {
		err = download(ctx, work, packages)
	}
	if err != nil {
		// Missing or outdated package lists are the usual cause; root can mend that.
		if os.Geteuid() != 0 {
			return "", fmt.Errorf("%w; as root run: apt-get update", err)
		}
		if _, updateErr := apt(ctx, work, "apt-get", "-q", "update"); updateErr != nil {
			return "", errors.Join(err, updateErr)
		}
		if packages, err = choosePackages(ctx); err != nil {
			return "", err
		}
		if err = download(ctx, work, packages); err != nil {
			return "", err
		}
	}
	archives, err := filepath.Glob(filepath.Join(work, "*.deb"))
	if err != nil {
		return "", err
	}
	for _, archive := range archives {
		if _, err := apt(ctx, work, "dpkg-deb", "-x", archive, tree); err != nil {
			return "", err
		}
	}
	return packages[0], nil
}

// choosePackages resolves the packages to fetch, the kernel's first.
func choosePackages(ctx context.Context) ([]string, error) {
	for _, name := range kernelPackages {
		depends, err := apt(ctx, "", "apt-cache", "depends", "--important", name)
		if err != nil {
			continue // not offered by this release
		}
		for line := range strings.Lines(depends) {
			kernel, found := strings.CutPrefix(strings.TrimSpace(line), "Depends: ")
			if !found || !strings.HasPrefix(kernel, "linux-image-") {
				continue
			}
			packages := []string{kernel, "busybox-static"}
			// Ubuntu keeps the modules in a package of their own.
			modules := strings.Replace(kernel, "linux-image-", "linux-modules-", 1)
			if _, err := apt(ctx, "", "apt-cache", "show", modules); err == nil {
				packages = append(packages, modules)
			}
			return packages, nil
		}
	}
	return nil, fmt.Errorf("apt offers no kernel package (looked for %s)", strings.Join(kernelPackages, ", "))
}

func download(ctx context.Context, dir string, packages []string) error {
	_, err := apt(ctx, dir, "apt-get", append([]string{"-q", "download"}, packages...)...)
	return err
}

// apt runs one of the package tools in dir and returns what it printed.
func apt(ctx context.Context, dir, tool string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, tool, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", tool, strings.Join(args, " "), err, strings.TrimSpace(complaints.String()))
	}
	return string(out), nil
}
