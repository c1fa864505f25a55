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

// Machines returns the process of each recovery instance whose machine runs.
// QEMU holds a lock on its pid file for as long as it lives, so that a number
// that was given to another process since is never returned.
func (r *Rig) Machines() (map[string]int, error) {
	files, err := filepath.Glob(filepath.Join(r.Data(), "instances", "*", "qemu.pid"))
	if err != nil {
		return nil, err
	}
	running := map[string]int{}
	for _, file := range files {
		instance := filepath.Base(filepath.Dir(file))
		pid, err := holder(file)
		if err != nil {
			return nil, fmt.Errorf("look for the machine of %s: %w", instance, err)
		}
		if pid != 0 {
			running[instance] = pid
		}
	}
	return running, nil
}

// QuitMachines ends machines that no server is left to terminate, as a power cut
// would: with its disks' server gone, a machine can neither flush nor end well.
func (r *Rig) QuitMachines() error {
	running, err := r.Machines()
	errs := []error{err}
	for instance, pid := range running {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			errs = append(errs, fmt.Errorf("end the machine of %s: %w", instance, err))
		}
	}
	return errors.Join(errs...)
}

// holder returns the process in a pid file, 0 when nobody holds its lock.
func holder(file string) (int, error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil // it ended in this moment
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: 0}
	if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock); err != nil {
		return 0, err
	}
	if lock.Type == unix.F_UNLCK {
		return 0, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}
