package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"

	"lifeboat/internal/qmp"
	"lifeboat/internal/recovery/machine"
)

// answerTime bounds the wait for QEMU's answer to one command.
const answerTime = 10 * time.Second

// QEMU's words for a guest that does not execute.
const (
	statusPrelaunch = "prelaunch" // it has not begun
	statusIOError   = "io-error"  // it is halted for a disk without space
)

// live is an attached QEMU process.
type live struct {
	proc *process
	cmd  *exec.Cmd // nil for the child of an earlier server
	conn *qmp.Conn // nil when QEMU does not answer

	resumed chan time.Time // the moments at which the guest was let go, the latest if nobody takes them
	ended   chan struct{}  // closed when the process is gone and the state is known

	// requested holds the reason of a signal of ours, sent before it, so that the
	// watcher does not take the process's end for an accident.
	requested chan string

	// The watcher's own.
	powerOff string // why the guest was shut down, once it was
	byHost   bool   // a signal did, which neither the guest nor we sent
	noSpace  bool   // the guest is halted for a disk without space
}

func newLive(proc *process, cmd *exec.Cmd) *live {
	return &live{proc: proc, cmd: cmd, resumed: make(chan time.Time, 1), ended: make(chan struct{}), requested: make(chan string, 1)}
}

// attach returns the machine's process, watched, or nil when it has none. The
// caller holds in.op. The state is known afterwards.
func (d *Driver) attach(ctx context.Context, in *instance) (*live, error) {
	if l := in.attached(); l != nil {
		select {
		case <-l.ended:
		default:
			return l, nil
		}
	}
	proc, err := in.dir.running(ctx)
	if err != nil {
		return nil, err
	}
	if proc == nil {
		state, reason, err := in.dir.atRest()
		if err != nil {
			return nil, err
		}
		if in.current().State == "" {
			d.enter(in, state, reason)
		}
		return nil, nil
	}
	l := newLive(proc, nil)
	nc, err := in.dir.dial(controlSocket)
	if err == nil {
		limit, cancel := context.WithTimeout(ctx, answerTime)
		defer cancel()
		l.conn, err = qmp.New(limit, nc)
	}
	if err != nil {
		if ctx.Err() != nil {
			proc.close()
			return nil, ctx.Err()
		}
		d.cfg.Log.Warn("machine runs but does not answer", "instance", in.id, "process", proc.pid, "err", err)
		d.watch(in, l)
		d.enter(in, machine.Running, "the machine's process runs but does not answer; it can be stopped and destroyed")
		return l, nil
	}
	// The events behind this answer wait in the connection; the watcher takes them
	// in order, so that no older state is entered after a newer one.
	status, err := l.status(ctx)
	if err != nil && !errors.Is(err, qmp.ErrClosed) {
		l.release()
		return nil, err
	}
	if err == nil {
		l.noSpace = status == statusIOError
		state, reason := stateOf(status)
		d.enter(in, state, reason)
	}
	d.watch(in, l)
	return l, nil
}

// running returns the process that runs the machine, nil if none does. A QEMU
// that was born or is dying this very moment is waited for.
func (d machineDir) running(ctx context.Context) (*process, error) {
	limit, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	for {
		held, err := d.held()
		if err != nil || !held {
			return nil, err
		}
		proc, err := d.findProcess()
		if err == nil {
			return proc, nil
		}
		if !errors.Is(err, errNoProcess) {
			return nil, err
		}
		select {
		case <-limit.Done():
			return nil, fmt.Errorf("the machine's lock is held by a process that is not a QEMU of ours: %w", limit.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// stateOf translates QEMU's run state.
func stateOf(status string) (machine.State, string) {
	switch status {
	case "running":
		return machine.Running, ""
	case statusPrelaunch:
		return machine.Paused, "the guest has not begun"
	case statusIOError:
		return machine.Paused, noSpace
	}
	return machine.Paused, "QEMU holds the guest: " + status
}

// status asks QEMU for its run state.
func (l *live) status(ctx context.Context) (string, error) {
	var answer struct {
		Status string `json:"status"`
	}
	err := l.run(ctx, "query-status", &answer)
	return answer.Status, err
}

// run carries out a command without arguments.
func (l *live) run(ctx context.Context, command string, result any) error {
	limit, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	return l.conn.Run(limit, command, nil, result)
}

// begin lets the guest go and returns the moment of its first instruction.
func (l *live) begin(ctx context.Context) (time.Time, error) {
	if err := l.run(ctx, "cont", nil); err != nil {
		return time.Time{}, err
	}
	limit, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	select {
	case at := <-l.resumed:
		return at, nil
	case <-l.ended:
		return time.Time{}, errors.New("QEMU ended before the guest began")
	case <-limit.Done():
		return time.Time{}, fmt.Errorf("the guest did not begin: %w", limit.Err())
	}
}

// waitEnded returns when the watcher has seen the process end.
func (l *live) waitEnded(ctx context.Context) error {
	select {
	case <-l.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// reap waits for the end of the process and takes away what the kernel keeps of
// a child. One caller.
func (l *live) reap(ctx context.Context) error {
	if err := l.proc.wait(ctx); err != nil {
		return err
	}
	if l.cmd != nil {
		_ = l.cmd.Wait() // its exit status says less than QEMU's events did
	}
	return nil
}

func (l *live) release() {
	l.proc.close()
	if l.conn != nil {
		_ = l.conn.Close() // there is nothing to lose
	}
}

// kill ends the process for the reason given.
func (l *live) kill(sig unix.Signal, reason string) error {
	select { // a stronger signal's reason replaces the weaker one's
	case <-l.requested:
	default:
	}
	l.requested <- reason
	return l.proc.signal(sig)
}

// eventData decodes what an event says; what it does not say stays zero.
func eventData[T any](e qmp.Event) (data T) {
	_ = json.Unmarshal(e.Data, &data) // an event of unexpected shape is still an event
	return data
}
