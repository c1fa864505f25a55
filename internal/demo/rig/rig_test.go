package rig

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"lifeboat/internal/demo/guest"
)

// What a shell makes of the export lines is what we must make of them.
func TestParseExportsAgreesWithShell(t *testing.T) {
	lines := `export AWS_ENDPOINT_URL='https://127.0.0.1:7443'
export AWS_SECRET_ACCESS_KEY='a+b/c=='
export AWS_CA_BUNDLE='/srv/it'\''s here/ca.pem'
`
	env := parseExports(lines)
	for _, name := range []string{"AWS_ENDPOINT_URL", "AWS_SECRET_ACCESS_KEY", "AWS_CA_BUNDLE"} {
		want, err := exec.Command("sh", "-c", lines+`printf %s "$`+name+`"`).Output()
		if err != nil {
			t.Fatal(err)
		}
		if env[name] != string(want) {
			t.Errorf("%s: got %q, the shell reads %q", name, env[name], want)
		}
	}
}

// A log file that is made late and grows is read to the end of what is there.
func TestFollow(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	path := filepath.Join(t.TempDir(), "console.log")
	console := guest.NewConsole()
	following, stop := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		Follow(following, path, console)
	}()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, text := range []string{"first line\r\nORDERS FOUND fir", "st=1 last=7 missing=0 torn=0\n"} {
		if _, err := file.WriteString(text); err != nil {
			t.Fatal(err)
		}
		if _, err := console.Wait(ctx, 0, regexp.MustCompile(`^first line$`)); err != nil {
			t.Fatal(err)
		}
	}
	found, err := console.Wait(ctx, 0, guest.OrdersFound)
	if err != nil {
		t.Fatal(err)
	}
	if ledger, err := guest.ParseLedger(found); err != nil || ledger.Last != 7 {
		t.Errorf("got %+v, %v", ledger, err)
	}
	why := errors.New("seen enough")
	stop(why)
	<-ended
	if _, err := console.Wait(ctx, 0, regexp.MustCompile(`never printed`)); !errors.Is(err, why) {
		t.Errorf("waiting on an ended console: got %v, want %v", err, why)
	}
}

// A machine that no server is left to stop is ended, and only while it lives: its
// number may be another process's afterwards.
func TestQuitMachines(t *testing.T) {
	rig, err := New("/bin/false", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	instance := filepath.Join(rig.Data(), "instances", "i-0123456789abcdef0")
	if err := os.MkdirAll(instance, 0o700); err != nil {
		t.Fatal(err)
	}
	pidFile := filepath.Join(instance, "qemu.pid")
	qemu := exec.Command("qemu-system-x86_64", "-accel", "tcg", "-nodefaults", "-display", "none", "-S", "-m", "16",
		"-pidfile", pidFile, "-serial", "stdio")
	if err := qemu.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = qemu.Process.Kill() })
	ended := make(chan struct{})
	go func() { defer close(ended); _ = qemu.Wait() }()

	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	for { // until it has written its number
		if text, err := os.ReadFile(pidFile); err == nil && len(text) > 0 {
			break
		}
		if err := Pause(ctx, 10*time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	if err := rig.QuitMachines(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-ctx.Done():
		t.Fatal("QEMU still runs")
	}

	// The file is left, and names a process that is no machine.
	bystander := exec.Command("sleep", "60")
	if err := bystander.Start(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(pidFile, []byte(strconv.Itoa(bystander.Process.Pid)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := rig.QuitMachines(); err != nil {
		t.Errorf("quitting what has ended: %v", err)
	}
	if err := bystander.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("a bystander was hit: %v", err)
	}
	_ = bystander.Process.Kill()
	_ = bystander.Wait()
}
