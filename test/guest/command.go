package guest

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Command and Answer are what goes over the line, a JSON object a line.
type (
	Command struct {
		Args []string `json:",omitempty"`
		// Name makes the program one that is left running; what it prints goes to the
		// virtio port of that name, which Config.Logs must have. Without Args, Signal is
		// sent to that program. After SIGKILL and SIGTERM it has ended when the answer
		// comes, and may be started again.
		Name   string `json:",omitempty"`
		Signal int    `json:",omitempty"`
	}
	Answer struct {
		Output string // stdout and stderr; the process number of a program left running
		Error  string // empty: it exited with 0
	}
)

// Do has the machine carry out a command. One at a time.
func (m *Machine) Do(c Command) (output string, err error) {
	var a Answer
	raw, err := json.Marshal(c)
	if err == nil {
		_, err = m.line.Write(append(raw, '\n'))
	}
	if err == nil {
		raw, err = m.answer.ReadBytes('\n')
	}
	if err == nil {
		err = json.Unmarshal(raw, &a)
	}
	if err == nil && a.Error != "" {
		err = fmt.Errorf("%s\n%s", a.Error, a.Output)
	}
	if err != nil {
		err = fmt.Errorf("%s %s in the guest: %w", c.Name, strings.Join(c.Args, " "), err)
	}
	return a.Output, err
}
