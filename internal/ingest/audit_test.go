package ingest_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"

	"strings"
)

// What changed behind the tracker's back, the audit finds and sends.
func TestAuditHealsWhatTheTrackerMissed(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("loop devices need root")
	}
	back := image(t, 8<<20, seed(t))
	out, err := exec.Command("losetup", "--find", "--show", back).Output()
	if err != nil {
		t.Skipf("no loop device here: %v", err)
	}
	loop := strings.TrimSpace(string(out))
	defer exec.Command("losetup", "--detach", loop).Run()
	if !tracked(loop) {
		t.Skip("writes cannot be tracked here")
	}
	r := newRig(t, nil)
	cfg := r.config(t.TempDir(), loop)
	cfg.AuditIn = time.Second
	a := runAgent(cfg)
	defer a.stop(t)
	r.catalog.await(t, "the first point", func() bool { return len(r.catalog.points) == 1 })
	server := r.only()
	first := len(r.catalog.points[server])

	f, err := os.OpenFile(back, os.O_WRONLY, 0) // not the device: nobody sees it
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("behind its back"), 5<<20); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
	r.catalog.await(t, "a point with what the audit found", func() bool { return len(r.catalog.points[server]) > first })
	p := r.takePoint(server)
	if got := content(t, r.vault, server, p.ID, 0); !bytes.Equal(got[5<<20:5<<20+15], []byte("behind its back")) {
		t.Error("what was missed is not in the vault")
	}
}
