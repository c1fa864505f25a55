package qemu

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"lifeboat/internal/durable"
)

// flash is an image for a flash chip.
type flash struct{ path, format string }

// firmware is the UEFI implementation of a machine; the zero value is QEMU's own
// BIOS.
type firmware struct {
	code flash // shared, read-only
	vars flash // template of the machine's own settings
}

// firmwareDirs hold descriptions of installed firmware in QEMU's own format
// (docs/interop/firmware.json); a file in a later directory replaces one of the
// same name in an earlier one.
var firmwareDirs = []string{"/usr/share/qemu/firmware", "/usr/local/share/qemu/firmware", "/etc/qemu/firmware"}

var errNoUEFI = errors.New("no UEFI firmware for q35 machines is installed: install the package ovmf (Debian, Ubuntu) or edk2-ovmf (Fedora, RHEL, Arch)")

// descriptor is the part of a firmware description that matters here.
type descriptor struct {
	Interfaces []string `json:"interface-types"`
	Mapping    struct {
		Device     string         `json:"device"`
		Mode       string         `json:"mode"`
		Executable descriptorFile `json:"executable"`
		Template   descriptorFile `json:"nvram-template"`
	} `json:"mapping"`
	Targets []struct {
		Architecture string   `json:"architecture"`
		Machines     []string `json:"machines"`
	} `json:"targets"`
	Features []string `json:"features"`
}

type descriptorFile struct {
	Filename string `json:"filename"`
	Format   string `json:"format"`
}

// findUEFI returns the first installed firmware, in the order that the
// distribution set, that boots any x86-64 disk: without secure boot, which would
// refuse disks it does not know.
func findUEFI(dirs []string) (firmware, error) {
	files := map[string]string{}
	for _, dir := range dirs {
		paths, err := filepath.Glob(filepath.Join(dir, "*.json"))
		if err != nil {
			return firmware{}, err
		}
		for _, p := range paths {
			files[filepath.Base(p)] = p
		}
	}
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		text, err := os.ReadFile(files[name])
		if err != nil {
			return firmware{}, fmt.Errorf("firmware description: %w", err)
		}
		var d descriptor
		if json.Unmarshal(text, &d) != nil {
			continue // somebody else's broken file must not stop a recovery
		}
		if fw, ok := d.usable(); ok {
			return fw, nil
		}
	}
	return firmware{}, errNoUEFI
}

func (d descriptor) usable() (firmware, bool) {
	fw := firmware{
		code: flash{d.Mapping.Executable.Filename, d.Mapping.Executable.Format},
		vars: flash{d.Mapping.Template.Filename, d.Mapping.Template.Format},
	}
	switch {
	case !slices.Contains(d.Interfaces, "uefi"),
		d.Mapping.Device != "flash",
		d.Mapping.Mode != "" && d.Mapping.Mode != "split",
		slices.Contains(d.Features, "secure-boot"),
		slices.Contains(d.Features, "requires-smm"),
		!d.runsQ35(),
		!fw.code.exists(), !fw.vars.exists():
		return firmware{}, false
	}
	return fw, true
}

func (d descriptor) runsQ35() bool {
	for _, t := range d.Targets {
		if t.Architecture == "x86_64" && slices.ContainsFunc(t.Machines, func(m string) bool { return strings.HasPrefix(m, "pc-q35-") || m == "q35" }) {
			return true
		}
	}
	return false
}

func (f flash) exists() bool {
	if f.format != "raw" && f.format != "qcow2" {
		return false
	}
	info, err := os.Stat(f.path)
	return err == nil && info.Mode().IsRegular()
}

// maxVars bounds the template of UEFI settings; real ones have 128 to 528 KiB.
const maxVars = 64 << 20

// keepVars gives the machine settings of its own, copied from the template. Those
// it has from an earlier start are kept: they hold its boot entries.
func (d machineDir) keepVars(fw firmware) error {
	if fw.vars.path == "" {
		return nil
	}
	_, err := os.Lstat(d.path(varsFile))
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	info, err := os.Stat(fw.vars.path)
	if err != nil {
		return err
	}
	if info.Size() > maxVars {
		return fmt.Errorf("UEFI settings template %s has %d bytes: want at most %d", fw.vars.path, info.Size(), maxVars)
	}
	template, err := os.ReadFile(fw.vars.path)
	if err != nil {
		return err
	}
	return durable.Files{}.WriteFile("uefi settings", d.path(varsFile), template, 0o600)
}
