package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// killFrozen waits until a process that writes all the time is held by a frozen
// filesystem, and then kills another one, which froze it.
func killFrozen(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("usage: inside kill-frozen WRITER VICTIM")
	}
	victim, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	threads := filepath.Join("/proc", args[0], "task/*/wchan")
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		waits, err := filepath.Glob(threads)
		if err != nil || len(waits) == 0 {
			return fmt.Errorf("process %s has no threads: %w", args[0], err)
		}
		for _, path := range waits {
			// Writers to a frozen filesystem wait for its per-CPU lock.
			if at, err := os.ReadFile(path); err == nil && strings.Contains(string(at), "percpu_rwsem") {
				return syscall.Kill(victim, syscall.SIGKILL)
			}
		}
	}
	return fmt.Errorf("nothing was frozen within a minute")
}
