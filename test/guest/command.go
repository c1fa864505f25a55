package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// Command and Answer are what goes over the line, a JSON object a line.
type (
	Command struct {
		Args []string `json:",omitempty"`
		// Name makes the program one that is left running; what it prints goes to the
		// virtio port of that name. Without Args, Signal is sent to that program.
		Name   string `json:",omitempty"`
		Signal int    `json:",omitempty"`
	}
	Answer struct {
		Output string // stdout and stderr; the process number of a program left running
		Error  string // empty: it exited with 0
	}
)

// Run runs a program in the machine and returns what it printed. One at a time.
func (m *Machine) Run(t *testing.T, args ...string) string {
	t.Helper()
	return m.must(t, Command{Args: args})
}

// Try is Run for a program that may fail.
func (m *Machine) Try(args ...string) (output string, err error) {
	a, err := m.ask(Command{Args: args})
	if err == nil && a.Error != "" {
		err = errors.New(a.Error)
	}
	return a.Output, err
}

// Background starts a program that goes on by itself, and returns its process number.
// What it prints goes to the log of its name, which Config.Logs must have.
func (m *Machine) Background(t *testing.T, name string, args ...string) (pid string) {
	t.Helper()
	return m.must(t, Command{Args: args, Name: name})
}

// Signal sends a signal to a program of Background. After SIGKILL and SIGTERM it has
// ended when Signal returns, and may be started again.
func (m *Machine) Signal(t *testing.T, name string, signal int) {
	t.Helper()
	m.must(t, Command{Name: name, Signal: signal})
}

func (m *Machine) must(t *testing.T, c Command) string {
	t.Helper()
	a, err := m.ask(c)
	if err == nil && a.Error != "" {
		err = fmt.Errorf("%s\n%s", a.Error, a.Output)
	}
	if err != nil {
		t.Fatalf("%s %s in the guest: %v", c.Name, strings.Join(c.Args, " "), err)
	}
	return a.Output
}

func (m *Machine) ask(c Command) (a Answer, err error) {
	raw, err := json.Marshal(c)
	if err == nil {
		_, err = m.line.Write(append(raw, '\n'))
	}
	var line []byte
	if err == nil {
		line, err = m.answer.ReadBytes('\n')
	}
	if err == nil {
		err = json.Unmarshal(line, &a)
	}
	return a, err
}
