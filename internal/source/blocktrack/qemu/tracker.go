package qemu

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"lifeboat/internal/qmp"
	"lifeboat/internal/source/blocktrack"
)

// Options are what a Tracker is opened with.
type Options struct {
	Address
	// Disks are to be tracked, each by the name or ID that QEMU gives it or by the
	// path of its image; empty: all that the guest can write to.
	Disks []string
	// Remembered are disks that were tracked before, where Disks is empty: those of them
	// that the machine has are tracked and no others, and those that it has not are left
	// (see Leave). If it has none of them, that is an error. Empty: there were none.
	Remembered []Attached
	// Scratch is a folder that QEMU can create files in: what the guest overwrites
	// while a cut is held is kept there. Empty: the folder of Socket, or the one that
	// libvirt made for the machine. The files have no names for longer than it takes to
	// open them, and go with QEMU if not before.
	Scratch string
	// Grain is how many bytes a bit of a dirty bitmap stands for, a power of two of at
	// least 512; 0: blocktrack.ChunkSize.
	Grain int64
	// Guard is the command of a process that puts right what this one leaves behind when
	// it dies (it calls Watch); empty: nobody does before the next tracker is opened.
	Guard []string
	// Keep is a file, by which the record of writes outlives the tracker for as long as
	// QEMU runs: the next one that is given it goes on from the last Settle. Only one
	// tracker at a time may have it. Empty: nothing is left behind.
	Keep string
	// Freeze is the longest that the guest's filesystems are frozen, for the moment of a
	// Swap, where it has an agent that can be asked. It needs a Guard.
	Freeze time.Duration

	Logger *slog.Logger // nil: discard
}

// Tracker is a blocktrack.Watcher over the disks of a machine under QEMU, and holds
// the content of each Swap until Release.
type Tracker struct {
	opts    Options
	id      string // this tracker's, in the names of all it makes
	log     *slog.Logger
	m       *machine
	disks   []*disk
	devices []*Device
	cut     *cut   // held; nil: none
	number  uint64 // of the newest cut
	guard   *Guard // nil: none
	scratch string // of this connection
	freezer freezer
	kept    *keeping // what the file says; nil: there is none that may be used
	open    bool     // Open has ended: only what is known to it is its own
}

// disk is one tracked disk.
type disk struct {
	name   string
	node   string // that its bitmap is on
	bitmap string // that records; empty: none
	frozen string // that the newest cut took out of use; empty: none
	owed   bool   // what frozen has was not named
	past   string // has what was named since the last Settle; empty: nothing was, or it is not kept
	left   bool   // it is gone on without
	why    string // not empty: the next Swap names all of it
}

// prefix begins the names of all that trackers make in a QEMU.
const prefix = "lifeboat-"

// Open connects to the machine and looks at its disks. Nothing is recorded before
// the first Swap. What a tracker that died left in QEMU is removed.
func Open(ctx context.Context, opts Options) (*Tracker, error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Grain == 0 {
		opts.Grain = blocktrack.ChunkSize
	}
	if opts.Libvirt == "" {
		opts.Libvirt = DefaultLibvirt
	}
	var id [4]byte
	rand.Read(id[:])
	t := &Tracker{opts: opts, log: opts.Logger, id: prefix + hex.EncodeToString(id[:])}
	if err := t.connect(ctx); err != nil {
		return nil, err
	}
	err := t.choose(ctx)
	if err == nil {
		err = t.settleIn(ctx)
	}
	if err == nil {
		err = t.openGuard()
	}
	if err != nil {
		t.m.close()
		return nil, fmt.Errorf("qemu tracker: %w", err)
	}
	return t, nil
}

// settleIn takes over the bitmaps of the tracker before this one, or removes them.
func (t *Tracker) settleIn(ctx context.Context) error {
	if k := t.readKept(); k != nil {
		t.adopt(ctx, k)
	}
	t.open = true
	if err := t.m.sweep(ctx, prefix, t.mine); err != nil {
		return fmt.Errorf("remove what an earlier one left: %w", err)
	}
	return nil
}

// choose fills in the disks.
func (t *Tracker) choose(ctx context.Context) error {
	drives, err := t.m.drives(ctx)
	if err != nil {
		return err
	}
	var names []string
	add := func(d drive) {
		names = append(names, d.name())
		t.disks = append(t.disks, newDisk(d.name()))
		t.devices = append(t.devices, &Device{name: d.name(), size: d.Inserted.Image.Size})
	}
	if len(t.opts.Disks) == 0 && len(t.opts.Remembered) > 0 {
		return t.recall(drives)
	}
	if len(t.opts.Disks) == 0 {
		if err := t.m.bootFirst(ctx, drives); err != nil {
			return err
		}
		for _, d := range drives {
			if d.writable() {
				add(d)
			}
		}
		if len(names) == 0 {
			return fmt.Errorf("the machine at %s has no disk that it can write to", t.opts.Address)
		}
	}
	for _, wanted := range t.opts.Disks {
		i := slices.IndexFunc(drives, func(d drive) bool {
			return d.writable() && (d.name() == wanted || d.QDev == wanted || d.Inserted.File == wanted)
		})
		if i < 0 {
			return fmt.Errorf("the machine at %s has no writable disk %q: name one by its ID or its image, or none for all", t.opts.Address, wanted)
		}
		if slices.Contains(names, drives[i].name()) {
			return fmt.Errorf("disk %s is named twice", wanted)
		}
		add(drives[i])
	}
	return nil
}

// bootFirst brings drives into the order in which the machine boots from them; those
// without a place in it come last, as they came.
func (m *machine) bootFirst(ctx context.Context, drives []drive) error {
	place := map[string]int{}
	for _, d := range drives {
		place[d.QDev] = math.MaxInt
		if d.QDev == "" {
			continue
		}
		index, err := property[*int](ctx, m, d.object(), "bootindex")
		if err != nil {
			return err
		}
		if index != nil && *index >= 0 {
			place[d.QDev] = *index
		}
	}
	slices.SortStableFunc(drives, func(a, b drive) int { return cmp.Compare(place[a.QDev], place[b.QDev]) })
	return nil
}

// Name is "qemu".
func (t *Tracker) Name() string { return "qemu" }

// Devices are the disks, in the order of Changes. They live as long as the Tracker.
func (t *Tracker) Devices() []*Device { return t.devices }

// Cut is what is to be said of the moment of a Swap.
type Cut struct {
	Taken time.Time // all that had been written to the disks by then is in it
	// Frozen: the guest's filesystems were held still, for the time of Freeze.
	Frozen bool
	Freeze time.Duration
}

// Cut tells of the newest Swap, until Release.
func (t *Tracker) Cut() Cut {
	if t.cut == nil {
		return Cut{}
	}
	return t.cut.Cut
}

// connect makes sure of a connection. After a break it looks what became of the
// bitmaps: a machine that runs on has them still.
func (t *Tracker) connect(ctx context.Context) error {
	if t.m != nil && t.m.Err() == nil {
		return nil
	}
	if t.m != nil {
		t.m.close()
		t.m = nil
		t.drop()
	}
	m, err := t.opts.dial(ctx)
	if err != nil {
		return &blocktrack.GoneError{Err: fmt.Errorf("%s: %w", t.opts.Address, err)}
	}
	if err := m.sweep(ctx, prefix, t.mine); err != nil {
		m.close()
		return fmt.Errorf("qemu tracker: remove what an earlier one left: %w", err)
	}
	if t.scratch, err = t.scratchFolder(ctx, m); err != nil {
		m.close()
		return fmt.Errorf("qemu tracker: scratch folder: %w", err)
	}
	t.m = m
	if err := t.lend(); err != nil {
		t.log.Debug("the guard has died", "err", err) // the next cut replaces it
	}
	return nil
}

// mine tells which bitmaps must outlive a break of the connection.
func (t *Tracker) mine(bitmap string) bool {
	return !t.open || slices.ContainsFunc(t.disks, func(d *disk) bool {
		return bitmap == d.bitmap || bitmap == d.frozen || bitmap == d.past
	})
}

// drop forgets a cut that went with its connection. What it was to name and has not
// the next one does.
func (t *Tracker) drop() {
	for _, dev := range t.devices {
		size, _ := dev.Size()
		dev.set(size, nil)
	}
	if t.cut != nil {
		t.cut.stopWatch()
		t.cut = nil
	}
}

func (d *disk) doubt(why string) {
	if d.why == "" {
		d.why = why
	}
}

// look compares the machine's disks with what is known of them.
func (t *Tracker) look(ctx context.Context) error {
	drives, err := t.m.drives(ctx)
	if err != nil {
		return err
	}
	for i, d := range t.followed() {
		at := slices.IndexFunc(drives, func(x drive) bool { return x.name() == d.name && x.writable() })
		if at < 0 {
			d.bitmap = ""
			d.doubt("the disk was away")
			return &blocktrack.GoneError{Device: d.name, Err: ErrUnplugged}
		}
		found := drives[at]
		if d.bitmap != "" {
			b, ok := found.bitmap(d.bitmap)
			switch {
			case found.Inserted.Node != d.node:
				d.lose("another image took its place in the machine")
			case !ok:
				d.lose("QEMU has no record of its writes: it was started anew, or somebody removed the bitmap")
			case b.Inconsistent || !b.Recording:
				d.lose("QEMU stopped to record its writes")
			}
		}
		d.node = found.Inserted.Node
		t.devices[i].set(found.Inserted.Image.Size, nil)
		if d.bitmap == "" {
			d.frozen, d.owed, d.past = "", false, ""
		}
		if err := t.retire(ctx, d); err != nil && t.m.Err() != nil {
			return err
		}
	}
	return nil
}

func (d *disk) lose(why string) {
	d.bitmap = ""
	d.doubt(why)
}

// Swap is as blocktrack.Tracker says, and one moment for all disks: that moment is
// what the Devices hold until Release, or the next Swap. A machine that does not
// answer is a *blocktrack.GoneError, one that refuses a *blocktrack.HinderedError.
// After an error nothing is forgotten.
func (t *Tracker) Swap(ctx context.Context) ([]blocktrack.Changes, error) {
	if t.cut != nil {
		_ = t.Release() // who took no interest in it knows
	}
	if err := t.connect(ctx); err != nil {
		return nil, err
	}
	err := t.look(ctx)
	if errors.Is(err, qmp.ErrClosed) { // since the connection was used last
		if err = t.connect(ctx); err != nil {
			return nil, err
		}
		err = t.look(ctx)
	}
	var changes []blocktrack.Changes
	if err == nil {
		changes, err = t.swap(ctx)
	}
	if err != nil {
		return nil, t.explain(ctx, err)
	}
	return changes, nil
}

func (t *Tracker) swap(ctx context.Context) ([]blocktrack.Changes, error) {
	if err := t.begin(ctx); err != nil {
		return nil, err
	}
	changes := make([]blocktrack.Changes, len(t.disks))
	for i, d := range t.followed() {
		if d.why != "" {
			t.unkeep()
			changes[i] = blocktrack.Changes{All: true, Why: d.why}
			continue
		}
		ranges, err := t.devices[i].dirty(d.frozen)
		if err != nil {
			t.undo()
			return nil, err
		}
		changes[i].Ranges = ranges
	}
	// From here on the caller knows.
	for _, d := range t.followed() {
		d.why, d.owed = "", false
	}
	return changes, nil
}

// Quiet is as blocktrack.Watcher says. QEMU marks a write when it has been done,
// before the guest learns of it: one under way may be on the disk in any part, as
// after a loss of power.
func (t *Tracker) Quiet() (bool, error) {
	if t.m == nil || t.m.Err() != nil || t.number == 0 {
		return false, nil // Swap connects again, or says why it cannot
	}
	drives, err := t.m.drives(context.Background())
	if err != nil && t.m.Err() != nil {
		return false, nil // Swap connects again, or says why it cannot
	}
	if err != nil {
		return false, fmt.Errorf("qemu tracker: %w", err)
	}
	for _, d := range t.followed() {
		at := slices.IndexFunc(drives, func(x drive) bool { return x.name() == d.name && x.Inserted != nil })
		if at < 0 || d.why != "" || d.bitmap == "" {
			return false, nil
		}
		b, ok := drives[at].bitmap(d.bitmap)
		if !ok || b.Count > 0 || !b.Recording || b.Inconsistent {
			return false, nil
		}
	}
	return true, nil
}

// Forget makes the next Swap name everything, or the first one of a successor.
func (t *Tracker) Forget(why string) {
	t.unkeep()
	for _, d := range t.disks {
		d.doubt(why)
	}
}

// Close ends the cut that is held and removes the bitmaps, but for those that are kept
// for a successor.
func (t *Tracker) Close() error {
	err := t.leave()
	if t.guard != nil {
		guard := t.guard
		t.guard = nil
		err = errors.Join(err, guard.Close(err == nil))
	}
	return err
}

func (t *Tracker) leave() error {
	if t.m == nil {
		return nil
	}
	defer func() { t.m.close(); t.m = nil }()
	if t.cut != nil {
		_ = t.Release() // nobody asks any more
	}
	if t.m.Err() != nil {
		return nil // the next tracker, or the end of QEMU, removes them
	}
	keep := t.mine
	if t.kept == nil {
		keep = nobodys
	}
	if err := t.m.sweep(context.Background(), prefix, keep); err != nil {
		return fmt.Errorf("qemu tracker: %w", err)
	}
	return nil
}

func nobodys(string) bool { return false }

func (t *Tracker) scratchFolder(ctx context.Context, m *machine) (string, error) {
	if t.opts.Scratch == "" {
		return t.opts.scratch(ctx, m)
	}
	return filepath.Abs(t.opts.Scratch) // QEMU has a working directory of its own
}

// scratchFile is where the copies of a disk are kept.
func (t *Tracker) scratchFile(i int) string {
	return filepath.Join(t.scratch, fmt.Sprintf("%s-%d-%d.qcow2", t.id, t.number, i))
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
