package vault_test

import (
	"path/filepath"
	"slices"
	"testing"

	"lifeboat/internal/vault"
	"lifeboat/internal/vault/blob/blobtest"
)

// A volume that is set aside is in no point from then on; points of before keep it. The
// head tells once nothing holds it any more; then it can be emptied.
func TestVolumesSetAside(t *testing.T) {
	keys := must(vault.CreateKeyFile(filepath.Join(t.TempDir(), "master.key")))(t)
	store := blobtest.NewMem()
	v := newVault(t, store, keys, vault.Options{}.Golden())
	w := must(v.Writer(ctxOf, server, vault.MainBranch))(t)
	const size = 20 * vault.BlockSize
	stays := vault.Volume{ID: 0, Device: "/dev/sda", Size: size}
	goes := vault.Volume{ID: 1, Device: "/dev/sdb", Size: size, Identity: "wwid:b"}
	aside, emptied := goes, goes
	aside.Apart, emptied.Apart = vault.SetAside, vault.Emptied
	commits := 0
	commit := func(other vault.Volume, zero bool) {
		t.Helper()
		commits++
		e := must(w.Begin(ctxOf, []vault.Volume{stays, other}))(t)
		for _, id := range []vault.VolumeID{0, 1} {
			if zero && id == 1 {
				if err := e.Zero(1, 0, 20); err != nil {
					t.Fatal(err)
				}
				continue
			}
			f := frame(id, blocks(uint64(commits), 2), vault.Codec(0), vault.Extent{Block: uint64(commits), Count: 2})
			if err := e.Append(f); err != nil {
				t.Fatal(err)
			}
		}
		must(e.Commit(ctxOf, point(commits)))(t)
	}
	// By point: whether it holds the volume.
	holds := []bool{true, true, false, false, true, false, false}
	for _, held := range holds {
		if held {
			commit(goes, false)
		} else {
			commit(aside, false)
		}
	}
	want := &disk{}
	want.grow(size)
	look := func(what string, v *vault.Vault, from int) {
		t.Helper()
		clear(want.data)
		for n, held := range holds {
			copy(want.data[(n+1)*vault.BlockSize:], blocks(uint64(n+1), 2))
			if n < from {
				continue
			}
			img := must(v.OpenPoint(ctxOf, server, point(n+1).ID))(t)
			got := slices.ContainsFunc(img.Volumes(), func(v vault.Volume) bool { return v.ID == 1 })
			if got != held || len(img.Volumes()) == 0 {
				t.Errorf("%s: point %d holds %+v", what, n+1, img.Volumes())
			}
			want.check(t, img, 0)
			if held {
				want.check(t, img, 1)
			}
			img.Close()
		}
	}
	again := func(what string, from int) {
		t.Helper()
		v.WaitTasks()
		look(what, v, from)
		fresh := must(vault.Open(ctxOf, store.Clone(), keys, vault.Options{}.Golden()))(t)
		look(what+", opened anew", fresh, from)
		fresh.Close()
	}
	again("as written", 0)
	if head := w.Head(); len(head.Unheld) != 0 || len(head.Volumes) != 2 || head.Volumes[1].Apart != vault.SetAside {
		t.Errorf("head %+v while points hold the volume", head)
	}

	for n := range 5 {
		if err := v.DropPoints(ctxOf, server, point(n+1).ID); err != nil {
			t.Fatal(err)
		}
	}
	again("after points were dropped", 5)
	w = must(v.Writer(ctxOf, server, vault.MainBranch))(t)
	if head := w.Head(); !slices.Equal(head.Unheld, []vault.VolumeID{1}) {
		t.Errorf("no point holds the volume, and the head tells of %v", head.Unheld)
	}
	holds = append(holds, false, true)
	commit(emptied, true)
	if head := w.Head(); len(head.Unheld) != 0 || head.Volumes[1].Apart != vault.Emptied {
		t.Errorf("head %+v after the volume was emptied", head)
	}
	// That it is not used again is for who numbers volumes; to the vault it is one.
	clearThrough := commits
	commit(goes, false)
	img := must(v.OpenPoint(ctxOf, server, point(commits).ID))(t)
	defer img.Close()
	clear(want.data)
	copy(want.data[(clearThrough+1)*vault.BlockSize:], blocks(uint64(commits), 2))
	want.check(t, img, 1)
}
