package guest

import (
	"compress/gzip"
	_ "embed"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// rootLabel is the label of the root filesystem; the machine finds it by that on
// whatever bus it comes back.
const rootLabel = "guestroot"

//go:embed files/initrd-init
var initrdInit string

//go:embed files/init
var rootInit []byte

//go:embed files/orders
var ordersScript []byte

//go:embed files/agent
var agentScript []byte

// writeRoot lays out the root filesystem of the machine below dir.
func writeRoot(dir string, spec Spec, kit kit) error {
	for _, sub := range []string{
		"bin", "sbin", "boot/grub", "dev", "etc/acpi/PWRF", "proc", "sys", "run", "tmp", "var/lib/orders",
	} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	if err := copyFile(kit.kernel(), filepath.Join(dir, "boot/vmlinuz"), 0o644); err != nil {
		return err
	}
	if err := writeInitrd(filepath.Join(dir, "boot/initrd.gz"), kit); err != nil {
		return err
	}
	if err := copyFile(kit.busybox(), filepath.Join(dir, "bin/busybox"), 0o755); err != nil {
		return err
	}
	for _, applet := range kit.Applets {
		if applet == "busybox" || applet == "init" {
			continue
		}
		if err := os.Symlink("/bin/busybox", filepath.Join(dir, "bin", applet)); err != nil {
			return err
		}
	}
	shown := slices.Sorted(maps.Keys(spec.Files))
	files := map[string][]byte{
		"sbin/init":              rootInit,
		"sbin/orders":            ordersScript,
		"etc/acpi/PWRF/00000080": []byte("#!/bin/sh\nsync\npoweroff -f\n"),
		"etc/hostname":           []byte(spec.Hostname + "\n"),
		"etc/shown-files":        []byte(strings.Join(append(shown, ""), "\n")),
		"boot/grub/grub.cfg":     []byte(grubConfig),
		"var/lib/orders/ledger":  nil, // its directory entry must not depend on the first order
	}
	if spec.Orders != nil {
		files["etc/orders.conf"] = fmt.Appendf(nil, "PER_SECOND=%d\nBURST=%d\nREST_MS=%d\n",
			spec.Orders.PerSecond, spec.Orders.Burst, spec.Orders.Rest.Milliseconds())
	}
	if a := spec.Agent; a != nil {
		authority, err := os.ReadFile(a.CAFile)
		if err != nil {
			return err
		}
		if err := copyFile(a.Binary, filepath.Join(dir, "sbin/lifeboat"), 0o755); err != nil {
			return err
		}
		files["sbin/agent"] = agentScript
		files["etc/lifeboat/ca.pem"] = authority
		files["etc/lifeboat/token"] = []byte(a.Token + "\n")
		files["etc/lifeboat/arguments"] = []byte(strings.Join(append([]string{"--server", a.Server}, a.Args...), " ") + "\n")
	}
	for path, content := range spec.Files {
		files[strings.TrimPrefix(path, "/")] = content
	}
	for path, content := range files {
		full := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			return err
		}
		mode := os.FileMode(0o644)
		if strings.HasPrefix(path, "sbin/") || strings.HasPrefix(path, "etc/acpi/") {
			mode = 0o755
		}
		if err := os.WriteFile(full, content, mode); err != nil {
			return err
		}
	}
	return nil
}

// writeInitrd writes the archive that the kernel starts from: busybox, the
// modules and the first init.
func writeInitrd(path string, kit kit) (err error) {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := file.Close(); err == nil {
			err = closeErr
		}
	}()
	compressed := gzip.NewWriter(file)
	archive := newCPIO(compressed)
	for _, dir := range []string{"bin", "dev", "proc", "root", "modules"} {
		archive.dir(dir)
	}
	archive.charDevice("dev/console", 5, 1) // or the first lines of init would go nowhere
	busybox, err := os.ReadFile(kit.busybox())
	if err != nil {
		return err
	}
	archive.file("bin/busybox", 0o755, busybox)
	archive.file("init", 0o755, []byte(strings.ReplaceAll(initrdInit, "@LABEL@", rootLabel)))
	archive.file("modules/order", 0o644, []byte(strings.Join(kit.Modules, "\n")+"\n"))
	for _, name := range kit.Modules {
		image, err := os.ReadFile(kit.module(name))
		if err != nil {
			return err
		}
		archive.file("modules/"+name, 0o644, image)
	}
	if err := archive.close(); err != nil {
		return err
	}
	return compressed.Close()
}
