package qemu

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestProbeGuestReports(t *testing.T) {
	program, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Skip("qemu-system-x86_64 is not installed")
	}
	if err := runProbe(t.Context(), program, emulation("test"), 3*time.Minute); err != nil {
		t.Errorf("the probe's guest does not run under emulation: %v", err)
	}
	// A probe that can only fail proves nothing either.
	bad := accelerator{option: "no-such-accelerator", cpu: "qemu64"}
	if err := runProbe(t.Context(), program, bad, 3*time.Minute); err == nil || !strings.Contains(err.Error(), "no-such-accelerator") {
		t.Errorf("error %v, want QEMU's own", err)
	}
}

// TestHungProbe: a guest that never reports is given up, and its process killed.
func TestHungProbe(t *testing.T) {
	dir := t.TempDir()
	pid := filepath.Join(dir, "pid")
	program := filepath.Join(dir, "hung")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho $$ >"+pid+"\nexec sleep 1000\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	err := runProbe(t.Context(), program, kvm, 300*time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "did not get done") {
		t.Errorf("error %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := runProbe(ctx, program, kvm, time.Minute); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want cancelled", err)
	}
	if text, err := os.ReadFile(pid); err == nil {
		if _, err := os.Stat("/proc/" + strings.TrimSpace(string(text))); err == nil {
			t.Errorf("process %s is left", text)
		}
	}
}

// TestProbeIsBounded runs the real probe: whatever this host is, there is an
// answer, and emulation comes with its reason.
func TestProbeIsBounded(t *testing.T) {
	t.Parallel() // it may take all the time there is
	program, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Skip("qemu-system-x86_64 is not installed")
	}
	a := probeKVM(t.Context(), program)
	if a.name != "kvm" && (a.name != "tcg" || a.note == "") {
		t.Errorf("accelerator %+v", a)
	}
	t.Log(a.name, a.note)
}
