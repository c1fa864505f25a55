package agent

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// hooks are programs of the user's in a directory: "before" brings applications to
// a state that they can be started from (and exits with 0 once it is reached),
// "after" lets them go on (and exits with 0 if they were in that state until then).
// The freeze lies between the two. docs/hooks has some.
type hooks struct {
	dir   string
	bound time.Duration // of each; 0: hookBound
}

const (
	// hookBound is how long a hook may take; then it is killed, with what it started.
	hookBound = 30 * time.Second
	// hookWords is how much of what a hook says is kept, in bytes: the end of it.
	hookWords = 4096
)

// before tells whether applications have been brought to rest. If that failed they
// are let go on at once.
func (h hooks) before(ctx context.Context, log *slog.Logger) bool {
	ran, err := h.run(ctx, "before")
	if err != nil {
		log.Warn("hook before the freeze: points are not of applications", "err", err, "next_step", "run the hook by hand, as root")
		h.after(ctx, log)
	}
	return ran && err == nil
}

// after tells whether applications were at rest until now.
func (h hooks) after(ctx context.Context, log *slog.Logger) bool {
	// Also when the agent is being stopped: applications must go on.
	_, err := h.run(context.WithoutCancel(ctx), "after")
	if err != nil {
		log.Error("hook after the freeze", "err", err, "next_step", "see that the application goes on, and run the hook by hand, as root")
	}
	return err == nil
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
	ctx, cancel := context.WithTimeoutCause(ctx, cmp.Or(h.bound, hookBound), errHookTime)
	defer cancel()
	var said lastWords
	hook := exec.CommandContext(ctx, path)
	hook.Stdout, hook.Stderr = &said, &said
	hook.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	hook.Cancel = func() error { return syscall.Kill(-hook.Process.Pid, syscall.SIGKILL) }
	// What a hook leaves running may hold on to its output.
	hook.WaitDelay = time.Second
	err := hook.Run()
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
		return true, nil
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	}
	return true, &hookError{path, strings.TrimSpace(string(said)), err}
}

var errHookTime = errors.New("it took too long, and was killed")

// lastWords keeps the end of what is written.
type lastWords []byte

func (w *lastWords) Write(p []byte) (int, error) {
	*w = append(*w, p...)
	if n := len(*w); n > hookWords {
		*w = append((*w)[:0], (*w)[n-hookWords:]...)
	}
	return len(p), nil
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
