package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// Running tells whether systemd runs this machine's services.
func Running() bool {
	_, err := os.Stat("/run/systemd/system")
	return err == nil
}

// systemctl does nothing below a root, where nothing runs; enabling there is a
// link, which it makes itself.
func (p Place) systemctl(ctx context.Context, args ...string) error {
	if p.Root != "" {
		if args[0] != "enable" && args[0] != "disable" {
			return nil
		}
		args = append([]string{"--root=" + p.path("/")}, args...)
	}
	out, err := exec.CommandContext(ctx, "systemctl", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Health is how the service fares.
type Health struct {
	Active string // as systemd says: active, activating, failed, inactive
	Status string // as the agent says; its first word is the state of the replication
	// Restarts counts how often it failed and was started again.
	Restarts int

	pending bool // systemd has an order for it that it has not carried out
}

// State is the state of the replication, in the API's words; empty: not known.
func (h Health) State() string {
	if fields := strings.Fields(strings.ReplaceAll(h.Status, ":", " ")); len(fields) > 0 && h.Active == "active" {
		return fields[0]
	}
	return ""
}

func health(ctx context.Context) (Health, error) {
	out, err := exec.CommandContext(ctx, "systemctl", "show", Name, "--property=ActiveState,StatusText,NRestarts,Job").Output()
	if err != nil {
		return Health{}, fmt.Errorf("systemctl show %s: %w", Name, err)
	}
	var h Health
	for line := range strings.Lines(string(out)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch key {
		case "ActiveState":
			h.Active = value
		case "StatusText":
			h.Status = value
		case "NRestarts":
			h.Restarts, _ = strconv.Atoi(value) // a number, or an older systemd's nothing
		case "Job":
			h.pending = value != "" && value != "0"
		}
	}
	return h, nil
}

// ErrNotYet: the service runs, and what was waited for has not come.
var ErrNotYet = errors.New("not yet")

const askEvery = 500 * time.Millisecond

// Connected tells whether the agent has reached its server.
func (h Health) Connected() bool {
	state := h.State()
	return state != "" && state != "STARTING" && state != "CONNECTING"
}

// Await waits until done says so, the service has ended, or ctx ends (ErrNotYet).
// It tells each change.
func Await(ctx context.Context, done func(Health) (bool, error), tell func(Health)) error {
	var told Health
	for {
		now, err := health(ctx)
		if ctx.Err() != nil {
			return fmt.Errorf("%w: %s", ErrNotYet, told.Status)
		}
		if err != nil {
			return err
		}
		if now != told {
			told = now
			tell(now)
		}
		if now.Active == "failed" || now.Active == "inactive" && !now.pending {
			return fmt.Errorf("the agent ended: %s (see: journalctl -u %s)", now.Status, Name)
		}
		if ended, err := done(now); ended || err != nil {
			return err
		}
		select {
		case <-time.After(askEvery):
		case <-ctx.Done():
		}
	}
}
