package qemu

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFindUEFI(t *testing.T) {
	root := t.TempDir()
	vendor, admin := filepath.Join(root, "vendor"), filepath.Join(root, "admin")
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "ROOT", root)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	describe := func(path, code, machines, features string) {
		t.Helper()
		write(path, `{"interface-types": ["uefi"], "mapping": {"device": "flash",
			"executable": {"filename": "ROOT/`+code+`", "format": "raw"}, "nvram-template": {"filename": "ROOT/vars", "format": "raw"}},
			"targets": [{"architecture": "x86_64", "machines": ["`+machines+`"]}], "features": [`+features+`]}`)
	}
	find := func() string {
		fw, err := findUEFI([]string{vendor, admin})
		if errors.Is(err, errNoUEFI) {
			return "none"
		}
		if err != nil {
			t.Fatal(err)
		}
		return filepath.Base(fw.code.path)
	}
	if got := find(); got != "none" {
		t.Errorf("nothing installed: found %s", got)
	}
	for _, f := range []string{"vars", "secure", "micro", "plain", "local"} {
		write(filepath.Join(root, f), "")
	}
	describe(filepath.Join(vendor, "10-secure.json"), "secure", "pc-q35-*", `"secure-boot", "requires-smm"`)
	describe(filepath.Join(vendor, "20-micro.json"), "micro", "microvm", "")
	describe(filepath.Join(vendor, "30-gone.json"), "not there", "pc-q35-*", "")
	write(filepath.Join(vendor, "35-broken.json"), "{")
	if got := find(); got != "none" {
		t.Errorf("nothing usable: found %s", got)
	}
	describe(filepath.Join(vendor, "40-plain.json"), "plain", "pc-q35-*", `"acpi-s3"`)
	if got := find(); got != "plain" {
		t.Errorf("found %s, want plain", got)
	}
	describe(filepath.Join(admin, "30-gone.json"), "local", "pc-q35-*", "")
	if got := find(); got != "local" {
		t.Errorf("found %s, want the administrator's local", got)
	}
}
