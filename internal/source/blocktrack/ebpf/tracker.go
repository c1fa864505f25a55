package ebpf

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"lifeboat/internal/source/blocktrack"
)

// Tracker is a blocktrack.Watcher over block devices of this machine. It holds
// kernel memory: two bitmaps for each whole disk, of a bit for each 4 KiB, coarser
// where the disks are more than 1 TiB together, and 4 MiB besides.
type Tracker struct {
	programs *programs
	views    []view
	whole    []*whole
	control  memory
	states   memory
	barrier  *ebpf.Map
	active   uint32
	started  bool // the first Swap has been
}

// view is a disk as the caller named it: a whole disk or a part of one.
type view struct {
	whole        *whole
	offset, size int64
}

// whole is a whole disk.
type whole struct {
	device
	geometry geometry
	state    state
	buffers  [2]memory
	maps     [2]*ebpf.Map
}

// Open starts to watch the disks, which must be block devices. An
// *UnavailableError says why it cannot be.
func Open(disks []Disk) (_ *Tracker, err error) {
	t := &Tracker{}
	if err := t.locate(disks); err != nil {
		return nil, err
	}
	var bytes int64
	for _, w := range t.whole {
		bytes += w.size
	}
	shift := shiftFor(bytes)
	if t.programs, err = load(shift); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = t.Close() // the first error is the one that counts
		}
	}()
	maps := t.programs.collection.Maps
	t.barrier = maps["barrier"]
	if t.control, err = mapMemory(maps["control"], 1); err != nil {
		return nil, err
	}
	if t.states, err = mapMemory(maps["states"], maxDisks*stateHalves/2); err != nil {
		return nil, err
	}
	for slot, w := range t.whole {
		w.geometry = geometry{shift, (w.size + 1<<shift - 1) >> shift}
		w.state = state{&t.states, slot * stateHalves}
		if err := t.register(uint32(slot), w); err != nil {
			return nil, err
		}
	}
	if err := t.programs.attach(); err != nil {
		return nil, err
	}
	for _, w := range t.whole {
		if w.head {
			if err := w.touch(); err != nil {
				return nil, err
			}
		}
	}
	return t, nil
}

func (t *Tracker) locate(disks []Disk) error {
	byNumber := map[uint32]*whole{}
	for _, disk := range disks {
		d, err := locate(disk.Path)
		if err != nil {
			return err
		}
		w := byNumber[d.number]
		if w == nil {
			w = &whole{device: d}
			byNumber[d.number] = w
			t.whole = append(t.whole, w)
		}
		t.views = append(t.views, view{w, d.offset, disk.Size})
	}
	if len(t.whole) > maxDisks {
		return unavailable("%d disks are more than %d", len(t.whole), maxDisks)
	}
	return nil
}

// diskValue is struct disk in track.c.
type diskValue struct {
	Slot, Flags      uint32
	Grains, CoarseAt uint64
}

const flagNVMe, flagHead = 1, 2

// register gives a disk its bitmaps and makes the programs know it.
func (t *Tracker) register(slot uint32, w *whole) error {
	maps := t.programs.collection.Maps
	for i := range w.buffers {
		m, err := ebpf.NewMap(&ebpf.MapSpec{
			Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: uint32(w.geometry.words()),
			Flags: unix.BPF_F_MMAPABLE | unix.BPF_F_INNER_MAP,
		})
		if err != nil {
			return explain(err)
		}
		w.maps[i] = m
		if w.buffers[i], err = mapMemory(m, w.geometry.words()); err != nil {
			return err
		}
		if err := maps["bitmaps"].Put(slot*2+uint32(i), m); err != nil {
			return explain(err)
		}
	}
	value := diskValue{Slot: slot, Grains: uint64(w.geometry.grains), CoarseAt: uint64(w.geometry.fineWords())}
	if w.nvme {
		value.Flags |= flagNVMe
	}
	if w.head {
		value.Flags |= flagHead
	}
	if err := maps["slots"].Put(slot, value); err != nil {
		return explain(err)
	}
	if err := maps["disks"].Put(w.number, value); err != nil {
		return explain(err)
	}
	return nil
}

func (t *Tracker) Name() string { return "ebpf" }

// Grain is the number of bytes that a bit stands for.
func (t *Tracker) Grain() int64 { return 1 << t.whole[0].geometry.shift }

// Swap is as Tracker says. It is one moment for all disks, and costs a grace period
// of the kernel (some milliseconds) and a look at the bitmaps.
func (t *Tracker) Swap(context.Context) ([]blocktrack.Changes, error) {
	full := t.active
	t.active ^= 1
	atomic.StoreUint32(t.control.half(0), t.active)
	if err := t.settle(); err != nil {
		return nil, err
	}
	var why []string
	if !t.started {
		t.started = true
		why = append(why, "tracking begins")
	}
	if atomic.SwapUint32(t.control.half(1), 0) != 0 {
		why = append(why, "the kernel may have passed over the tracker's programs")
	}
	found := make(map[*whole]blocktrack.Changes, len(t.whole))
	for _, w := range t.whole {
		var c blocktrack.Changes
		if w.state.takeDirty(full) {
			c.Ranges = w.geometry.harvest(w.buffers[full].words)
		}
		if why := append(why[:len(why):len(why)], doubts(w.state.takeVoid())...); len(why) > 0 {
			c = blocktrack.Changes{All: true, Why: strings.Join(why, "; ")}
		}
		found[w] = c
	}
	changes := make([]blocktrack.Changes, len(t.views))
	for i, v := range t.views {
		c := found[v.whole]
		c.Ranges = clip(c.Ranges, v.offset, v.size)
		changes[i] = c
	}
	return changes, nil
}

// settle returns when no program runs that saw the buffer that was active before.
// An update of a map of maps waits for that.
func (t *Tracker) settle() error {
	if err := t.barrier.Put(uint32(0), t.whole[0].maps[0]); err != nil {
		return fmt.Errorf("ebpf tracker: wait for running programs: %w", err)
	}
	return nil
}

// Quiet is as Watcher says; it reads a few words of memory. That no write was
// queued and none completed is enough: one that was on its way all the time has
// not been acknowledged to who wrote it, and a disk that loses its power then may
// hold any part of it.
func (t *Tracker) Quiet() (bool, error) {
	quiet := t.started && atomic.LoadUint32(t.control.half(1)) == 0
	for _, w := range t.whole {
		quiet = quiet && !w.state.dirty(t.active) && w.state.void() == 0
	}
	return quiet, nil
}

// Queued is the number of writes to the watched disks seen since Open.
func (t *Tracker) Queued() uint64 {
	var n uint64
	for _, w := range t.whole {
		n += w.state.queued()
	}
	return n
}

// Close stops tracking. What is written from then on is not known.
func (t *Tracker) Close() error {
	var errs []error
	if t.programs != nil {
		errs = append(errs, t.programs.close())
		t.programs = nil
	}
	for _, w := range t.whole {
		for i := range w.buffers {
			w.buffers[i].unmap()
			if w.maps[i] != nil {
				errs = append(errs, w.maps[i].Close())
				w.maps[i] = nil
			}
		}
	}
	t.control.unmap()
	t.states.unmap()
	return errors.Join(errs...)
}
