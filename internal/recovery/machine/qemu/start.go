package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"lifeboat/internal/durable"
	"lifeboat/internal/qmp"
	"lifeboat/internal/recovery/machine"
)

// record is what a later server wants to know of a start that this one made. It
// is only news about the past: losing it loses no machine.
type record struct {
	Spec             machine.Spec `json:"spec"`
	FirstInstruction time.Time    `json:"firstInstruction"`
	Accelerator      string       `json:"accelerator"`
	Notes            []string     `json:"notes,omitempty"`
}

// Start brings the machine to its first instruction, or adopts it; see
// machine.Driver. On an error no process is left behind.
func (d *Driver) Start(ctx context.Context, spec machine.Spec) (machine.Started, error) {
	if err := spec.Check(); err != nil {
		return machine.Started{}, fmt.Errorf("start %s: %w", spec.ID, err)
	}
	in, err := d.instance(spec.ID)
	if err != nil {
		return machine.Started{}, err
	}
	if err := in.lock(ctx); err != nil {
		return machine.Started{}, fmt.Errorf("start %s: %w", spec.ID, err)
	}
	defer in.unlock()
	started, err := d.adopt(ctx, in)
	if errors.Is(err, errNoProcess) {
		started, err = d.launch(ctx, in, spec)
	}
	if err != nil {
		return machine.Started{}, fmt.Errorf("start %s: %w", spec.ID, err)
	}
	return started, nil
}

// adopt takes the machine that already runs, and lets its guest begin if the
// server died before it could. It returns errNoProcess when there is none.
func (d *Driver) adopt(ctx context.Context, in *instance) (machine.Started, error) {
	l, err := d.attach(ctx, in)
	if err != nil {
		return machine.Started{}, err
	}
	if l == nil {
		return machine.Started{}, errNoProcess
	}
	if l.conn == nil {
		ending, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if l.waitEnded(ending) == nil {
			return machine.Started{}, errNoProcess
		}
		if !in.dir.readRecord().FirstInstruction.IsZero() {
			return machine.Started{}, fmt.Errorf("the machine runs as process %d but does not answer", l.proc.pid)
		}
		// The server died while QEMU was still attaching its disks, and QEMU hangs on
		// them. Its guest has not begun: nothing is lost with it.
		d.cfg.Log.Warn("machine that never began is started anew", "instance", in.id, "process", l.proc.pid)
		if err := d.abandon(in, l); err != nil {
			return machine.Started{}, err
		}
		return machine.Started{}, errNoProcess
	}
	r := in.dir.readRecord()
	status, err := l.status(ctx)
	if errors.Is(err, qmp.ErrClosed) { // it is ending just now
		if err := l.waitEnded(ctx); err != nil {
			return machine.Started{}, err
		}
		return machine.Started{}, errNoProcess
	}
	if err != nil {
		return machine.Started{}, err
	}
	if status == statusPrelaunch {
		if r.FirstInstruction, err = l.begin(ctx); err != nil {
			return machine.Started{}, err
		}
	}
	return machine.Started{Adopted: true, FirstInstruction: r.FirstInstruction, Accelerator: r.Accelerator, Notes: r.Notes}, nil
}

// launch starts a process for a machine that has none.
func (d *Driver) launch(ctx context.Context, in *instance, spec machine.Spec) (started machine.Started, err error) {
	clock := stopwatch{last: time.Now()}
	program, err := exec.LookPath(d.cfg.Program)
	if err != nil {
		return started, fmt.Errorf("%s is not installed: install the package qemu-system-x86 (Debian, Ubuntu), qemu-system-x86-core (Fedora) or qemu-system-x86 (Arch): %w", d.cfg.Program, err)
	}
	accel, err := d.accelerator(ctx)
	if err != nil {
		return started, err
	}
	clock.lap("accelerator")
	d.enter(in, machine.Paused, "the machine is starting")
	defer func() {
		if err != nil {
			d.enter(in, machine.Stopped, "the machine could not be started: "+err.Error())
		}
	}()
	l, err := d.spawn(in, spec, program, accel)
	if err != nil {
		return started, err
	}
	clock.lap("spawn")
	if err := d.greet(ctx, l); err != nil {
		return started, errors.Join(err, d.abandon(in, l))
	}
	clock.lap("attach disks")
	d.watch(in, l)
	first, err := l.begin(ctx)
	if err != nil {
		return started, errors.Join(err, d.abandon(in, l))
	}
	clock.lap("begin")

	started = machine.Started{FirstInstruction: first, Accelerator: accel.name, Steps: clock.steps}
	if accel.note != "" {
		started.Notes = append(started.Notes, accel.note)
	}
	r := record{Spec: spec, FirstInstruction: first, Accelerator: accel.name, Notes: started.Notes}
	if err := in.dir.writeRecord(r); err != nil {
		// The guest runs already, so the start has succeeded.
		d.cfg.Log.Warn("start not recorded", "instance", in.id, "err", err)
	}
	return started, nil
}

// spawn prepares the machine's directory and starts its process.
func (d *Driver) spawn(in *instance, spec machine.Spec, program string, accel accelerator) (*live, error) {
	var fw firmware
	if spec.UEFI() {
		var err error
		if fw, err = findUEFI(firmwareDirs); err != nil {
			return nil, err
		}
	}
	if err := os.Mkdir(string(in.dir), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	lock, err := in.dir.claim()
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if err := in.dir.keepVars(fw); err != nil {
		return nil, err
	}
	for i, disk := range spec.Disks {
		if err := in.dir.linkDisk(i, disk.Socket); err != nil {
			return nil, err
		}
	}
	control, err := in.dir.listen(controlSocket)
	if err != nil {
		return nil, err
	}
	inherit := []*os.File{lock, control}
	defer func() { control.Close() }()
	taps, err := openTaps(spec.NICs)
	if err != nil {
		return nil, err
	}
	defer closeAll(taps)
	output, err := os.OpenFile(in.dir.path(outputFile), os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer output.Close()
	if err := removeFile(in.dir.path(pidFile)); err != nil { // we hold the lock: it is a dead machine's
		return nil, err
	}

	//nolint:noctx // a machine outlives the call that starts it, and this process
	cmd := exec.Command(program, commandLine(spec, accel, fw)...)
	cmd.Dir = string(in.dir)
	cmd.Stdout, cmd.Stderr = output, output
	cmd.ExtraFiles = append(inherit, taps...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // no signal meant for the server reaches it
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	proc, err := openProcess(cmd.Process.Pid)
	if err != nil {
		return nil, errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	return newLive(proc, cmd), nil
}

// greet waits until QEMU has opened its disks and answers. A QEMU that ends
// instead has written why.
func (d *Driver) greet(ctx context.Context, l *live) error {
	limit, cancel := context.WithTimeout(ctx, d.cfg.StartTimeout)
	defer cancel()
	in := machineDir(l.cmd.Dir)
	nc, err := in.dial(controlSocket)
	if err == nil {
		l.conn, err = qmp.New(limit, nc)
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case limit.Err() != nil:
		return fmt.Errorf("QEMU did not answer within %s: are all disk servers alive? (%s)", d.cfg.StartTimeout, in.output())
	case in.output() != "":
		return fmt.Errorf("QEMU ended: %s", in.output())
	}
	return err
}

// abandon ends the process of a start that failed.
func (d *Driver) abandon(in *instance, l *live) error {
	err := l.kill(unix.SIGKILL, "the start was abandoned")
	if err == nil && in.attached() != l { // nobody watches it yet
		err = l.reap(d.ctx)
		l.release()
	} else if err == nil {
		err = l.waitEnded(d.ctx)
	}
	return errors.Join(err, removeFile(in.dir.path(pidFile)))
}

// output returns the end of what QEMU printed, in one line.
func (d machineDir) output() string {
	const tail = 2 << 10
	f, err := os.Open(d.path(outputFile))
	if err != nil {
		return ""
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > tail {
		if _, err := f.Seek(-tail, io.SeekEnd); err != nil {
			return ""
		}
	}
	text, err := io.ReadAll(io.LimitReader(f, tail))
	if err != nil {
		return ""
	}
	return strings.Join(strings.FieldsFunc(string(text), func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

func (d machineDir) writeRecord(r record) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return durable.Files{}.WriteFile("machine record", d.path(recordFile), text, 0o600)
}

// readRecord returns what is known of the last start, zero if nothing.
func (d machineDir) readRecord() (r record) {
	text, err := os.ReadFile(d.path(recordFile))
	if err != nil || json.Unmarshal(text, &r) != nil {
		return record{}
	}
	return r
}

// stopwatch times the parts of a start.
type stopwatch struct {
	last  time.Time
	steps []machine.Step
}

func (s *stopwatch) lap(name string) {
	now := time.Now()
	s.steps = append(s.steps, machine.Step{Name: name, Took: now.Sub(s.last)})
	s.last = now
}
