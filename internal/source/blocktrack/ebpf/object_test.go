package ebpf

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The committed object is that of the committed source: by the note made when it
// was built, and by building it again where the same compiler is at hand.
func TestObjectMatchesItsSource(t *testing.T) {
	source, err := os.ReadFile("bpf/track.c")
	if err != nil {
		t.Fatal(err)
	}
	note, err := os.ReadFile("bpf/track.o.made-of")
	if err != nil {
		t.Fatal(err)
	}
	if sum := fmt.Sprintf("source %x\n", sha256.Sum256(source)); !strings.Contains(string(note), sum) {
		t.Fatalf("track.o is not made of this track.c: run make generate (which needs clang) and commit both")
	}
	version, err := exec.Command("clang", "--version").Output()
	if first, _, _ := strings.Cut(string(version), "\n"); err != nil || !strings.Contains(string(note), "compiler "+first+"\n") {
		t.Skip("the compiler that made track.o is not here")
	}
	if _, err := exec.LookPath("llvm-strip"); err != nil {
		t.Skip("no llvm-strip here")
	}
	again := filepath.Join(t.TempDir(), "track.o")
	if out, err := exec.Command("bpf/build.sh", again).CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	built, err := os.ReadFile(again)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(built, object) {
		t.Error("track.o differs from what its source gives: run make generate")
	}
}
