package qemu_test

import (
	"context"
	"testing"

	"lifeboat/internal/source/blocktrack"
	"lifeboat/internal/source/blocktrack/qemu"
	"lifeboat/internal/source/blocktrack/tracktest"
)

// What every tracker must do, this one does for writes that reach a machine's disks
// through QEMU.
func TestContract(t *testing.T) {
	machines := map[string]*tracktest.Machine{} // by the first of their devices
	disks := func(t *testing.T, n int, size int64) []string {
		m := tracktest.NewMachine(t, n, size)
		devices := m.Devices()
		machines[devices[0]] = m
		return devices
	}
	tracktest.SuiteOn(t, disks, func(t *testing.T, devices []string, _ int64) blocktrack.Tracker {
		tracker, err := qemu.Open(t.Context(), qemu.Options{Address: machines[devices[0]].Address, Grain: 4096})
		if err != nil {
			t.Fatal(err)
		}
		return letGo{tracker}
	})
}

// letGo releases each cut at once. While one is held QEMU does nothing on a discard,
// which then changes no block.
type letGo struct{ *qemu.Tracker }

func (l letGo) Swap(ctx context.Context) ([]blocktrack.Changes, error) {
	changes, err := l.Tracker.Swap(ctx)
	if err == nil {
		err = l.Release()
	}
	return changes, err
}
