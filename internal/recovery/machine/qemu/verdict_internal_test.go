package qemu

import (
	"os"
	"path/filepath"
	"testing"
)

func TestVerdictIsRememberedForThisBootAndProgram(t *testing.T) {
	dir, program := t.TempDir(), "qemu-system-x86_64"
	if _, known, _ := remembered(dir, program); known {
		t.Fatal("a verdict out of thin air")
	}
	if err := remember(dir, program, emulation("it hangs")); err != nil {
		t.Fatal(err)
	}
	a, known, fresh := remembered(dir, program)
	if !known || !fresh || a.name != "tcg" || a.note != emulation("it hangs").note || a.option == "" {
		t.Errorf("remembered %+v, known %v, fresh %v", a, known, fresh)
	}
	if _, known, _ := remembered(dir, "/bin/true"); known {
		t.Error("another emulator has the verdict of this one")
	}
	for name, text := range map[string]string{
		"another boot": `{"boot":"another","program":` + quoted(programID(program)) + `,"kvm":true}`,
		"damaged":      `{"boot":`,
		"an old one": `{"boot":` + quoted(bootID()) + `,"program":` + quoted(programID(program)) +
			`,"at":"2020-01-01T00:00:00Z","note":"then"}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, verdictFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, known, fresh := remembered(dir, program)
		if want := name == "an old one"; known != want || fresh {
			t.Errorf("%s: known %v, fresh %v", name, known, fresh)
		}
	}
}

func quoted(s string) string { return `"` + s + `"` }
