package ingest_test

import (
	"bytes"
	"context"
	"log/slog"
	"sync/atomic"
	"testing"

	"lifeboat/internal/drs"
)

func TestPointEqualsDisk(t *testing.T) {
	rng := seed(t)
	r := newRig(t, nil)
	disk := image(t, 24<<20+512*3, rng) // not a multiple of a block
	a := runAgent(r.config(t.TempDir(), disk))
	defer a.stop(t)

	r.catalog.await(t, "the first point", func() bool { return len(r.catalog.points) == 1 })
	server := r.only()
	first := r.catalog.points[server][0]
	if first.Consistency != drs.CrashConsistent || first.Method != drs.QuietPass {
		t.Errorf("first point of a disk at rest is %s by %s", first.Consistency, first.Method)
	}
	wantContent(t, r.vault, first, disk)

	// Changes, zeros over data, and data in holes.
	write(t, disk, []byte("changed"), 12345)
	write(t, disk, make([]byte, 300<<10), 8<<20)
	write(t, disk, []byte("in a hole"), 20<<20)
	p := r.takePoint(server)
	if !p.Bootable() || p.Epoch <= first.Epoch {
		t.Errorf("point on demand: %+v", p)
	}
	wantContent(t, r.vault, p, disk)
	if got := content(t, r.vault, server, first.ID, 0); string(got[12345:12352]) == "changed" {
		t.Error("the first point changed")
	}
	r.catalog.await(t, "CONTINUOUS", func() bool { return r.catalog.info[server].State == drs.ReplicationContinuous })
}

// betweenPasses calls what is set, once, when the agent has ended a pass that
// found changes and before it begins the next.
type betweenPasses struct {
	slog.Handler
	call atomic.Pointer[func()]
}

func (h *betweenPasses) Enabled(context.Context, slog.Level) bool { return true }

func (h *betweenPasses) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "pass" {
		if call := h.call.Swap(nil); call != nil {
			(*call)()
		}
	}
	return nil
}

// A chunk that one pass finds zeroed and the next one written holds what was
// written, though one epoch spans both passes.
func TestDataAfterZeros(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	disk := image(t, 4<<20, seed(t))
	cfg := r.config(t.TempDir(), disk)
	hook := &betweenPasses{Handler: slog.DiscardHandler}
	cfg.Logger = slog.New(hook)
	a := runAgent(cfg)
	defer a.stop(t)
	r.catalog.await(t, "the first point", func() bool { return len(r.catalog.points) == 1 })
	server := r.only()

	data := bytes.Repeat([]byte("order 4711 paid\n"), 4096)
	written := make(chan struct{})
	after := func() { write(t, disk, data, 0); close(written) }
	hook.call.Store(&after)
	write(t, disk, make([]byte, len(data)), 0)
	<-written
	p := r.takePoint(server)
	if !p.Bootable() {
		t.Fatalf("a disk at rest has a %s point", p.Consistency)
	}
	wantContent(t, r.vault, p, disk)
}
