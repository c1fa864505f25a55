package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsdrs "github.com/aws/aws-sdk-go-v2/service/drs"

	"lifeboat/internal/demo/guest"
	"lifeboat/internal/demo/rig"
	"lifeboat/internal/qmp"
)

// bootRow measures from the first instruction until the guest says that it has
// booted: from the vault in the second drill, and in the same QEMU from a raw file.
// Before each, the system's caches are emptied and the server is restarted.
func bootRow(ctx context.Context, b *bench) (measures []measurement, err error) {
	dir, remove, err := b.place("boot")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, remove()) }()
	image := filepath.Join(dir, "disk.img")
	if err := makeMachine(ctx, image, gib, 256*mib); err != nil {
		return nil, err
	}
	s, err := b.newSite(ctx, filepath.Join(dir, "site"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	id, err := s.protect(ctx, image)
	if err != nil {
		return nil, err
	}
	if err := s.accelerator(ctx); err != nil {
		return nil, err
	}
	first, argv, err := s.bootDrill(ctx, id) // the drill that the next ones learn from
	if err != nil {
		return nil, err
	}
	const runs = 3
	var ours, raw []float64
	for i := range runs {
		took, _, err := s.bootDrill(ctx, id)
		if err != nil {
			return nil, err
		}
		ours = append(ours, took)
		place := filepath.Join(dir, fmt.Sprintf("raw-%d", i))
		if took, err = bootRaw(ctx, argv, image, place); err != nil {
			return nil, err
		}
		raw = append(raw, took)
	}
	note := fmt.Sprintf("emulated; the first drill took %.2f s", first)
	return []measurement{{
		Name: "boot from the vault after one drill", Unit: "s", Ours: median(ours), Runs: runs,
		Peer: "local raw file, same QEMU", PeerValue: median(raw), Reach: 1.15, Note: note,
	}}, nil
}

var startedAt = regexp.MustCompile(`time=(\S+) .*msg="machine started".* instance=(\S+)`)

// bootDrill drills the server from the newest kept point with cold caches and
// returns how long the boot took, and QEMU's command line.
func (s *site) bootDrill(ctx context.Context, id string) (seconds float64, argv []string, err error) {
	if err := errors.Join(s.restart(ctx), s.accelerator(ctx), cold(s.Dir)); err != nil {
		return 0, nil, err
	}
	if _, err := launch(ctx, s.server, id); err != nil {
		return 0, nil, err
	}
	machines, err := s.Machines()
	if err != nil {
		return 0, nil, err
	}
	if len(machines) != 1 {
		return 0, nil, fmt.Errorf("%d machines run after a drill of one server", len(machines))
	}
	for instance, pid := range machines {
		if argv, err = arguments(pid); err != nil {
			return 0, nil, err
		}
		booted, err := waitBooted(ctx, s.ConsoleLog(instance))
		if err != nil {
			return 0, nil, err
		}
		log, err := os.ReadFile(s.server.Log)
		if err != nil {
			return 0, nil, err
		}
		for _, m := range startedAt.FindAllSubmatch(log, -1) {
			if string(m[2]) != instance {
				continue
			}
			began, err := time.Parse(time.RFC3339Nano, string(m[1]))
			if err != nil {
				return 0, nil, err
			}
			seconds = booted.Sub(began).Seconds()
		}
		if seconds == 0 {
			return 0, nil, errors.New("the server's log does not tell when the machine was started")
		}
		return seconds, argv, s.terminate(ctx, instance)
	}
	return seconds, argv, nil
}

func (s *site) terminate(ctx context.Context, instance string) error {
	ended, err := s.server.TerminateRecoveryInstances(ctx, &awsdrs.TerminateRecoveryInstancesInput{RecoveryInstanceIDs: []string{instance}})
	if err != nil {
		return err
	}
	return completed(ctx, s.server, aws.ToString(ended.Job.JobID))
}

// waitBooted follows a console until the guest says that it has booted.
func waitBooted(ctx context.Context, path string) (time.Time, error) {
	console := guest.NewConsole()
	following, stop := context.WithCancel(ctx)
	defer stop()
	go rig.Follow(following, path, console) // until stop
	booted, err := console.Wait(ctx, 0, guest.Booted)
	if err != nil {
		return time.Time{}, fmt.Errorf("wait for the boot: %w\n%s", err, console.Tail(10))
	}
	return booted.At, nil
}

func arguments(pid int) ([]string, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if err != nil {
		return nil, err
	}
	var argv []string
	for part := range bytes.SplitSeq(bytes.TrimRight(text, "\x00"), []byte{0}) {
		argv = append(argv, string(part))
	}
	return argv, nil
}

// bootRaw boots a copy of the image with the same command line but for the disk,
// which is a local file, and the control socket, which has a name.
func bootRaw(ctx context.Context, argv []string, image, dir string) (seconds float64, err error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return 0, err
	}
	disk := filepath.Join(dir, "disk.raw")
	if err := command(ctx, "cp", "--sparse=always", image, disk); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	args := slices.Clone(argv[1:])
	local := false
	for i, a := range args {
		switch {
		case strings.Contains(a, `"driver":"nbd"`):
			args[i] = fmt.Sprintf(`{"node-name":"disk0","driver":"raw","discard":"unmap","file":{"driver":"file","filename":%q}}`, disk)
			local = true
		case strings.HasPrefix(a, "socket,id=control,"):
			args[i] = "socket,id=control,path=control.sock,server=on,wait=off"
		}
	}
	if !local {
		return 0, fmt.Errorf("the machine's command line has no NBD disk to replace: %q", argv)
	}
	if err := cold(dir); err != nil {
		return 0, err
	}
	qemu := exec.CommandContext(ctx, argv[0], args...)
	qemu.Dir = dir
	qemu.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var text strings.Builder
	qemu.Stderr = &text
	if err := qemu.Start(); err != nil {
		return 0, err
	}
	defer func() {
		_ = qemu.Process.Kill() // it may have ended
		_ = qemu.Wait()         // it was killed
	}()
	control, err := dialControl(ctx, filepath.Join(dir, "control.sock"))
	if err != nil {
		return 0, fmt.Errorf("%w: %s", err, text.String())
	}
	defer func() { err = errors.Join(err, control.Close()) }()
	began := time.Now()
	if err := control.Run(ctx, "cont", nil, nil); err != nil {
		return 0, err
	}
	booted, err := waitBooted(ctx, filepath.Join(dir, "console.log"))
	return booted.Sub(began).Seconds(), err
}

func dialControl(ctx context.Context, path string) (*qmp.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		nc, err := new(net.Dialer).DialContext(ctx, "unix", path)
		if err == nil {
			return qmp.New(ctx, nc)
		}
		if rig.Pause(ctx, 10*time.Millisecond) != nil {
			return nil, fmt.Errorf("reach QEMU's control socket: %w", err)
		}
	}
}
