package qemu

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// keeping is what outlives a tracker: bitmaps that stay in QEMU's memory, and a file
// that says what they are about. The file is believed only with the bitmaps that it
// names: they have random names and go with QEMU. So it need not survive the host.
type keeping struct {
	Version int
	Disks   []keptDisk
	Note    []byte
}

const keepVersion = 1

// keptDisk is a disk whose writes have been dealt with up to the beginning of a bitmap.
type keptDisk struct {
	Name  string
	Node  string
	Size  int64
	Since string // the bitmap; all of ours that are on the node began with it or later
}

// Adopted tells whether the record of a tracker before this one was taken over, for
// all disks, and the note of its last Settle: the first Swap names what was written
// since that, whoever was there.
func (t *Tracker) Adopted() (note []byte, yes bool) {
	if t.kept == nil {
		return nil, false
	}
	return t.kept.Note, true
}

// Settle says that all that Swaps have returned has been dealt with, as the note says,
// which is kept with the record for a successor. Without Options.Keep it does nothing.
func (t *Tracker) Settle(note []byte) error {
	if t.opts.Keep == "" {
		return nil
	}
	k := &keeping{Version: keepVersion, Note: note}
	for i, d := range t.followed() {
		if d.bitmap == "" || d.why != "" || d.frozen != "" {
			return fmt.Errorf("qemu tracker: the record of disk %s is not whole", d.name)
		}
		size, _ := t.devices[i].Size()
		k.Disks = append(k.Disks, keptDisk{Name: d.name, Node: d.node, Size: size, Since: d.bitmap})
	}
	// In this order: with the new file and the old bitmaps too much is read, no more.
	if err := t.writeKept(k); err != nil {
		return err
	}
	for _, d := range t.disks {
		if d.past == "" || t.m == nil {
			continue
		}
		err := t.m.do(context.Background(), "block-dirty-bitmap-remove", args{"node": d.node, "name": d.past}, nil)
		if err != nil && t.m.Err() == nil {
			return fmt.Errorf("qemu tracker: %w", err)
		}
		d.past = "" // where the connection is gone the next one removes it
	}
	return nil
}

// Note replaces the note of the last Settle, for what stands beside it as before.
func (t *Tracker) Note(note []byte) error {
	if t.kept == nil {
		return nil
	}
	return t.writeKept(&keeping{Version: keepVersion, Disks: t.kept.Disks, Note: note})
}

// writeKept replaces the file as a whole.
func (t *Tracker) writeKept(k *keeping) error {
	raw, err := json.Marshal(k)
	if err == nil {
		err = os.WriteFile(t.opts.Keep+".new", raw, 0o600)
	}
	if err == nil {
		err = os.Rename(t.opts.Keep+".new", t.opts.Keep)
	}
	if err != nil {
		return fmt.Errorf("qemu tracker: keep the record: %w", err)
	}
	t.kept = k
	return nil
}

// unkeep makes sure that no successor takes over what is not whole.
func (t *Tracker) unkeep() {
	if t.kept = nil; t.opts.Keep == "" {
		return
	}
	if err := removeFile(t.opts.Keep); err != nil {
		t.log.Warn("an old record of writes is not removed", "err", err)
	}
}

// readKept reads the file; nil: there is none that is of use.
func (t *Tracker) readKept() *keeping {
	if t.opts.Keep == "" {
		return nil
	}
	raw, err := os.ReadFile(t.opts.Keep)
	k := &keeping{}
	if err != nil || json.NewDecoder(bytes.NewReader(raw)).Decode(k) != nil || k.Version != keepVersion {
		return nil // all is read, and it is written again
	}
	return k
}

// adopt takes over the record that the tracker before this one left, for all disks or
// for none. What it cannot be sure of it does not take.
func (t *Tracker) adopt(ctx context.Context, k *keeping) {
	err := errors.New("other disks are replicated")
	followed := 0
	for range t.followed() {
		followed++
	}
	if len(k.Disks) == followed {
		err = t.takeOver(ctx, k)
	}
	if err == nil {
		return
	}
	t.log.Info("all disks are read: the record that the agent before left in QEMU cannot be used", "why", err)
	t.unkeep()
	for _, d := range t.disks {
		d.bitmap, d.why = "", err.Error()
	}
}

var errAnew = errors.New("QEMU has no record of the writes since the agent stopped: it was started anew, or somebody removed the bitmap")

func (t *Tracker) takeOver(ctx context.Context, k *keeping) error {
	drives, err := t.m.drives(ctx)
	if err != nil {
		return err
	}
	next := &keeping{Version: keepVersion, Note: k.Note}
	for _, d := range t.followed() {
		was, size := k.Disks[len(next.Disks)], int64(0)
		at := slices.IndexFunc(drives, func(x drive) bool { return x.name() == d.name && x.writable() })
		if at >= 0 {
			size = drives[at].Inserted.Image.Size
		}
		switch {
		case at < 0 || was.Name != d.name:
			return errors.New("other disks are replicated")
		case was.Node != drives[at].Inserted.Node:
			return errAnew
		case was.Size != size:
			return fmt.Errorf("disk %s had %d bytes and has %d", d.name, was.Size, size)
		}
		d.node = was.Node
		var current []string
		for _, b := range drives[at].Inserted.Bitmaps {
			if strings.HasPrefix(b.Name, prefix) && b.Recording && !b.Inconsistent {
				current = append(current, b.Name)
			}
		}
		if since, ok := drives[at].bitmap(was.Since); !ok || since.Inconsistent || len(current) != 1 {
			return errAnew
		}
		for _, b := range drives[at].Inserted.Bitmaps {
			if !strings.HasPrefix(b.Name, prefix) || b.Name == current[0] {
				continue
			}
			merge := args{"node": d.node, "target": current[0], "bitmaps": []string{b.Name}}
			if err := t.m.do(ctx, "block-dirty-bitmap-merge", merge, nil); err != nil {
				return err
			}
		}
		next.Disks = append(next.Disks, keptDisk{Name: d.name, Node: d.node, Size: size, Since: current[0]})
	}
	if err := t.writeKept(next); err != nil {
		return err
	}
	n := 0
	for _, d := range t.followed() {
		d.bitmap, d.why = next.Disks[n].Since, ""
		n++
	}
	return nil
}

// retire deals with the bitmap that the newest cut took out of use, once its exports
// are gone: what was not named goes back to the one that records, and what is to be
// kept stays until Settle. When the connection breaks it is to be done again.
func (t *Tracker) retire(ctx context.Context, d *disk) error {
	if d.frozen == "" {
		return nil
	}
	err := error(nil)
	merge := func(target string) {
		if err == nil {
			err = t.m.do(ctx, "block-dirty-bitmap-merge", args{"node": d.node, "target": target, "bitmaps": []string{d.frozen}}, nil)
		}
	}
	if d.owed {
		merge(d.bitmap)
	}
	if t.opts.Keep != "" && d.past == "" {
		if err == nil {
			d.past, d.frozen, d.owed = d.frozen, "", false
		}
	} else {
		if t.opts.Keep != "" {
			merge(d.past)
		}
		if err == nil {
			err = t.m.do(ctx, "block-dirty-bitmap-remove", args{"node": d.node, "name": d.frozen}, nil)
		}
		if err == nil {
			d.frozen, d.owed = "", false
		}
	}
	if err != nil && t.m.Err() == nil { // it will not be better
		if d.owed {
			d.doubt("the record of a cut that failed could not be kept: " + err.Error())
		}
		t.unkeep()
		d.frozen, d.owed = "", false
	}
	return err
}
