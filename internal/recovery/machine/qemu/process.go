package qemu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// process is a QEMU process held by a pid file descriptor: whatever happens to
// its number, a signal can reach no other process.
type process struct {
	pid int
	fd  *os.File

	mu     sync.Mutex
	closed bool // nothing more can be sent; guarded by mu
}

// openProcess holds the process of that number.
func openProcess(pid int) (*process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	return &process{pid: pid, fd: os.NewFile(uintptr(fd), "pidfd")}, nil
}

// signal sends sig; a process that has ended, or was let go of, is no error.
func (p *process) signal(sig unix.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	raw, err := p.fd.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	if err := raw.Control(func(fd uintptr) { sent = unix.PidfdSendSignal(int(fd), sig, nil, 0) }); err != nil {
		return err
	}
	if sent != nil && !errors.Is(sent, unix.ESRCH) {
		return fmt.Errorf("send %s to qemu, process %d: %w", unix.SignalName(sig), p.pid, sent)
	}
	return nil
}

// wait returns when the process has ended, or ctx's error. One caller at a time.
func (p *process) wait(ctx context.Context) error {
	raw, err := p.fd.SyscallConn()
	if err != nil {
		return err
	}
	if err := p.fd.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	// It fails on a closed file only, whose read ends anyway.
	stop := context.AfterFunc(ctx, func() { _ = p.fd.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(ready, 0)
		if err != nil && err != unix.EINTR {
			failed = err
			return true
		}
		return n > 0
	})
	if ctx.Err() != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		return ctx.Err()
	}
	return errors.Join(err, failed)
}

func (p *process) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.fd.Close()
}

// errNoProcess tells that no QEMU holds the pid file.
var errNoProcess = errors.New("no process holds the pid file")

// findProcess returns the QEMU that runs in d. The pid file's number is never
// believed: the kernel is asked who holds QEMU's lock on it, and asked again once
// the process is held, so that a recycled number is not mistaken for it.
func (d machineDir) findProcess() (*process, error) {
	f, err := os.Open(d.path(pidFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNoProcess
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for {
		pid, err := lockHolder(f)
		if err != nil {
			return nil, err
		}
		p, err := openProcess(pid)
		if errors.Is(err, unix.ESRCH) {
			return nil, errNoProcess
		}
		if err != nil {
			return nil, err
		}
		again, err := lockHolder(f)
		if err == nil && again == pid {
			return p, nil
		}
		p.close()
		if err != nil {
			return nil, err
		}
	}
}

func lockHolder(f *os.File) (int, error) {
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock); err != nil {
		return 0, &fs.PathError{Op: "query lock", Path: f.Name(), Err: err}
	}
	switch {
	case lock.Type == unix.F_UNLCK:
		return 0, errNoProcess
	case lock.Pid <= 0:
		return 0, fmt.Errorf("%s is locked by a process that is not visible from here: run the server in the process namespace of its machines", f.Name())
	}
	return int(lock.Pid), nil
}
