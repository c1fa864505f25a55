package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cleanUp is how long what a row started may take to end.
const cleanUp = time.Minute

var versionNumber = regexp.MustCompile(`\d+\.\d+(\.\d+)?`)

// versions asks the peers that are here for theirs.
func versions(ctx context.Context) map[string]string {
	found := map[string]string{}
	for name, args := range map[string][]string{
		"zstd": {"--version"}, "restic": {"version"}, "borg": {"--version"}, "fio": {"--version"},
		"nbdkit": {"--version"}, "qemu-img": {"--version"}, "qemu-nbd": {"--version"}, "qemu-system-x86_64": {"--version"},
	} {
		if text, err := output(ctx, name, args...); err == nil {
			found[name] = versionNumber.FindString(text)
		}
	}
	return found
}

func kernel(ctx context.Context) string {
	text, err := output(ctx, "uname", "-sr")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(text)
}

func output(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	return string(out), err
}

func command(ctx context.Context, name string, args ...string) error {
	return commandIn(ctx, nil, name, args...)
}

// commandIn runs a program with more in its environment.
func commandIn(ctx context.Context, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		text := strings.TrimSpace(string(out))
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, text[max(0, len(text)-500):])
	}
	return nil
}

// timed is how long f takes, in seconds.
func timed(f func() error) (float64, error) {
	began := time.Now()
	err := f()
	return time.Since(began).Seconds(), err
}

// cold empties the page cache, as far as this user may: all of it, or else that of
// the files below the paths.
func cold(paths ...string) error {
	unix.Sync()
	err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0)
	if err == nil {
		return nil
	}
	if !errors.Is(err, fs.ErrPermission) && !errors.Is(err, unix.EROFS) && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, path := range paths {
		err := filepath.WalkDir(path, func(name string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() {
				return err
			}
			file, err := os.Open(name) //nolint:gosec // our own directory
			if err != nil {
				return err
			}
			defer file.Close()
			return unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED)
		})
		if err != nil {
			return fmt.Errorf("drop %s from the page cache: %w", path, err)
		}
	}
	return nil
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// percentile of v, at least one of which lies at or above it.
func percentile(v []float64, p int) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[min(len(s)-1, len(s)*p/100)]
}
