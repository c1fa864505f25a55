package recovery_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault"
	"lifeboat/internal/vault/blob"
)

// writer is a machine as its disk's server sees it.
type writer struct {
	t *testing.T
	net.Conn
}

// plug connects to the first disk of an instance.
func (s *site) plug(t *testing.T, id drs.RecoveryInstanceID) *writer {
	t.Helper()
	return s.plugInto(t, id, 0)
}

// plugInto connects to a disk of an instance, by the oldest way of NBD.
func (s *site) plugInto(t *testing.T, id drs.RecoveryInstanceID, disk vault.VolumeID) *writer {
	t.Helper()
	nc, err := net.Dial("unix", s.config.Socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(3 * time.Minute)) // for a test that hangs
	w := &writer{t, nc}
	w.take(18)
	name := fmt.Sprintf("%s/%d", id, disk)
	request := append(binary.BigEndian.AppendUint32(nil, 3), "IHAVEOPT\x00\x00\x00\x01"...)
	w.put(append(binary.BigEndian.AppendUint32(request, uint32(len(name))), name...))
	w.take(10)
	return w
}

func (w *writer) put(b []byte) {
	w.t.Helper()
	if _, err := w.Write(b); err != nil {
		w.t.Fatal(err)
	}
}

func (w *writer) take(n int) []byte {
	w.t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(w, b); err != nil {
		w.t.Fatal(err)
	}
	return b
}

// do sends a command and waits until it is answered well.
func (w *writer) do(cmd uint16, off uint64, n int, data []byte) {
	w.t.Helper()
	b := binary.BigEndian.AppendUint32(nil, 0x25609513)
	b = binary.BigEndian.AppendUint16(b, 0)
	b = binary.BigEndian.AppendUint16(b, cmd)
	b = binary.BigEndian.AppendUint64(b, 1)
	b = binary.BigEndian.AppendUint64(b, off)
	w.put(append(binary.BigEndian.AppendUint32(b, uint32(n)), data...))
	if code := binary.BigEndian.Uint32(w.take(16)[4:]); code != 0 {
		w.t.Fatalf("command %d at %d: error %d", cmd, off, code)
	}
}

func (w *writer) write(off uint64, data []byte) { w.t.Helper(); w.do(1, off, len(data), data) }
func (w *writer) trim(off uint64, n int)        { w.t.Helper(); w.do(4, off, n, nil) }
func (w *writer) flush()                        { w.t.Helper(); w.do(3, 0, 0, nil) }

// branchDisk reads the first disk of an instance's branch as the vault alone has it.
func (s *site) branchDisk(t *testing.T, server drs.SourceServerID, id drs.RecoveryInstanceID) []byte {
	t.Helper()
	return s.branchDiskOf(t, server, id, 0)
}

func (s *site) branchDiskOf(t *testing.T, server drs.SourceServerID, id drs.RecoveryInstanceID, disk vault.VolumeID) []byte {
	t.Helper()
	image, err := s.vault.OpenHead(t.Context(), server, string(id))
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	r, err := image.Volume(disk)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, r.Size())
	if _, err := r.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

// A recovery goes on being protected: with everything of the instance on this
// host lost, its branch in the vault has what its machine wrote and flushed.
func TestWritesOfARecoveryAreShipped(t *testing.T) {
	s := newSite(t)
	s.stop()
	s.config.ShipEvery = 2 * time.Millisecond
	s.run(t)
	server, _ := s.protect(t, "one")
	s.launch(t, ask(server))
	id := s.instances(t)[0].ID
	want := s.branchDisk(t, server, id) // as it was launched

	guest := s.plug(t, id)
	write := func(off int, n int, with byte) {
		data := bytes.Repeat([]byte{with}, n)
		copy(want[off:], data)
		guest.write(uint64(off), data)
	}
	write(0, 300_000, 'a') // more than a frame
	write(5000, 100, 'b')  // parts of blocks
	write(8192, 4096, 'c')
	write(8192, 8192, 'd') // over it
	clear(want[3*4096 : 5*4096])
	guest.trim(3*4096, 2*4096)
	guest.flush()
	settle(t, "the branch has what was written", func() bool { return bytes.Equal(s.branchDisk(t, server, id), want) })

	// It goes on after a restart, with and without the note of what was shipped.
	for round := range 2 {
		s.stop()
		if round == 1 {
			if err := os.Remove(filepath.Join(s.config.Dir, string(id), "shipped.json")); err != nil {
				t.Fatal(err)
			}
		}
		s.run(t)
		settle(t, "the disks are served again", func() bool {
			nc, err := net.Dial("unix", s.config.Socket)
			if err == nil {
				nc.Close()
			}
			return err == nil
		})
		guest = s.plug(t, id)
		write(20_480*(round+1), 12_288, byte('x'+round))
		guest.flush()
		settle(t, "the branch has what was written after the restart", func() bool { return bytes.Equal(s.branchDisk(t, server, id), want) })
	}

	s.stop()
	if err := os.RemoveAll(s.config.Dir); err != nil {
		t.Fatal(err)
	}
	if got := s.branchDisk(t, server, id); !bytes.Equal(got, want) {
		t.Error("the branch changed with the instance's directory")
	}

	// Its host is lost. On another one it goes on from there, once somebody says so.
	s.run(t)
	if _, err := s.StartInstance(t.Context(), account, id); err == nil || !strings.Contains(err.Error(), "--from-vault") {
		t.Errorf("started without its disks: %v", err)
	}
	if _, err := s.StartFromVault(t.Context(), account, id); err == nil || !strings.Contains(err.Error(), "still runs") {
		t.Errorf("new disks under a running machine: %v", err)
	}
	if err := s.machines.Destroy(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time nothing is lost
		if _, err := s.StartFromVault(t.Context(), account, id); err != nil {
			t.Fatal(err)
		}
		guest = s.plug(t, id)
		if got := guest.read(0, len(want)); !bytes.Equal(got, want) {
			t.Error("the disk differs from what was shipped")
		}
		write(64<<10, 5000, 'z')
		guest.flush()
		settle(t, "what it writes is shipped again", func() bool { return bytes.Equal(s.branchDisk(t, server, id), want) })
	}
}

// While the machine writes numbers one after the other, the branch is at any
// moment what a power cut would have left, and holds every number that was flushed
// before the latest shipment began.
func TestTheShippedBranchIsAPrefix(t *testing.T) {
	s := newSite(t)
	s.stop()
	s.config.ShipEvery = time.Millisecond
	s.run(t)
	server, _ := s.protect(t, "one")
	s.launch(t, ask(server))
	id := s.instances(t)[0].ID
	guest := s.plug(t, id)
	const slots = 100
	last := uint64(0)
	for n := uint64(1); n <= 600; n++ {
		guest.write(n%slots*8192, bytes.Repeat(binary.BigEndian.AppendUint64(nil, n), 1024))
		if n%10 == 0 {
			guest.flush()
		}
		if n%40 == 0 {
			last = max(last, s.checkPrefix(t, server, id, slots, n))
		}
	}
	settle(t, "all is shipped", func() bool { return s.checkPrefix(t, server, id, slots, 600) == 600 })
}

// checkPrefix returns the newest number on the branch, all of whose predecessors
// must be there.
func (s *site) checkPrefix(t *testing.T, server drs.SourceServerID, id drs.RecoveryInstanceID, slots, most uint64) (newest uint64) {
	t.Helper()
	disk := s.branchDisk(t, server, id)
	number := func(slot uint64) (uint64, error) {
		at := disk[slot*8192 : (slot+1)*8192]
		n := binary.BigEndian.Uint64(at)
		if !bytes.Equal(at, bytes.Repeat(at[:8], 1024)) {
			return n, fmt.Errorf("slot %d is torn", slot)
		}
		if n > most { // what the recovery point held there
			n = 0
		}
		return n, nil
	}
	for slot := range slots {
		if n, err := number(slot); err == nil {
			newest = max(newest, n)
		}
	}
	for n := max(int64(newest)-int64(slots)+1, 1); n <= int64(newest); n++ {
		if got, err := number(uint64(n) % slots); err != nil || got != uint64(n) {
			t.Fatalf("the branch has %d, and where %d should be, %d (%v)", newest, n, got, err)
		}
	}
	return newest
}

// What a drill writes is thrown away, and costs the vault nothing.
func TestDrillsAreNotShipped(t *testing.T) {
	s := newSite(t)
	s.stop()
	s.config.ShipEvery = time.Millisecond
	s.run(t)
	server, _ := s.protect(t, "one")
	other, _ := s.protect(t, "two")
	drill := ask(server)
	drill.Drill = true
	s.launch(t, drill)
	s.launch(t, ask(other))
	var before []byte
	for _, i := range s.instances(t) {
		if i.SourceServer == server {
			before = s.branchDisk(t, server, i.ID)
		}
		guest := s.plug(t, i.ID)
		guest.write(0, bytes.Repeat([]byte{'w'}, vault.BlockSize))
		guest.flush()
	}
	for _, i := range s.instances(t) {
		if i.SourceServer == other {
			settle(t, "the recovery is shipped", func() bool { return s.branchDisk(t, other, i.ID)[0] == 'w' })
		}
	}
	for _, i := range s.instances(t) {
		if i.SourceServer == server && !bytes.Equal(s.branchDisk(t, server, i.ID), before) {
			t.Error("the drill was shipped")
		}
	}
}

// A vault that cannot be written launches all the same, and has what the machine wrote
// once it can.
func TestLaunchFromAReadOnlyVault(t *testing.T) {
	s := newSite(t)
	server, _ := s.protect(t, "one")
	s.stop()
	s.config.ShipEvery = 2 * time.Millisecond
	s.reopenVaultAs(t, blob.ReadOnly)
	s.run(t)
	job, log := s.launch(t, ask(server))
	if job.Servers[0].Status != drs.LaunchLaunched {
		t.Fatalf("%+v, %+v", job.Servers, log)
	}
	id := s.instances(t)[0].ID
	guest := s.plug(t, id)
	guest.write(0, bytes.Repeat([]byte{'w'}, vault.BlockSize))
	guest.flush()

	s.stop()
	s.reopenVault(t)
	s.run(t)
	settle(t, "it is shipped", func() bool {
		image, err := s.vault.OpenHead(t.Context(), server, string(id))
		if err != nil {
			return false
		}
		defer image.Close()
		return s.branchDisk(t, server, id)[0] == 'w'
	})
}
