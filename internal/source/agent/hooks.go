package agent

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// hooks are programs of the user's in a directory: "before" brings applications to
// a state that they can be started from (and exits with 0 once it is reached),
// "after" lets them go on. The freeze lies between the two.
type hooks struct{ dir string }

// hookBound is how long a hook may take.
const hookBound = 30 * time.Second

// before tells whether applications have been brought to rest. If that failed they
// are let go on at once.
func (h hooks) before(ctx context.Context, log *slog.Logger) bool {
	ran, err := h.run(ctx, "before")
	if err != nil {
		log.Warn("hook before the freeze: points are not of applications", "err", err)
		h.after(ctx, log)
	}
	return ran && err == nil
}

func (h hooks) after(ctx context.Context, log *slog.Logger) {
	// Also when the agent is being stopped: applications must go on.
	if _, err := h.run(context.WithoutCancel(ctx), "after"); err != nil {
		log.Error("hook after the freeze", "err", err)
	}
}

// run runs a hook; false without an error when there is none.
func (h hooks) run(ctx context.Context, name string) (bool, error) {
	if h.dir == "" {
		return false, nil
	}
	path := filepath.Join(h.dir, name)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, hookBound)
	defer cancel()
	out, err := exec.CommandContext(ctx, path).CombinedOutput()
	if err != nil {
		return true, &hookError{path, strings.TrimSpace(string(out)), err}
	}
	return true, nil
}

type hookError struct {
	path, output string
	err          error
}

func (e *hookError) Error() string {
	text := "hook " + e.path + ": " + e.err.Error()
	if e.output != "" {
		text += ": " + e.output
	}
	return text
}
func (e *hookError) Unwrap() error { return e.err }
