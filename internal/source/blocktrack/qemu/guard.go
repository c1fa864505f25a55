package qemu

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Guard is a process of its own that puts right what its owner leaves behind when it
// dies: a guest whose filesystems it froze, and a QEMU that copies for a cut. It ends
// the copying, too, when room for it runs out and the owner does nothing, for it is
// stopped. It is also the one who freezes and thaws, and thaws by itself when time has
// run out.
type Guard struct {
	cmd *exec.Cmd

	mu      sync.Mutex // one order at a time
	orders  *net.UnixConn
	replies *json.Decoder
}

// order is what a guard is told, a JSON object a line; it answers each with a reply.
type order struct {
	Op    string
	At    Address       // of watch
	ID    string        // of watch and hold: begins the names of all that the owner makes in QEMU, or of a cut
	Keep  bool          // of watch: the owner's bitmaps are left to its successor
	Dir   string        // of hold: where the copies are
	Bound time.Duration // of freeze
}

const (
	opWatch  = "watch"  // a machine; first of all
	opFreeze = "freeze" // its guest, for no longer than Bound
	opThaw   = "thaw"
	opLine   = "line"  // comes with the connection to QEMU that the owner uses from now on
	opHold   = "hold"  // a cut begins: the room for its copies is minded
	opLetGo  = "letgo" // it has ended
	opEnd    = "end"   // there is nothing left to put right
)

type reply struct {
	Err  string
	Late bool // of thaw: time had run out; of letgo: room had
}

// refusal is what a guard answers that lives.
type refusal struct{ text string }

func (r *refusal) Error() string { return r.text }

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
	// A socket and no pipe, for what is lent.
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, fmt.Errorf("start guard: %w", err)
	}
	defer theirs.Close() // the guard has its own
	cmd.Stdin = theirs
	replies, err := cmd.StdoutPipe()
	if err != nil {
		_ = ours.Close() // nothing was sent
		return nil, fmt.Errorf("start guard: %w", err)
	}
	// What ends the agent (Ctrl-C at a terminal, too) must not end its guard first.
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		_ = ours.Close() // nothing was sent
		return nil, fmt.Errorf("start guard: %w", err)
	}
	return &Guard{cmd: cmd, orders: ours, replies: json.NewDecoder(replies)}, nil
}

func socketPair() (ours *net.UnixConn, theirs *os.File, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	own := os.NewFile(uintptr(pair[0]), "orders")
	defer own.Close() // the connection has a copy
	theirs = os.NewFile(uintptr(pair[1]), "orders")
	conn, err := net.FileConn(own)
	if err != nil {
		_ = theirs.Close() // nobody has it yet
		return nil, nil, err
	}
	return conn.(*net.UnixConn), theirs, nil
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

func (g *Guard) tell(o order) (reply, error) {
	return g.order(o, func(line []byte) error {
		_, err := g.orders.Write(line)
		return err
	})
}

// lend is tell with a copy of a connection.
func (g *Guard) lend(o order, conn syscall.Conn) (r reply, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return r, err
	}
	return g.order(o, func(line []byte) (err error) {
		if lost := raw.Control(func(fd uintptr) {
			_, _, err = g.orders.WriteMsgUnix(line, unix.UnixRights(int(fd)), nil)
		}); lost != nil {
			return lost
		}
		return err
	})
}

func (g *Guard) order(o order, send func(line []byte) error) (r reply, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	raw, err := json.Marshal(o)
	if err == nil {
		err = send(append(raw, '\n'))
	}
	if err == nil {
		err = g.replies.Decode(&r)
	}
	if err != nil {
		return r, fmt.Errorf("speak to the guard: %w", err)
	}
	if r.Err != "" {
		return r, &refusal{r.Err}
	}
	return r, nil
}
