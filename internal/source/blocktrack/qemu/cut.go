package qemu

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"lifeboat/internal/source/blocktrack"
)

// cut is what QEMU holds between a Swap and its Release: for each disk an overlay
// with the blocks that the guest has changed since, the job that puts them there,
// and an export of the two together.
type cut struct {
	Cut
	names  string // prefix of its jobs and nodes
	socket string // of the NBD server

	broken atomic.Bool // it was given up for want of room
	stop   context.CancelFunc
	watch  sync.WaitGroup
}

func (c *cut) job(i int) string     { return fmt.Sprintf("%s-b%d", c.names, i) }
func (c *cut) file(i int) string    { return fmt.Sprintf("%s-f%d", c.names, i) }
func (c *cut) overlay(i int) string { return fmt.Sprintf("%s-o%d", c.names, i) }
func (c *cut) export(i int) string  { return fmt.Sprintf("%s-x%d", c.names, i) }

func (c *cut) stopWatch() {
	c.stop()
	c.watch.Wait()
}

// begin makes a cut and its exports. When it fails nothing has changed for good.
func (t *Tracker) begin(ctx context.Context) error {
	if err := enoughRoom(t.scratch); err != nil {
		return err
	}
	t.number++
	c := &cut{names: fmt.Sprintf("%s-%d", t.id, t.number), stop: func() {}}
	c.socket = filepath.Join(t.scratch, t.id+".nbd")
	t.cut = c
	for i := range t.followed() {
		if err := t.prepare(ctx, c, i); err != nil {
			t.undo()
			return err
		}
	}
	err := t.hold(c)
	if err == nil {
		err = t.transact(ctx, c)
	}
	if err != nil {
		t.undo()
		return err
	}
	watching, stop := context.WithCancel(context.Background())
	c.stop = stop
	m := t.m
	c.watch.Go(func() { c.mind(watching, t, m, t.scratch) })
	if err := t.serve(ctx, c); err != nil {
		t.undo()
		return err
	}
	return nil
}

// prepare makes the overlay of a disk.
func (t *Tracker) prepare(ctx context.Context, c *cut, i int) error {
	path := t.scratchFile(i)
	size, _ := t.devices[i].Size()
	err := t.m.create(ctx, c.job(i), args{"driver": "file", "filename": path, "size": 0})
	if err == nil {
		err = t.m.do(ctx, "blockdev-add", args{"driver": "file", "node-name": c.file(i), "filename": path}, nil)
	}
	if err == nil {
		err = t.m.create(ctx, c.job(i), args{"driver": "qcow2", "file": c.file(i), "size": size})
	}
	if err == nil {
		err = t.m.do(ctx, "blockdev-add", args{"driver": "qcow2", "node-name": c.overlay(i), "file": c.file(i), "backing": t.disks[i].node}, nil)
	}
	if err != nil {
		_ = removeFile(path) // the first error counts
		return fmt.Errorf("scratch file %s: %w", path, err)
	}
	// QEMU has it open; so it goes when QEMU does, however that ends.
	return removeFile(path)
}

// transact is the moment.
func (t *Tracker) transact(ctx context.Context, c *cut) error {
	type action struct {
		Type string `json:"type"`
		Data args   `json:"data"`
	}
	var actions []action
	next := c.names
	for i, d := range t.followed() {
		actions = append(actions, action{"block-dirty-bitmap-add", args{
			"node": d.node, "name": next, "granularity": t.opts.Grain, "persistent": false,
		}})
		if d.bitmap != "" {
			actions = append(actions, action{"block-dirty-bitmap-disable", args{"node": d.node, "name": d.bitmap}})
		}
		actions = append(actions, action{"blockdev-backup", args{
			"device": d.node, "target": c.overlay(i), "sync": "none", "job-id": c.job(i),
		}})
	}
	thaw := t.freeze()
	c.Taken = time.Now()
	err := t.m.do(ctx, "transaction", args{"actions": actions}, nil)
	c.Freeze, c.Frozen = thaw()
	if err != nil {
		if t.m.Err() != nil || ctx.Err() != nil {
			t.Forget("it is not known whether QEMU made a cut")
		}
		return err
	}
	for _, d := range t.followed() {
		d.frozen, d.owed, d.bitmap = d.bitmap, d.bitmap != "", next
	}
	return nil
}

// serve exports the overlays with the bitmaps that were taken out of use.
func (t *Tracker) serve(ctx context.Context, c *cut) error {
	if err := removeFile(c.socket); err != nil {
		return err
	}
	address := args{"type": "unix", "data": args{"path": c.socket}}
	if err := t.m.do(ctx, "nbd-server-start", args{"addr": address, "max-connections": 0}, nil); err != nil {
		return &blocktrack.HinderedError{Err: err, NextStep: "QEMU has one NBD server, and the agent needs it: end its other use (QMP command nbd-server-stop)"}
	}
	for i, d := range t.followed() {
		options := args{"type": "nbd", "id": c.export(i), "node-name": c.overlay(i), "name": c.export(i), "writable": false}
		contexts := []string{allocation}
		if d.frozen != "" {
			options["bitmaps"] = []string{d.frozen}
			contexts = append(contexts, bitmapContext(d.frozen))
		}
		if err := t.m.do(ctx, "block-export-add", options, nil); err != nil {
			return err
		}
		export := c.export(i)
		v := &view{idle: make(chan *client, readers), dial: func(ctx context.Context) (*client, error) {
			return dialNBD(ctx, c.socket, export, contexts...)
		}}
		size, _ := t.devices[i].Size()
		t.devices[i].set(size, v)
	}
	return nil
}

// ErrBroken: the copies of what the guest overwrote could not be kept, so that what
// was read since the Swap is no moment in time. Nothing is lost: what was overwritten
// is named again.
var ErrBroken = errors.New("the cut did not hold until it was read")

// Release ends the cut that the newest Swap made: the Devices cannot be read any
// more. nil means that all that was read from them was of one moment; else the
// error wraps ErrBroken.
func (t *Tracker) Release() error {
	c := t.cut
	if c == nil {
		return nil
	}
	whole := t.held(c)
	t.undo()
	return whole
}

// held tells whether the copies were kept until now.
func (t *Tracker) held(c *cut) error {
	if c.broken.Load() {
		return fmt.Errorf("%w: there is little room left in %s; give it more, or another folder", ErrBroken, t.scratch)
	}
	given, err := t.letGo()
	if given {
		return fmt.Errorf("%w: there was little room left in %s, and the agent did not mind it: its guard did", ErrBroken, t.scratch)
	}
	if err != nil {
		t.log.Warn("the guard has died during a cut", "err", err)
	}
	jobs, err := t.m.jobs(context.Background())
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBroken, err)
	}
	running := map[string]bool{}
	for _, j := range jobs {
		running[j.ID] = j.Status == "running"
	}
	for i, d := range t.followed() {
		if !running[c.job(i)] {
			return fmt.Errorf("%w: QEMU gave up to copy what is overwritten on %s", ErrBroken, d.name)
		}
	}
	return nil
}

// undo takes apart what there is of the cut. What it was to name and has not named is
// given back to the bitmaps that record.
func (t *Tracker) undo() {
	c := t.cut
	t.cut = nil
	c.stopWatch()
	for _, dev := range t.devices {
		size, _ := dev.Size()
		dev.set(size, nil)
	}
	ctx := context.Background()
	err := t.m.take(ctx, c.names)
	for _, d := range t.disks {
		if err == nil {
			err = t.retire(ctx, d)
		}
	}
	if err != nil {
		t.log.Warn("a cut was not taken apart in QEMU", "err", err)
		t.m.close() // the next connection begins with removing it
	}
	_, _ = t.letGo()         // who died cannot hold on
	_ = removeFile(c.socket) // the next cut tells
}
