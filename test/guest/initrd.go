package guest

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	parts "lifeboat/internal/demo/guest"
)

// modules reach the disks and stack devices on them.
var modules = []string{
	"virtio_pci", "virtio_blk", "nvme", "virtio_console", "virtio_net", "virtio_rng",
	"ext4", "crc32c_generic", "xfs", "dm_mod", "dm_crypt", "xts", "ecb", "aes_generic", "essiv", "md_mod", "raid0", "raid1",
}

// tools of the host that machines have besides busybox.
var tools = []string{"mke2fs", "mkfs.xfs", "dmsetup", "e2fsck", "xfs_repair", "lvm"}

const initScript = `#!/bin/sh
export PATH=/bin HOME=/
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /tmp /mnt /run/lock /etc/lvm
mount -t tmpfs tmp /tmp
for module in $(cat /modules/order); do insmod /modules/$module 2>/dev/null; done
ip link set lo up
ip addr add 10.0.2.15/24 dev eth0 && ip link set eth0 up && ip route add default via 10.0.2.2
echo GUEST READY
exec /inside serve
`

// writeInitrd writes the only filesystem of a machine: busybox, modules, tools and
// the helper.
func writeInitrd(ctx context.Context, path string, more map[string]string, with []string) (kernel string, err error) {
	p, err := parts.OpenParts(ctx, modules)
	if err != nil {
		return "", err
	}
	helper := filepath.Join(filepath.Dir(path), "inside")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", helper, "lifeboat/test/guest/inside")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the helper: %w: %s", err, out)
	}
	files := map[string]string{"inside": helper, "bin/busybox": p.Busybox} // in the guest: on the host
	maps.Copy(files, more)
	for _, tool := range slices.Concat(tools, with) {
		if err := addTool(ctx, files, tool); err != nil {
			return "", err
		}
	}
	var order []string
	for _, m := range p.Modules {
		order = append(order, filepath.Base(m))
		files["modules/"+filepath.Base(m)] = m
	}
	out, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer out.Close()
	archive := parts.NewArchive(out)
	for _, dir := range directories(files, "dev", "proc", "sys") {
		archive.Dir(dir)
	}
	for name, from := range files {
		data, err := os.ReadFile(from)
		if err != nil {
			return "", err
		}
		archive.File(name, 0o755, data)
	}
	for _, applet := range p.Applets {
		if _, taken := files["bin/"+applet]; !taken {
			archive.Link("bin/"+applet, "/bin/busybox")
		}
	}
	archive.File("modules/order", 0o644, []byte(strings.Join(order, "\n")+"\n"))
	archive.File("init", 0o755, []byte(initScript))
	if err := archive.Close(); err != nil {
		return "", err
	}
	return p.Kernel, out.Close()
}

// addTool adds a program of the host and the libraries it is linked with.
func addTool(ctx context.Context, files map[string]string, tool string) error {
	path, err := exec.LookPath(tool)
	if err != nil {
		path = filepath.Join("/usr/sbin", tool)
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("%s is missing on this host: run make setup-test", tool)
		}
	}
	files["bin/"+tool] = path
	libraries, err := exec.CommandContext(ctx, "ldd", path).Output()
	if err != nil {
		return fmt.Errorf("libraries of %s: %w", tool, err)
	}
	for line := range strings.Lines(string(libraries)) {
		for _, field := range strings.Fields(line) {
			if strings.HasPrefix(field, "/") {
				files[strings.TrimPrefix(field, "/")] = field
			}
		}
	}
	return nil
}

// directories lists what must be there for the files, from the top down.
func directories(files map[string]string, more ...string) []string {
	seen := map[string]bool{".": true}
	var list []string
	var add func(dir string)
	add = func(dir string) {
		if !seen[dir] {
			seen[dir] = true
			add(filepath.Dir(dir))
			list = append(list, dir)
		}
	}
	for name := range files {
		add(filepath.Dir(name))
	}
	for _, dir := range more {
		add(dir)
	}
	return list
}
