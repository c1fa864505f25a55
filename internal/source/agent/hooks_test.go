package agent

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A hook that fails or hangs makes no point of applications, lets them go on, and is
// told with its last words; one that leaves something running ends all the same.
func TestHooks(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, before, after string
		atRest, wasAtRest   bool
		said                string
	}{
		{"both work", "exit 0", "exit 0", true, true, ""},
		{"before fails", "echo no such database; exit 1", "touch $0.ran", false, true, "no such database"},
		{"before hangs", "echo waiting; sleep 1000 & echo $! > $0.pid; wait", "touch $0.ran", false, true, "took too long, and was killed: waiting"},
		{"before leaves something running", "sleep 1000 & echo $! > $0.pid", "kill $(cat ${0%after}before.pid)", true, true, ""},
		{"after fails", "exit 0", "echo the lock was lost; exit 1", true, false, "the lock was lost"},
		{"a chatterer", "yes | head -c 1000000; echo the end; exit 1", "touch $0.ran", false, true, "the end"},
		{"none", "", "", false, true, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for name, script := range map[string]string{"before": c.before, "after": c.after} {
				if script == "" {
					continue
				}
				if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			h := hooks{dir: dir}
			if strings.Contains(c.name, "hangs") {
				h.bound = 100 * time.Millisecond
			}
			var told strings.Builder
			log := slog.New(slog.NewTextHandler(&told, nil))
			if got := h.before(t.Context(), log); got != c.atRest {
				t.Errorf("at rest: %v\n%s", got, &told)
			}
			if _, err := os.Stat(filepath.Join(dir, "after.ran")); !c.atRest && c.after != "" && err != nil {
				t.Errorf("applications do not go on after a hook that failed: %v", err)
			}
			if raw, err := os.ReadFile(filepath.Join(dir, "before.pid")); err == nil && !c.atRest {
				if pid := strings.TrimSpace(string(raw)); !ended(pid) {
					t.Errorf("process %s, which the hook had started, outlives it", pid)
				}
			}
			if got := h.after(t.Context(), log); got != c.wasAtRest {
				t.Errorf("was at rest: %v\n%s", got, &told)
			}
			if !strings.Contains(told.String(), c.said) || len(told.String()) > 3*hookWords {
				t.Errorf("the log says %q, not %q", told.String(), c.said)
			}
		})
	}
}

// ended waits until a process that was killed has gone, and tells whether it did.
func ended(pid string) bool {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		raw, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil || strings.Contains(string(raw), ") Z ") { // its parent may not have looked yet
			return true
		}
	}
	return false
}
