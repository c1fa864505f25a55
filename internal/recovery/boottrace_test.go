package recovery_test

import (
	"encoding/binary"
	"errors"
	"testing"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault"
)

// read reads over NBD, by simple replies.
func (w *writer) read(off uint64, n int) []byte {
	w.t.Helper()
	b := binary.BigEndian.AppendUint32(nil, 0x25609513)
	b = binary.BigEndian.AppendUint32(b, 0) // no flags; read
	b = binary.BigEndian.AppendUint64(b, 1)
	b = binary.BigEndian.AppendUint64(b, off)
	w.put(binary.BigEndian.AppendUint32(b, uint32(n)))
	if code := binary.BigEndian.Uint32(w.take(16)[4:]); code != 0 {
		w.t.Fatalf("read at %d: error %d", off, code)
	}
	return w.take(n)
}

// What a machine reads after its launch is kept as its server's boot trace, also when
// it is terminated before the window is over, but then only in place of a shorter one.
func TestABootIsTraced(t *testing.T) {
	s := newSite(t)
	server, _ := s.protect(t, "one")
	chunks := func() int {
		trace, err := s.vault.Trace(t.Context(), server)
		if err != nil && !errors.Is(err, vault.ErrAbsent) {
			t.Fatal(err)
		}
		return trace.Chunks()
	}
	boot := func(reads ...uint64) {
		t.Helper()
		r := ask(server)
		r.Drill = true
		s.launch(t, r)
		all := s.instances(t)
		id := all[len(all)-1].ID
		guest := s.plug(t, id)
		for _, off := range reads {
			guest.read(off, 4096)
		}
		guest.Close()
		job, err := s.TerminateRecoveryInstances(t.Context(), account, []drs.RecoveryInstanceID{id})
		if err != nil {
			t.Fatal(err)
		}
		s.finish(t, job.ID)
	}
	boot(3 * 4096)
	first := chunks() // what the launch itself looked at is part of it
	if first == 0 {
		t.Fatal("no trace of a boot that read")
	}
	boot() // reads no more, and is cut short
	if n := chunks(); n != first {
		t.Errorf("a trace of %d chunks after a boot that read nothing, %d before", n, first)
	}

	longer := vault.Trace{{Volume: 0, Chunk: 0, Count: 9}, {Volume: 4, Chunk: 1, Count: 1}}
	if err := s.vault.SaveTrace(t.Context(), server, longer); err != nil {
		t.Fatal(err)
	}
	boot(3 * 4096)
	if n := chunks(); n != 10 {
		t.Errorf("a trace of %d chunks: a boot that was cut short replaced a longer one", n)
	}
}
