package service

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// systemd takes the unit as it is meant, whatever is in the settings.
func TestUnitIsAcceptedBySystemd(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("no systemd-analyze here")
	}
	for _, hooks := range []bool{false, true} {
		unit := Unit(Settings{Args: []string{"--hostname", "a \"1\" $HOME 100% \\ name", "--disk", "/dev/sda"}, Hooks: hooks})
		// The program need not be installed to look at the unit.
		unit = strings.ReplaceAll(unit, "ExecStart="+Program, "ExecStart=/bin/true")
		path := filepath.Join(t.TempDir(), Name)
		if err := os.WriteFile(path, []byte(unit), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("systemd-analyze", "verify", "--man=no", path).CombinedOutput()
		if err != nil || strings.Contains(string(out), Name) {
			t.Errorf("systemd-analyze verify: %v: %s\n%s", err, out, unit)
		}
	}
}

// What an installation was interrupted in can be done again, and what the user
// keeps beside it is not touched.
func TestUninstallLeavesWhatIsNotItsOwn(t *testing.T) {
	p := Place{Root: t.TempDir()}
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, []byte("#!/bin/true"), 0o755); err != nil {
		t.Fatal(err)
	}
	s := Settings{Args: []string{"--disk", "/disk"}, State: "/state"}
	for range 2 {
		if err := p.Install(t.Context(), program, s, []byte("authority"), "token"); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := p.Installed(); err != nil || got.State != s.State || got.Args[1] != "/disk" {
		t.Errorf("settings %+v, %v", got, err)
	}
	for name, keep := range map[string]bool{"state/mine": true, configDir + "/mine": true, "state/identity.json": false} {
		path := p.path(name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if _, err := os.Stat(path); (err == nil) != keep {
				t.Errorf("%s: %v, kept must be %v", name, err, keep)
			}
		}()
	}
	err := p.Uninstall(t.Context(), true)
	if err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("a state directory with something else in it: %v", err)
	}
	if err := os.Rename(p.path("state/mine"), p.path("mine")); err != nil {
		t.Fatal(err)
	}
	if err := p.Uninstall(t.Context(), true); err != nil {
		t.Errorf("again: %v", err)
	}
	if err := os.MkdirAll(p.path("state"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(p.path("mine"), p.path("state/mine")); err != nil {
		t.Fatal(err)
	}
}
