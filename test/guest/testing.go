package guest

import (
	"context"
	"os"
	"testing"
)

// Start boots a machine with disks and nothing else. See Boot.
func Start(t *testing.T, disks ...Disk) *Machine {
	t.Helper()
	return Boot(t, Config{Disks: disks})
}

// Boot is Launch for a test. The machine is killed when the test ends.
func Boot(t *testing.T, cfg Config) *Machine {
	t.Helper()
	dir, err := os.MkdirTemp("", "guest-") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	m, err := Launch(context.WithoutCancel(t.Context()), dir, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("console:\n%s", m.Console.Tail(40))
		}
		m.Kill()
	})
	return m
}

// Restart cuts the machine's power and boots it again, with the disks as they are.
func (m *Machine) Restart(t *testing.T) {
	t.Helper()
	if err := m.PowerCut(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
}

// Run runs a program in the machine and returns what it printed.
func (m *Machine) Run(t *testing.T, args ...string) string {
	t.Helper()
	return m.must(t, Command{Args: args})
}

// Background starts a program that goes on by itself, and returns its process number.
func (m *Machine) Background(t *testing.T, name string, args ...string) (pid string) {
	t.Helper()
	return m.must(t, Command{Args: args, Name: name})
}

// Signal sends a signal to a program of Background.
func (m *Machine) Signal(t *testing.T, name string, signal int) {
	t.Helper()
	m.must(t, Command{Name: name, Signal: signal})
}

func (m *Machine) must(t *testing.T, c Command) string {
	t.Helper()
	output, err := m.Do(c)
	if err != nil {
		t.Fatal(err)
	}
	return output
}

// Plug pulls the machine's network cable, or puts it back.
func (m *Machine) Plug(t *testing.T, in bool) {
	t.Helper()
	if err := m.Link(t.Context(), in); err != nil {
		t.Fatal(err)
	}
}
