package qemu

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

// Guard is a process of its own that puts right what its owner leaves behind when it
// dies: a guest whose filesystems it froze, and a QEMU that copies for a cut. It is
// also the one who freezes and thaws, and thaws by itself when time has run out.
type Guard struct {
	cmd     *exec.Cmd
	orders  io.WriteCloser
	replies *json.Decoder
}

// order is what a guard is told, a JSON object a line; it answers each with a reply.
type order struct {
	Op    string
	At    Address       // of watch
	ID    string        // of watch: begins the names of all that the owner makes in QEMU
	Bound time.Duration // of freeze
}

const (
	opWatch  = "watch"  // a machine; first of all
	opFreeze = "freeze" // its guest, for no longer than Bound
	opThaw   = "thaw"
	opEnd    = "end" // there is nothing left to put right
)

type reply struct {
	Err  string
	Late bool // of thaw: time had run out
}

// inGuard marks the environment of guards.
const inGuard = "LIFEBOAT_QEMU_GUARD"

// StartGuard starts a guard: a command that calls Watch.
func StartGuard(command []string) (*Guard, error) {
	if os.Getenv(inGuard) != "" {
		// The command has not done as it was told. It must not go on like this.
		return nil, errors.New("start guard: this process was itself started as a guard")
	}
	cmd := exec.Command(command[0], command[1:]...) //nolint:noctx // the agent's own program, until Close
	cmd.Stderr = os.Stderr                          // its last words, should it fail
	cmd.Env = append(os.Environ(), inGuard+"=1")
	orders, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start guard: %w", err)
	}
	replies, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start guard: %w", err)
	}
	// What ends the agent (Ctrl-C at a terminal, too) must not end its guard first.
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start guard: %w", err)
	}
	return &Guard{cmd, orders, json.NewDecoder(replies)}, nil
}

// Close ends the guard. clean: its owner has left nothing behind; else the guard looks,
// and Close waits for it.
func (g *Guard) Close(clean bool) error {
	var err error
	if clean {
		_, err = g.tell(order{Op: opEnd})
	}
	_ = g.orders.Close() // the process it leads to is waited for
	if waited := g.cmd.Wait(); waited != nil {
		err = fmt.Errorf("end guard: %w", waited)
	}
	return err
}

func (g *Guard) tell(o order) (r reply, err error) {
	raw, err := json.Marshal(o)
	if err == nil {
		_, err = g.orders.Write(append(raw, '\n'))
	}
	if err == nil {
		err = g.replies.Decode(&r)
	}
	if err != nil {
		return r, fmt.Errorf("speak to the guard: %w", err)
	}
	if r.Err != "" {
		return r, errors.New(r.Err)
	}
	return r, nil
}
