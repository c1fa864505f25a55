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
	active   uint32
	started  bool // the first Swap has been

	pins    *pins // nil: all ends with this process
	adopted bool  // another process began to track: the first Swap names what it left
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
	kept     kept // of a pinned tracker
}

// Open starts to watch the disks, which must be block devices. An
// *UnavailableError says why it cannot be.
func Open(disks []Disk) (*Tracker, error) {
	t := &Tracker{}
	if err := t.locate(disks); err != nil {
		return nil, err
	}
	if err := t.begin(); err != nil {
		_ = t.Close() // the first error is the one that counts
		return nil, err
	}
	return t, nil
}

// begin loads and attaches the programs.
func (t *Tracker) begin() (err error) {
	var bytes int64
	for _, w := range t.whole {
		bytes += w.size
	}
	shift := shiftFor(bytes)
	if t.programs, err = load(shift); err != nil {
		return err
	}
	if err := t.mapStates(); err != nil {
		return err
	}
	for slot, w := range t.whole {
		if err := t.register(slot, w, shift); err != nil {
			return err
		}
	}
	if err := t.programs.attach(); err != nil {
		return err
	}
	return t.touchHeads()
}

// mapStates makes what the programs share seen here.
func (t *Tracker) mapStates() (err error) {
	if t.control, err = mapMemory(t.programs.maps["control"], 1); err != nil {
		return err
	}
	t.states, err = mapMemory(t.programs.maps["states"], maxDisks*stateHalves/2)
	return err
}

// open makes a disk's bitmaps seen here.
func (t *Tracker) open(slot int, w *whole, shift uint, bitmap func(buffer int) (*ebpf.Map, error)) (err error) {
	w.geometry = geometry{shift, (w.size + 1<<shift - 1) >> shift}
	w.state = state{&t.states, slot * stateHalves}
	for i := range w.buffers {
		if w.maps[i], err = bitmap(i); err != nil {
			return explain(err)
		}
		if w.buffers[i], err = mapMemory(w.maps[i], w.geometry.words()); err != nil {
			return err
		}
	}
	return nil
}

// touchHeads lets the programs learn the paths of disks that have several.
func (t *Tracker) touchHeads() error {
	for _, w := range t.whole {
		if w.head {
			if err := w.touch(); err != nil {
				return err
			}
		}
	}
	return nil
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
func (t *Tracker) register(at int, w *whole, shift uint) error {
	maps, slot := t.programs.maps, uint32(at)
	err := t.open(at, w, shift, func(buffer int) (*ebpf.Map, error) {
		m, err := ebpf.NewMap(wordsSpec("", w.geometry.words(), unix.BPF_F_INNER_MAP))
		if err == nil {
			err = maps["bitmaps"].Put(slot*2+uint32(buffer), m)
		}
		return m, err
	})
	if err != nil {
		return err
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

// wordsSpec is of a map that is seen as words.
func wordsSpec(name string, words int64, flags uint32) *ebpf.MapSpec {
	return &ebpf.MapSpec{Name: name, Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: uint32(words), Flags: unix.BPF_F_MMAPABLE | flags}
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
	if !t.started && !t.adopted {
		why = append(why, "tracking begins")
	}
	skipped := atomic.LoadUint32(t.control.half(1)) != 0
	if skipped {
		why = append(why, "the kernel may have passed over the tracker's programs")
	}
	found := make(map[*whole]blocktrack.Changes, len(t.whole))
	for _, w := range t.whole {
		found[w] = t.take(w, full, why)
	}
	if skipped {
		atomic.StoreUint32(t.control.half(1), 0)
	}
	t.started = true
	changes := make([]blocktrack.Changes, len(t.views))
	for i, v := range t.views {
		c := found[v.whole]
		c.Ranges = clip(c.Ranges, v.offset, v.size)
		changes[i] = c
	}
	return changes, nil
}

// take returns what a buffer holds of a disk, and clears it. Where the tracker is
// pinned, it is kept first: this process may end between any two lines.
func (t *Tracker) take(w *whole, buffer uint32, why []string) (c blocktrack.Changes) {
	void, words := w.state.void(), w.buffers[buffer].words
	dirty := w.state.dirty(buffer)
	if dirty {
		c.Ranges = w.geometry.ranges(words)
	}
	if why := append(why[:len(why):len(why)], doubts(void)...); len(why) > 0 {
		c = blocktrack.Changes{All: true, Why: strings.Join(why, "; ")}
	}
	if t.pins != nil {
		if c.All {
			w.kept.addAll()
		}
		w.kept.add(c.Ranges)
		if !t.started && t.adopted {
			c = blocktrack.Union(c, w.kept.changes())
		}
	}
	if dirty {
		wipe(words)
		w.state.clean(buffer)
	}
	w.state.answer(void)
	return c
}

// settle returns when no program runs that saw the buffer that was active before.
// An update of a map of maps waits for that.
func (t *Tracker) settle() error {
	if err := t.programs.maps["barrier"].Put(uint32(0), t.whole[0].maps[0]); err != nil {
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

// Close stops tracking, unless the tracker is pinned: then the kernel goes on, for
// the next OpenPinned. Else what is written from then on is not known.
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
	t.pins.close()
	t.pins = nil
	return errors.Join(errs...)
}
