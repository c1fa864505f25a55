package qemu

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"lifeboat/internal/qmp"
	"lifeboat/internal/source/blocktrack"
)

// Attached is a disk that the machine has and can write to.
type Attached struct {
	Name string
	Size int64 // bytes
}

// ErrUnplugged is why a disk is gone of a machine that runs. The others can be gone on
// with, after Leave.
var ErrUnplugged = errors.New("the machine has no such disk, or it cannot write to it")

// Attached lists the disks that the machine has at this moment, tracked or not, and lets
// the Devices of those tracked know their sizes. No cut may be held. Its errors are those of
// Swap.
func (t *Tracker) Attached(ctx context.Context) ([]Attached, error) {
	if err := t.connect(ctx); err != nil {
		return nil, err
	}
	drives, err := t.m.drives(ctx)
	if err != nil {
		return nil, t.explain(ctx, err)
	}
	var all []Attached
	for _, d := range drives {
		if !d.writable() {
			continue
		}
		now := Attached{Name: d.name(), Size: d.Inserted.Image.Size}
		all = append(all, now)
		if i := t.index(now.Name); i >= 0 && !t.disks[i].left {
			t.devices[i].set(now.Size, nil)
		}
	}
	return all, nil
}

// Follow takes up a disk: a new one, which comes last, or one that was left, which has its
// place again. The next Swap names all of it. No cut may be held.
func (t *Tracker) Follow(disk Attached) *Device {
	i := t.index(disk.Name)
	if i < 0 {
		i = len(t.disks)
		t.disks = append(t.disks, newDisk(disk.Name))
		t.devices = append(t.devices, &Device{name: disk.Name})
	}
	t.disks[i].left = false
	t.devices[i].set(disk.Size, nil)
	return t.devices[i]
}

// Leave goes on without a disk: no Swap names anything of it or fails for want of it. It
// keeps its place. No cut may be held.
func (t *Tracker) Leave(ctx context.Context, name string) {
	if i := t.index(name); i >= 0 {
		t.unkeep() // for all disks or for none
		t.letImageGo(ctx, t.disks[i].node)
		t.disks[i] = leftDisk(name)
	}
}

// letImageGo closes the image of a disk that libvirt detached while a cut held it: libvirt
// tried to, once, and does not again. Nothing happens to what is in use.
func (t *Tracker) letImageGo(ctx context.Context, node string) {
	if t.opts.Domain == "" || t.m == nil || !strings.HasPrefix(node, "libvirt-") {
		return
	}
	for _, name := range []string{node, strings.TrimSuffix(node, "-format") + "-storage"} {
		if err := t.m.do(ctx, "blockdev-del", args{"node-name": name}, nil); err != nil {
			t.log.Debug("the image of a disk that is gone", "node", name, "err", err) // libvirt did it
		}
	}
}

// recall fills in the disks that are remembered.
func (t *Tracker) recall(drives []drive) error {
	var missing []string
	for _, was := range t.opts.Remembered {
		dev := t.Follow(was)
		if i := slices.IndexFunc(drives, func(d drive) bool { return d.writable() && d.name() == was.Name }); i < 0 {
			t.disks[len(t.disks)-1] = leftDisk(was.Name)
			missing = append(missing, was.Name)
		} else {
			dev.set(drives[i].Inserted.Image.Size, nil)
		}
	}
	if len(missing) == len(t.disks) {
		return fmt.Errorf("the machine at %s has none of the disks that were replicated (%s): give it them back, or name those it has now with --disk",
			t.opts.Address, strings.Join(missing, ", "))
	}
	return nil
}

// Left tells whether a disk, by its place, was left.
func (t *Tracker) Left(i int) bool { return t.disks[i].left }

// followed are the disks that were not left, by their places.
func (t *Tracker) followed() iter.Seq2[int, *disk] {
	return func(yield func(int, *disk) bool) {
		for i, d := range t.disks {
			if !d.left && !yield(i, d) {
				return
			}
		}
	}
}

func (t *Tracker) index(name string) int {
	return slices.IndexFunc(t.disks, func(d *disk) bool { return d.name == name })
}

func newDisk(name string) *disk { return &disk{name: name, why: "tracking begins"} }

func leftDisk(name string) *disk { return &disk{name: name, why: "the disk was away", left: true} }

// explain makes an error of QEMU's one that the user of a Tracker can act on.
func (t *Tracker) explain(ctx context.Context, err error) error {
	var gone *blocktrack.GoneError
	var hindered *blocktrack.HinderedError
	switch {
	case errors.As(err, &gone), errors.As(err, &hindered), ctx.Err() != nil:
	case errors.Is(err, qmp.ErrClosed):
		err = &blocktrack.GoneError{Err: fmt.Errorf("%s: %w", t.opts.Address, err)}
	default:
		err = &blocktrack.HinderedError{Err: err, NextStep: "see that QEMU can do what it was asked to; replication then goes on by itself"}
	}
	return fmt.Errorf("qemu tracker: %w", err)
}
