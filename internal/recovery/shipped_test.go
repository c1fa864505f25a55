package recovery_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault"
)

// protectTwo makes a server with two disks, and a point of it.
func (s *site) protectTwo(t *testing.T) drs.SourceServerID {
	t.Helper()
	server, _ := s.protect(t, "two")
	w, err := s.vault.Writer(t.Context(), server, vault.MainBranch)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	epoch, err := w.Begin(t.Context(), []vault.Volume{{ID: 0, Device: "/dev/vda", Size: 1 << 20}, {ID: 1, Device: "/dev/vdb", Size: 1<<20 + 512}})
	if err == nil {
		err = epoch.Append(vault.Frame{Volume: 1, Extents: []vault.Extent{{Block: 7, Count: 1}}, RawLen: 4096, Payload: bytes.Repeat([]byte{'7'}, 4096)})
	}
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Microsecond)
	p := drs.RecoveryPoint{ID: drs.NewRecoverySnapshotID(), SourceServer: server, Expected: now, Taken: now, Consistency: drs.CrashConsistent, Method: drs.QuietPass}
	head, err := epoch.Commit(t.Context(), &p)
	if err == nil {
		p.Epoch = head.Number
		err = s.db.AddPoint(t.Context(), p)
	}
	if err != nil {
		t.Fatal(err)
	}
	return server
}

// With one of two disks lost, and with what any step of an earlier try may have left, both
// are made again as they were at one moment, although the other has later writes. Those
// are kept beside.
func TestDisksMadeAgainAreOfOneMoment(t *testing.T) {
	s := newSite(t)
	s.stop()
	s.config.ShipEvery = 2 * time.Millisecond
	s.run(t)
	server := s.protectTwo(t)
	s.launch(t, ask(server))
	id := s.instances(t)[0].ID
	dir := func(name string) string { return filepath.Join(s.config.Dir, string(id), name) }
	var want [2][]byte
	for disk := range want {
		want[disk] = s.branchDiskOf(t, server, id, vault.VolumeID(disk))
		guest := s.plugInto(t, id, vault.VolumeID(disk))
		copy(want[disk][9000:], bytes.Repeat([]byte{'a' + byte(disk)}, 200_000))
		guest.write(9000, want[disk][9000:209_000])
		clear(want[disk][7*4096 : 8*4096])
		guest.trim(7*4096, 4096)
		guest.flush()
	}
	shipped := func() bool {
		return bytes.Equal(s.branchDiskOf(t, server, id, 0), want[0]) && bytes.Equal(s.branchDiskOf(t, server, id, 1), want[1])
	}
	settle(t, "the branch has what was written", shipped)

	served := func() {
		t.Helper()
		s.run(t)
		settle(t, "the disks are served again", func() bool {
			nc, err := net.Dial("unix", s.config.Socket)
			if err == nil {
				nc.Close()
			}
			return err == nil
		})
	}
	remove := func(name string) {
		if err := os.RemoveAll(dir(name)); err != nil {
			t.Fatal(err)
		}
	}
	for step, lose := range map[string]func(){
		"a disk lost":              func() { remove("disk-0") },
		"before anything is moved": func() { remove("disk-0"); duplicate(t, dir("disk-1"), dir("disk-0.new")) },
		"old ones moved away": func() {
			remove("disk-0")
			duplicate(t, dir("disk-1"), dir("disk-1.new"))
			rename(t, dir("disk-1"), dir("disk-1.before"))
		},
		"one put in its place": func() { rename(t, dir("disk-1"), dir("disk-1.new")); remove("disk-1.before") },
	} {
		s.stop()
		s.config.ShipEvery = time.Hour // what follows does not reach the vault
		served()
		for disk := range want {
			guest := s.plugInto(t, id, vault.VolumeID(disk))
			guest.write(0, bytes.Repeat([]byte{'z'}, 300_000))
			guest.flush()
		}
		s.stop()
		clear(s.machines.specs) // the host went down
		lose()
		served()
		if _, err := s.StartFromVault(t.Context(), account, id); err != nil {
			t.Fatalf("%s: %v", step, err)
		}
		for disk := range want {
			if got := s.plugInto(t, id, vault.VolumeID(disk)).read(0, len(want[disk])); !bytes.Equal(got, want[disk]) {
				t.Errorf("%s: disk %d is not as it was shipped", step, disk)
			}
		}
	}
	if kept, err := filepath.Glob(dir("disk-1.before-*")); err != nil || len(kept) == 0 {
		t.Errorf("what was not shipped is not kept: %v", err)
	}
	s.stop()
	s.config.ShipEvery = 2 * time.Millisecond
	served()
	guest := s.plugInto(t, id, 1)
	guest.write(500_000, []byte("it goes on"))
	copy(want[1][500_000:], "it goes on")
	guest.flush()
	settle(t, "it is shipped again", shipped)
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// duplicate copies a directory.
func duplicate(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// A machine that is on its way to be off is not started, and who asks is told to wait.
func TestStartWhileItIsBeingStopped(t *testing.T) {
	s := newSite(t)
	server, _ := s.protect(t, "one")
	s.launch(t, ask(server))
	id := s.instances(t)[0].ID
	if _, err := s.db.MoveInstance(t.Context(), id, drs.InstanceStopping, func(i *drs.RecoveryInstance) { i.Wanted = false }); err != nil {
		t.Fatal(err)
	}
	for _, start := range []func(context.Context, drs.Account, drs.RecoveryInstanceID) (drs.RecoveryInstance, error){s.StartInstance, s.StartFromVault} {
		_, err := start(t.Context(), account, id)
		if told, ok := errors.AsType[*drs.Error](err); !ok || told.Kind != drs.KindConflict || !strings.Contains(told.Message, "STOPPED") {
			t.Errorf("started: %v", err)
		}
	}
}
