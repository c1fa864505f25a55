package vault

import (
	"reflect"
	"testing"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault/seal"
)

// A state that is restated from nothing has points of the same volumes: one that was set
// aside between two of them is in the one and not in the other.
func TestRestatedVolumes(t *testing.T) {
	one := Volume{ID: 0, Device: "/dev/sda", Size: 1 << 20}
	two := Volume{ID: 1, Device: "/dev/sdb", Size: 1 << 20, Identity: "wwid:b"}
	aside, emptied, grown := two, two, two
	aside.Apart, emptied.Apart, grown.Size = SetAside, Emptied, 2<<20
	at := func(id drs.RecoverySnapshotID) edit { return pointEdit{point: drs.RecoveryPoint{ID: id}} }
	edits := []edit{
		volumeEdit{one}, volumeEdit{aside}, at("pit-1"), volumeEdit{two}, at("pit-2"), volumeEdit{grown}, at("pit-3"),
		volumeEdit{aside}, at("pit-4"), volumeEdit{emptied}, at("pit-5"),
	}
	build := func(edits []edit) *state {
		t.Helper()
		stored, err := decodeEdits(putEdits(edits))
		if err != nil {
			t.Fatal(err)
		}
		s, err := (&state{}).next(1, [32]byte{}, seal.Salt{}, stored)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	want := build(edits)
	got := build(want.edits())
	if len(got.points.items) != 5 {
		t.Fatalf("%d points", len(got.points.items))
	}
	for i, p := range got.points.items {
		if !reflect.DeepEqual(p.volumes, want.points.items[i].volumes) {
			t.Errorf("%s holds %+v, and held %+v", p.point.ID, p.volumes, want.points.items[i].volumes)
		}
		if n := []int{1, 2, 2, 1, 1}[i]; len(p.volumes) != n {
			t.Errorf("%s holds %d volumes, not %d", p.point.ID, len(p.volumes), n)
		}
	}
	if !reflect.DeepEqual(got.volumes, want.volumes) {
		t.Errorf("volumes %+v, and were %+v", got.volumes, want.volumes)
	}
}
