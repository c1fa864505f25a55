package freeze_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"lifeboat/internal/source/blocktrack/tracktest"
	"lifeboat/internal/source/freeze"
)

// role makes this test binary a guard, or an owner that freezes and hangs.
const role = "LIFEBOAT_FREEZE_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "owner":
		if err := hang(os.Args[1], os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	case "guard":
		if err := freeze.Watch(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// hang freezes the filesystems of disks, says so, and does no more until its input ends.
// Then it thaws them and says how that went.
func hang(within string, disks []string) error {
	bound, err := time.ParseDuration(within)
	if err != nil {
		return err
	}
	g, err := startGuard()
	if err != nil {
		return err
	}
	found, err := freeze.Mounts(disks)
	if err != nil {
		return err
	}
	frozen, err := freezeWithin(g, found, bound)
	if err != nil {
		return err
	}
	fmt.Println("frozen")
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	_, err = frozen.Thaw()
	fmt.Println(err)
	return g.Close()
}

// freezeWithin freezes with a short bound, or a longer one where this machine is too slow.
func freezeWithin(g *freeze.Guard, found []freeze.Mount, bound time.Duration) (*freeze.Frozen, error) {
	for {
		frozen, err := g.Freeze(found, time.Minute, bound)
		var stuck *freeze.StuckError
		if !errors.As(err, &stuck) || bound > time.Minute {
			return frozen, err
		}
		for g.Stuck() != nil {
			time.Sleep(10 * time.Millisecond)
		}
		bound *= 2
	}
}

func startGuard() (*freeze.Guard, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return freeze.StartGuard([]string{"/usr/bin/env", role + "=guard", self})
}

func guard(t *testing.T) *freeze.Guard {
	t.Helper()
	g, err := startGuard()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return g
}

// mounts has two disks with a filesystem each.
func mounts(t *testing.T) (disks []string, found []freeze.Mount) {
	t.Helper()
	for _, filesystem := range []string{"ext4", "xfs"} {
		disk := tracktest.Loop(t, 320<<20)
		tracktest.Mount(t, disk, filesystem, "defaults")
		disks = append(disks, disk)
	}
	found, err := freeze.Mounts(disks)
	if err != nil {
		t.Fatal(err)
	}
	return disks, found
}

func TestMounts(t *testing.T) {
	disks, found := mounts(t)
	var sources []string
	for _, m := range found {
		sources = append(sources, m.Source)
	}
	want := slices.Clone(disks)
	slices.Reverse(want) // the latest first
	if !slices.Equal(sources, want) {
		t.Errorf("mounts %+v, want those of %v", found, want)
	}
	if one, err := freeze.Mounts(disks[1:]); err != nil || len(one) != 1 || one[0].Type != "xfs" {
		t.Errorf("of one disk: %+v, %v", one, err)
	}
}

// Nothing is written while frozen, and everything after.
func TestFreezeHoldsWriters(t *testing.T) {
	_, found := mounts(t)
	g := guard(t)
	for range 3 {
		frozen, err := g.Freeze(found, time.Minute, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if !frozen.Whole {
			t.Error("not all are frozen")
		}
		wrote := make(chan error, len(found))
		for _, m := range found {
			go func() { wrote <- os.WriteFile(filepath.Join(m.Dir, "file"), []byte("x"), 0o600) }()
		}
		select {
		case err := <-wrote:
			t.Errorf("a write to a frozen filesystem came back: %v", err)
		case <-time.After(50 * time.Millisecond):
		}
		if _, err := frozen.Thaw(); err != nil {
			t.Error(err)
		}
		for range found {
			if err := <-wrote; err != nil {
				t.Error(err)
			}
		}
	}
}

// Past its bound a freeze ends without its owner, who is told so.
func TestGuardThaws(t *testing.T) {
	_, found := mounts(t)
	g := guard(t)
	frozen, err := freezeWithin(g, found, 100*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range found { // waits for the guard
		if err := os.WriteFile(filepath.Join(m.Dir, "file"), []byte("x"), 0o600); err != nil {
			t.Error(err)
		}
	}
	if _, err := frozen.Thaw(); !errors.Is(err, freeze.ErrThawed) {
		t.Errorf("thaw: %v, want %v", err, freeze.ErrThawed)
	}
	// And it is of use again.
	frozen, err = g.Freeze(found, time.Minute, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := frozen.Thaw(); err != nil {
		t.Error(err)
	}
}

// A filesystem that somebody else holds is not ours to thaw, and what was frozen
// before it is let go.
func TestFrozenByAnother(t *testing.T) {
	_, found := mounts(t)
	tracktest.Command(t, "fsfreeze", "--freeze", found[1].Dir)
	held := true
	defer func() {
		if held {
			tracktest.Command(t, "fsfreeze", "--unfreeze", found[1].Dir)
		}
	}()
	g := guard(t)
	if _, err := g.Freeze(found, time.Minute, time.Minute); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("freeze: %v, want %v", err, syscall.EBUSY)
	}
	if err := os.WriteFile(filepath.Join(found[0].Dir, "file"), []byte("x"), 0o600); err != nil {
		t.Error(err)
	}
	held = false
	tracktest.Command(t, "fsfreeze", "--unfreeze", found[1].Dir) // it is still frozen

	// Nor is it when it comes first, and the bound has passed.
	tracktest.Command(t, "fsfreeze", "--freeze", found[0].Dir)
	held, found[1] = true, found[0]
	const bound = 2 * time.Second
	if _, err := freezeWithin(g, found[:1], bound); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("freeze: %v, want %v", err, syscall.EBUSY)
	}
	time.Sleep(bound + 200*time.Millisecond) // a guard that was not told would thaw it by now
	held = false
	tracktest.Command(t, "fsfreeze", "--unfreeze", found[0].Dir) // it is still frozen
}

// An owner that is killed while it holds filesystems does not take them along.
func TestOwnerKilled(t *testing.T) {
	disks, found := mounts(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	owner := exec.Command(self, append([]string{"1h"}, disks...)...)
	owner.Env = append(os.Environ(), role+"=owner")
	if _, err := owner.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	complaints, err := owner.StderrPipe() // the guard has it too
	if err != nil {
		t.Fatal(err)
	}
	out, err := owner.StdoutPipe()
	if err == nil {
		err = owner.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "frozen\n" {
		t.Fatalf("the owner says %q, %v", line, err)
	}
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// Ends with the last of the two, which lets go of the directories.
	if said, err := io.ReadAll(complaints); err != nil || len(said) > 0 {
		t.Errorf("%s%v", said, err)
	}
	_ = owner.Wait()          // it was killed
	for _, m := range found { // waits for the guard
		if err := os.WriteFile(filepath.Join(m.Dir, "file"), []byte("x"), 0o600); err != nil {
			t.Error(err)
		}
	}
}

// An owner that is stopped while it holds filesystems does not hold them past the bound,
// and is told so when it goes on.
func TestOwnerStopped(t *testing.T) {
	disks, found := mounts(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	owner := exec.Command(self, append([]string{"2s"}, disks...)...)
	owner.Env = append(os.Environ(), role+"=owner")
	owner.Stderr = os.Stderr
	in, err := owner.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := owner.StdoutPipe()
	if err == nil {
		err = owner.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	says := bufio.NewReader(out)
	if line, err := says.ReadString('\n'); err != nil || line != "frozen\n" {
		t.Fatalf("the owner says %q, %v", line, err)
	}
	if err := owner.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for _, m := range found { // waits for the guard
		if err := os.WriteFile(filepath.Join(m.Dir, "file"), []byte("x"), 0o600); err != nil {
			t.Error(err)
		}
	}
	if err := owner.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	_ = in.Close() // it goes on
	if line, err := says.ReadString('\n'); err != nil || line != freeze.ErrThawed.Error()+"\n" {
		t.Errorf("after it was stopped the owner says %q, %v", line, err)
	}
	if err := owner.Wait(); err != nil {
		t.Error(err)
	}
}
