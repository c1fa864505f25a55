package freeze

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

// ioctls of a mounted filesystem.
const (
	fiFreeze = 0xc0045877
	fiThaw   = 0xc0045878
)

// order is what a guard is told, a JSON object a line: to thaw these directories
// after so long, or, with none, that all is thawed. It answers each with a line:
// "ready", or "idle", or "thawed" if it had thawed by itself before.
type order struct {
	Dirs  []string
	After time.Duration
}

// Guard is the process that thaws what its owner does not. One goroutine at a time uses it.
type Guard struct {
	cmd    *exec.Cmd
	orders io.WriteCloser
	reply  *bufio.Reader
	left   *step // what Freeze has left to itself; nil: nothing

	between func() // for tests: called once, before the second filesystem is frozen; nil: not
}

// inGuard marks the environment of guards.
const inGuard = "LIFEBOAT_FREEZE_GUARD"

// StartGuard starts a guard: a command that calls Watch. It ends when Close is
// called or the owner dies; then it thaws what it was told to.
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
	return &Guard{cmd: cmd, orders: orders, reply: bufio.NewReader(replies)}, nil
}

// Close ends the guard. One that watches over a filesystem which is stuck half frozen ends
// only with this process, when that call, too, has come to its end: nobody else would thaw it.
func (g *Guard) Close() error {
	if err := g.Stuck(); err != nil {
		return fmt.Errorf("end guard: %w", err)
	}
	_ = g.orders.Close() // the process it leads to is waited for
	if err := g.cmd.Wait(); err != nil {
		return fmt.Errorf("end guard: %w", err)
	}
	return nil
}

func (g *Guard) tell(o order) (string, error) {
	raw, err := json.Marshal(o)
	if err == nil {
		_, err = g.orders.Write(append(raw, '\n'))
	}
	var reply string
	if err == nil {
		reply, err = g.reply.ReadString('\n')
	}
	if err != nil {
		return "", fmt.Errorf("speak to the guard: %w", err)
	}
	return reply, nil
}

// again is how often a guard thaws once time has run out.
const again = 20 * time.Millisecond

// Watch is the guard's side: it takes orders until their end, and thaws then, and
// whenever time has run out.
func Watch(orders io.Reader, replies io.Writer) error {
	lines := make(chan order)
	var readErr error
	go func() {
		defer close(lines)
		decoder := json.NewDecoder(orders)
		for {
			var o order
			if readErr = decoder.Decode(&o); readErr != nil {
				return
			}
			lines <- o
		}
	}()
	var dirs []*os.File
	var late <-chan time.Time
	thawed := false
	thaw := func() {
		for _, d := range dirs {
			thawed = thawSlowly(d) || thawed
		}
		// The owner may be slow and freeze only now: again, until he is done.
		late = time.After(again)
	}
	for {
		select {
		case <-late:
			thaw()
		case o, more := <-lines:
			if !more {
				thaw()
				if errors.Is(readErr, io.EOF) {
					return nil
				}
				return fmt.Errorf("guard: read orders: %w", readErr)
			}
			reply := "idle\n"
			if len(o.Dirs) > 0 {
				reply, late, thawed = "ready\n", time.After(o.After), false
			} else if late = nil; thawed {
				reply = "thawed\n"
			}
			for _, d := range dirs {
				_ = d.Close() // directories, open for reading
			}
			dirs = nil
			for _, name := range o.Dirs {
				// Opened now: a lookup might wait for what is frozen.
				d, err := os.Open(name)
				if err != nil {
					return fmt.Errorf("guard: %w", err)
				}
				dirs = append(dirs, d)
			}
			if _, err := io.WriteString(replies, reply); err != nil {
				thaw()
				return fmt.Errorf("guard: answer: %w", err)
			}
		}
	}
}

// thawSlowly thaws a filesystem, also one that is only about to be frozen: the call
// then waits for that to be done. It tells whether there was something to thaw.
func thawSlowly(d *os.File) bool { return ioctl(d, fiThaw) == nil }

func ioctl(f *os.File, request uintptr) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, 0); errno != 0 {
		return errno
	}
	return nil
}

func closeAll(dirs []*os.File) {
	for _, d := range dirs {
		_ = d.Close() // directories, open for reading; nil is refused
	}
}
