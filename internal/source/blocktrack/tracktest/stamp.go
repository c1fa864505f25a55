package tracktest

import (
	"context"
	"fmt"
	"testing"
)

// Stamps lie on the first two disks of a machine, in places so far apart. Number n is
// written to disk n%2 at place n/2%stampSlots, when the number before is on its disk.
const (
	stampSlots = 64
	stampStep  = 70000 / 4096 * 4096
)

// Stamp writes numbers to two disks in turn, without a pause, until ctx ends.
func (m *Machine) Stamp(ctx context.Context) error {
	for n := 1; ctx.Err() == nil; n++ {
		place := n / 2
		command := fmt.Sprintf("write -q -P %d %d 4096", 1+place/stampSlots%250, place%stampSlots*stampStep)
		if err := m.IO(context.WithoutCancel(ctx), n%2, command); err != nil {
			return err
		}
	}
	return nil
}

// Stamped checks that two disks hold the beginning of what Stamp wrote, to the same
// number, and returns about how many those are.
func Stamped(t *testing.T, disks [2][]byte) int {
	t.Helper()
	last := [2]int{lastStamp(t, disks[0], true), lastStamp(t, disks[1], false)}
	// Place k is on disk 0 before it is on disk 1.
	if d := last[0] - last[1]; d != 0 && d != 1 {
		t.Errorf("places %d and %d: not one moment", last[0], last[1])
	}
	return 2 * last[1]
}

// lastStamp returns the place that was written last, and checks that all before it were.
func lastStamp(t *testing.T, disk []byte, first bool) int {
	t.Helper()
	last := -1
	at := func(slot int) int { return int(disk[slot*stampStep]) }
	for slot := range stampSlots {
		if v := at(slot); v > 0 {
			last = max(last, (v-1)*stampSlots+slot)
		}
	}
	for slot := range stampSlots {
		want := 0
		if last >= slot {
			want = 1 + (last-slot)/stampSlots
		}
		if slot == 0 && first && want <= 1 {
			continue // there is no number 0
		}
		if at(slot) != want {
			t.Errorf("place %d holds round %d, want %d, with %d the last", slot, at(slot), want, last)
		}
	}
	return last
}
