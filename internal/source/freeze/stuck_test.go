package freeze_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/source/blocktrack/tracktest"
	"lifeboat/internal/source/freeze"
)

// patience is enough for a disk that answers.
const patience = 4 * time.Second

// hung has a filesystem whose disk can be made to answer no writes, after another one of a
// disk that always does: it lies in a file of a filesystem that is frozen for that.
func hung(t *testing.T) (found []freeze.Mount, answers func(bool)) {
	t.Helper()
	good := tracktest.Loop(t, 64<<20)
	below, _ := tracktest.Mount(t, tracktest.Loop(t, 192<<20), "ext4", "defaults")
	file := filepath.Join(below, "disk")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 64<<20); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "--find", "--show", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	bad := strings.TrimSpace(string(out))
	t.Cleanup(func() { tracktest.Command(t, "losetup", "--detach", bad) })
	tracktest.Mount(t, good, "ext4", "defaults")
	tracktest.Mount(t, bad, "ext4", "defaults")
	found, err = freeze.Mounts([]string{good, bad})
	if err != nil || len(found) != 2 {
		t.Fatalf("mounts %+v, %v", found, err)
	}
	if found[0].Source == bad { // the one that answers is frozen first
		found[0], found[1] = found[1], found[0]
	}
	answering := true
	answers = func(yes bool) {
		t.Helper()
		if yes != answering {
			answering = yes
			if yes {
				tracktest.Command(t, "fsfreeze", "--unfreeze", below)
			} else {
				tracktest.Command(t, "fsfreeze", "--freeze", below)
			}
		}
	}
	t.Cleanup(func() { answers(true) })
	return found, answers
}

func write(t *testing.T, m freeze.Mount) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(m.Dir, "file"), []byte("x"), 0o600); err != nil {
		t.Error(err)
	}
}

// wentOn waits until the guard is of use again, and freezes once more.
func wentOn(t *testing.T, g *freeze.Guard, found []freeze.Mount) {
	t.Helper()
	var stuck *freeze.StuckError
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if err := g.Stuck(); !errors.As(err, &stuck) {
			break
		}
	}
	for _, m := range found {
		write(t, m) // nothing is left frozen
	}
	frozen, err := g.Freeze(found, time.Minute, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := frozen.Thaw(); err != nil {
		t.Error(err)
	}
}

// A filesystem whose disk does not answer holds up neither its flush nor the other
// filesystems, and all is as before once it does.
func TestFlushThatHangs(t *testing.T) {
	found, answers := hung(t)
	g := guard(t)
	write(t, found[1])
	answers(false)
	var stuck *freeze.StuckError
	for range 2 { // the second time it is known
		if _, err := g.Freeze(found, patience, time.Minute); !errors.As(err, &stuck) || stuck.Dir != found[1].Dir || stuck.Step != "flush" {
			t.Fatalf("freeze of a disk that does not answer: %v", err)
		}
	}
	write(t, found[0])
	answers(true)
	wentOn(t, g, found)
}

// Nor does one that hangs in the freeze itself: what was frozen before it goes on within the bound.
func TestFreezeThatHangs(t *testing.T) {
	found, answers := hung(t)
	g := guard(t)
	file, err := os.Create(filepath.Join(found[1].Dir, "busy"))
	if err != nil {
		t.Fatal(err)
	}
	frozen := make(chan error, 1)
	// The disk stops to answer when the first filesystem is frozen already, and something
	// is left to write to the second.
	g.BetweenFreezes(func() {
		_, err := file.WriteString("left to write")
		answers(false)
		frozen <- errors.Join(err, file.Close())
	})
	var stuck *freeze.StuckError
	if _, err := g.Freeze(found, time.Minute, patience); !errors.As(err, &stuck) || stuck.Dir != found[1].Dir || stuck.Step != "freeze" {
		t.Fatalf("freeze of a disk that does not answer: %v", err)
	}
	if err := <-frozen; err != nil {
		t.Fatal(err)
	}
	write(t, found[0])
	if err := g.Close(); !errors.As(err, &stuck) {
		t.Errorf("the guard is closed with %v while it watches over what is stuck", err)
	}
	answers(true)
	write(t, found[1]) // the guard has thawed it, though nobody asked how it went
	wentOn(t, g, found)
}
