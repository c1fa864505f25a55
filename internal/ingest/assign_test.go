package ingest_test

import (
	"os"
	"testing"
)

// label makes a disk image tell itself from others, as a partition table does.
func label(t *testing.T, path string, id byte) {
	t.Helper()
	table := make([]byte, 512)
	copy(table, "EFI PART")
	for i := 56; i < 72; i++ {
		table[i] = id
	}
	write(t, path, table, 512)
}

// Two disks that swap their names go on as what they are: neither is sent into the
// other's volume. One without an identity of its own until now adopts it.
func TestDisksSwapNames(t *testing.T) {
	t.Parallel()
	rng := seed(t)
	r := newRig(t, nil)
	one, two := image(t, 6<<20, rng), image(t, 6<<20, rng)
	cfg := r.config(t.TempDir(), one)
	cfg.Disks = []string{one, two}
	a := runAgent(cfg)
	r.catalog.await(t, "the first point", func() bool { return len(r.catalog.points) == 1 })
	server := r.only()
	a.stop(t)

	label(t, one, 1)
	label(t, two, 2)
	a = runAgent(cfg) // adopts
	r.takePoint(server)
	a.stop(t)
	// Once more, so that the volumes hold what was announced even if nothing was sent.
	a = runAgent(cfg)
	before := r.takePoint(server)
	first, second := content(t, r.vault, server, before.ID, 0), content(t, r.vault, server, before.ID, 1)
	a.stop(t)

	for _, move := range [][2]string{{one, one + ".x"}, {two, one}, {one + ".x", two}} {
		if err := os.Rename(move[0], move[1]); err != nil {
			t.Fatal(err)
		}
	}
	write(t, two, []byte("after the swap"), 5<<20) // what was first is called two now
	a = runAgent(cfg)
	defer a.stop(t)
	p := r.takePoint(server)
	copy(first[5<<20:], "after the swap")
	if got := content(t, r.vault, server, p.ID, 0); string(got) != string(first) {
		t.Error("the first volume is not the first disk any more")
	}
	if got := content(t, r.vault, server, p.ID, 1); string(got) != string(second) {
		t.Error("the second volume is not the second disk any more")
	}
	image, err := r.vault.OpenPoint(t.Context(), server, p.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	if v := image.Volumes(); v[0].Device != two || v[1].Device != one || v[0].Identity == "" {
		t.Errorf("volumes %+v do not tell the names of their disks", v)
	}
}
