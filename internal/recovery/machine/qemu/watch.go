package qemu

import (
	"time"

	"lifeboat/internal/qmp"
	"lifeboat/internal/recovery/machine"
)

const noSpace = "a disk has no space for the guest's writes: the guest waits, and goes on by itself when there is space"

// watch takes l as the machine's process and follows it until it ends or the
// driver is closed.
func (d *Driver) watch(in *instance, l *live) {
	in.mu.Lock()
	in.live = l
	in.mu.Unlock()
	d.work.Go(func() {
		defer l.release()
		d.follow(in, l)
		if l.reap(d.ctx) != nil {
			return // the driver is closed; the machine runs on
		}
		state, reason := l.ending(in.dir)
		d.enter(in, state, reason) // before anybody can start the next process
		in.mu.Lock()
		in.live = nil
		in.mu.Unlock()
		close(l.ended)
	})
}

// follow handles events until the connection ends.
func (d *Driver) follow(in *instance, l *live) {
	if l.conn == nil {
		return
	}
	retry := time.NewTicker(d.cfg.ResumeEvery)
	defer retry.Stop()
	for {
		select {
		case <-d.ctx.Done():
			return
		case <-retry.C:
			if l.noSpace {
				// Not awaited here: the answer comes behind events that wait for this loop.
				d.work.Go(func() { _ = l.run(d.ctx, "cont", nil) })
			}
		case e, ok := <-l.conn.Events():
			if !ok {
				return
			}
			d.handle(in, l, e)
		}
	}
}

// handle turns an event into the machine's state.
func (d *Driver) handle(in *instance, l *live, e qmp.Event) {
	switch e.Name {
	case "RESUME":
		l.noSpace = false
		if in.current().State == machine.Paused {
			d.enter(in, machine.Running, "")
		}
		select { // the latest moment replaces one that nobody took
		case <-l.resumed:
		default:
		}
		l.resumed <- e.At
	case "RESET":
		d.enter(in, machine.Running, "")
	case "BLOCK_IO_ERROR":
		if eventData[struct {
			Action string `json:"action"`
		}](e).Action == "stop" {
			l.noSpace = true
			d.enter(in, machine.Paused, noSpace)
		}
	case "GUEST_PANICKED", "GUEST_CRASHLOADED":
		d.enter(in, machine.Running, "the guest's kernel panicked")
	case "SHUTDOWN":
		data := eventData[struct {
			Guest  bool   `json:"guest"`
			Reason string `json:"reason"`
		}](e)
		switch {
		case data.Guest:
			l.powerOff = "the guest powered off"
		case data.Reason == "host-signal": // the host goes down and ends its processes
			l.powerOff, l.byHost = "the host ended it", true
		default:
			l.powerOff = "the machine was powered off"
		}
	}
}

// ending works out why the process is gone.
func (l *live) ending(dir machineDir) (machine.State, string) {
	select {
	case reason := <-l.requested:
		return machine.Stopped, reason
	default:
	}
	if l.byHost {
		return machine.Failed, l.powerOff
	}
	if l.powerOff != "" {
		return machine.Stopped, l.powerOff
	}
	state, reason, err := dir.atRest()
	if err != nil {
		return machine.Failed, err.Error()
	}
	if state == machine.Failed {
		if text := dir.output(); text != "" {
			reason += "; QEMU's last words: " + text
		}
	}
	return state, reason
}
