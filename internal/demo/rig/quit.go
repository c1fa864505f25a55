package rig

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// QuitMachines ends machines that no server is left to terminate, as a power cut
// would: with its disks' server gone, a machine can neither flush nor end well.
// QEMU holds a lock on its pid file for as long as it lives, so that a number
// that was given to another process since is never hit.
func (r *Rig) QuitMachines() error {
	files, err := filepath.Glob(filepath.Join(r.Data(), "instances", "*", "qemu.pid"))
	if err != nil {
		return err
	}
	var errs []error
	for _, file := range files {
		if err := killHolder(file); err != nil {
			errs = append(errs, fmt.Errorf("end the machine of %s: %w", filepath.Dir(file), err))
		}
	}
	return errors.Join(errs...)
}

func killHolder(file string) error {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it ended in this moment
	}
	if err != nil {
		return err
	}
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: 0}
	if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock); err != nil {
		return err
	}
	if lock.Type == unix.F_UNLCK {
		return nil // nobody holds it: that machine has ended
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}
