package qemu_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"lifeboat/internal/source/blocktrack"
	"lifeboat/internal/source/blocktrack/qemu"
	"lifeboat/internal/source/blocktrack/tracktest"
)

// A machine that libvirt runs is tracked through its daemon, over the death of the
// daemon, of the machine and of both, up to the end of all.
func TestLibvirt(t *testing.T) {
	l := tracktest.NewLibvirt(t, 2, diskSize)
	tracker := open(t, l.Machine)
	for i, c := range swap(t, tracker) {
		if !c.All {
			t.Errorf("disk %d: the first Swap names %v", i, c)
		}
	}
	l.Write(1, 7, 3<<20, 8192) // while the cut is held
	if b := content(t, tracker.Devices()[1]); !bytes.Equal(b, make([]byte, diskSize)) {
		t.Error("what is written after the cut is in it")
	}
	release(t, tracker)
	quiet(t, tracker, false)
	want := blocktrack.Range{Offset: 3 << 20, Length: 8192}
	if c := swap(t, tracker); c[0].All || len(c[0].Ranges) > 0 || len(c[1].Ranges) != 1 || c[1].Ranges[0] != want {
		t.Errorf("%v, want %v of disk 1", c, want)
	}
	release(t, tracker)
	quiet(t, tracker, true)
	d, err := tracker.Describe(t.Context())
	if err != nil || d.Name != "harbour" || d.UUID == "" || len(d.CPUs) == 0 || d.Memory != 64<<20 {
		t.Errorf("the machine is told as %+v (%v)", d, err)
	}

	l.KillDaemon()
	var gone *blocktrack.GoneError
	if _, err := tracker.Swap(t.Context()); !errors.As(err, &gone) || !strings.Contains(err.Error(), "start its daemon") {
		t.Errorf("without the daemon: %v", err)
	}
	l.StartDaemon()
	l.Redial()
	l.Write(0, 8, 1<<20, 4096)
	if c := swap(t, tracker); c[0].All || c[1].All || c[0].Bytes() != 4096 || len(c[1].Ranges) > 0 {
		t.Errorf("after the daemon's death: %v", c)
	}

	l.Stop() // in a cut
	if err := tracker.Release(); !errors.Is(err, qemu.ErrBroken) {
		t.Errorf("release: %v, want ErrBroken", err)
	}
	if _, err := tracker.Swap(t.Context()); !errors.As(err, &gone) || !strings.Contains(err.Error(), "is shut off; start it") {
		t.Errorf("machine off: %v", err)
	}
	l.Start()
	if c := swap(t, tracker); !c[0].All || !c[1].All || !strings.Contains(c[0].Why, "no record") {
		t.Errorf("after a new start: %+v", c)
	}
	release(t, tracker)
	l.Stop()
	l.Start() // unseen
	if c := swap(t, tracker); !c[0].All || !c[1].All {
		t.Errorf("after a start unseen: %+v", c)
	}
	release(t, tracker)

	l.Stop()
	l.Virsh("undefine", "harbour")
	if _, err := tracker.Swap(t.Context()); !errors.As(err, &gone) || !strings.Contains(err.Error(), "undefined, or has moved") {
		t.Errorf("undefined: %v", err)
	}
}
