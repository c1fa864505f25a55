package qemu

import (
	"context"
	"io"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// minding is what a guard knows of the cut that its owner holds.
type minding struct {
	line  int              // copy of the owner's connection to QEMU; none: it is in nobody's way
	names string           // of the cut; empty: none is held
	dir   string           // of its copies
	next  <-chan time.Time // when to look at the room again
	broke bool             // the cut was given up
}

const none = -1

// borrow takes over a copy of the owner's connection in place of the one before.
func (h *minding) borrow(line int) {
	if h.line != none {
		_ = unix.Close(h.line) // a copy: the connection stays
	}
	h.line = line
}

func (h *minding) begin(o order) {
	h.names, h.dir, h.broke = o.ID, o.Dir, false
	h.next = time.After(lookAgain(0, 0))
}

func (h *minding) end() (broke bool) {
	h.names, h.next = "", nil
	return h.broke
}

// patience is how long a guard tries to reach QEMU before it looks at the room again.
const patience = 5 * time.Second

// mind gives up the cut, and all that was copied for it, when the room for it runs
// out. Its owner should have, and so is stopped, or too slow.
func (w *watch) mind() {
	h := &w.minding
	free, err := room(h.dir)
	if err != nil || free < roomLast {
		h.broke = true
		if h.line != none {
			// QEMU serves nobody else before. The owner connects again.
			_ = unix.Shutdown(h.line, unix.SHUT_RDWR) // it fails once that is done
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if m, err := w.machine.At.dial(ctx); err == nil { // else QEMU is gone, or it is tried again
			if m.cancel(ctx, h.names) == nil {
				_ = m.take(ctx, h.names) // the owner's next connection tells
			}
			m.close()
		}
	}
	h.next = time.After(lookAgain(free, roomLast))
}

// borrower reads orders, and keeps what was lent with them until it is taken.
type borrower struct {
	conn *net.UnixConn
	lent chan int // capacity 1
}

func newBorrower(conn *net.UnixConn) *borrower { return &borrower{conn, make(chan int, 1)} }

func (b *borrower) Read(p []byte) (int, error) {
	rights := make([]byte, unix.CmsgSpace(4))
	n, r, _, _, err := b.conn.ReadMsgUnix(p, rights)
	if err == nil && n == 0 {
		err = io.EOF
	}
	if r == 0 || err != nil {
		return n, err
	}
	messages, err := unix.ParseSocketControlMessage(rights[:r])
	if err != nil || len(messages) == 0 {
		return n, err
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) == 0 {
		return n, err
	}
	unix.CloseOnExec(fds[0])
	b.borrowed(fds[0])
	return n, nil
}

// borrowed keeps a descriptor, in place of one that nobody took.
func (b *borrower) borrowed(fd int) {
	if old := b.take(); old != none {
		_ = unix.Close(old) // a copy
	}
	b.lent <- fd
}

func (b *borrower) take() int {
	select {
	case fd := <-b.lent:
		return fd
	default:
		return none
	}
}
