package qemu

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"lifeboat/internal/drs"
	"lifeboat/internal/recovery/machine"
)

// endTime is how long QEMU may take to flush its disks and end in order, and the
// kernel to end a killed process. It is kept even if the caller's context ends:
// half an end is no state.
const endTime = 10 * time.Second

// Stop powers the machine off; see machine.Driver. A grace of zero takes the
// power at once, after a flush.
func (d *Driver) Stop(ctx context.Context, id drs.RecoveryInstanceID, grace time.Duration) error {
	in, err := d.instance(id)
	if err != nil {
		return err
	}
	if err := in.lock(ctx); err != nil {
		return fmt.Errorf("stop %s: %w", id, err)
	}
	defer in.unlock()
	if err := d.powerOff(ctx, in, grace); err != nil {
		return fmt.Errorf("stop %s: %w", id, err)
	}
	return nil
}

func (d *Driver) powerOff(ctx context.Context, in *instance, grace time.Duration) error {
	l, err := d.attach(ctx, in)
	if err != nil || l == nil {
		return err
	}
	if grace > 0 && l.conn != nil {
		if err := l.run(ctx, "system_powerdown", nil); err != nil && ctx.Err() != nil {
			return err
		}
		asked, cancel := context.WithTimeout(ctx, grace)
		defer cancel()
		if l.waitEnded(asked) == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err() // the guest may still be on its way down
		}
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
	defer cancel()
	if err := l.kill(unix.SIGTERM, "the machine was powered off"); err != nil {
		return err
	}
	if l.waitEnded(end) == nil {
		return nil
	}
	if err := d.killNow(ctx, l, "the machine was killed: it did not end in order"); err != nil {
		return err
	}
	return removeFile(in.dir.path(pidFile)) // asked for, so no accident
}

// Destroy removes the machine; see machine.Driver.
func (d *Driver) Destroy(ctx context.Context, id drs.RecoveryInstanceID) error {
	in, err := d.instance(id)
	if err != nil {
		return err
	}
	if err := in.lock(ctx); err != nil {
		return fmt.Errorf("destroy %s: %w", id, err)
	}
	defer in.unlock()
	if err := d.destroy(ctx, in); err != nil {
		return fmt.Errorf("destroy %s: %w", id, err)
	}
	return nil
}

func (d *Driver) destroy(ctx context.Context, in *instance) error {
	l, err := d.attach(ctx, in)
	if err != nil {
		return err
	}
	if l != nil {
		if err := d.killNow(ctx, l, "the machine was destroyed"); err != nil {
			return err
		}
	}
	state, _, err := in.dir.atRest()
	if err != nil {
		return err
	}
	if state != machine.Absent {
		lock, err := in.dir.claim()
		if err != nil {
			return err
		}
		defer lock.Close()
		if err := in.dir.remove(); err != nil {
			return err
		}
	}
	d.enter(in, machine.Absent, "")
	return nil
}

// killNow returns when the process is gone.
func (d *Driver) killNow(ctx context.Context, l *live, reason string) error {
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
	defer cancel()
	if err := l.kill(unix.SIGKILL, reason); err != nil {
		return err
	}
	if err := l.waitEnded(end); err != nil {
		return errors.Join(fmt.Errorf("process %d does not end: is it stuck in the kernel?", l.proc.pid), err)
	}
	return nil
}
