package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// watch is a guard's side.
type watch struct {
	machine order  // of opWatch
	guest   *guest // nil: no connection
	frozen  bool   // the guest's filesystems are, or may be
	late    bool   // they were thawed because time had run out
	minding minding
}

const (
	// guestAnswers is how long the guest's agent may take over what is no work.
	guestAnswers = 2 * time.Second
	// again is how often a guard tries what did not succeed, and giveUp for how long once
	// its owner is dead.
	again  = 250 * time.Millisecond
	giveUp = 5 * time.Minute
)

// Watch is the guard's side: it takes orders, over the socket that its owner made its
// standard input, until their end. If that comes without an order to end, the owner is
// dead and what it made in the machine is removed.
func Watch(orders *os.File, replies io.Writer) error {
	conn, err := net.FileConn(orders)
	if err != nil {
		return fmt.Errorf("guard: orders: %w", err)
	}
	defer conn.Close() // there is nobody at the other end
	line, is := conn.(*net.UnixConn)
	if !is {
		return errors.New("guard: orders come over a socket, from an agent that starts its guard itself")
	}
	lent := newBorrower(line)
	lines := make(chan order)
	var readErr error
	go func() {
		defer close(lines)
		decoder := json.NewDecoder(lent)
		for {
			var o order
			if readErr = decoder.Decode(&o); readErr != nil {
				return
			}
			lines <- o
		}
	}()
	w := watch{minding: minding{line: none}}
	var late <-chan time.Time
	answers := json.NewEncoder(replies)
	for {
		select {
		case <-late:
			w.late, late = true, nil
			if w.thaw() != nil {
				late = time.After(again)
			}
		case <-w.minding.next:
			w.mind()
		case o, more := <-lines:
			if !more {
				err := w.takeOver()
				if !errors.Is(readErr, io.EOF) {
					err = errors.Join(fmt.Errorf("guard: read orders: %w", readErr), err)
				}
				return err
			}
			var r reply
			var err error
			switch o.Op {
			case opWatch:
				w.machine = o
				err = w.begin()
			case opFreeze:
				w.late = false
				if err = w.freeze(o.Bound); w.frozen {
					late = time.After(o.Bound)
				}
			case opThaw:
				if late = nil; w.frozen {
					if err = w.thaw(); err != nil {
						late = time.After(again)
					}
				}
				r.Late = w.late
			case opLine:
				w.minding.borrow(lent.take())
			case opHold:
				w.minding.begin(o)
			case opLetGo:
				r.Late = w.minding.end()
			case opEnd:
			default:
				err = fmt.Errorf("guard: no order %q", o.Op)
			}
			if err != nil {
				r.Err = err.Error()
			}
			if err := answers.Encode(r); err != nil {
				return errors.Join(fmt.Errorf("guard: answer: %w", err), w.takeOver())
			}
			if o.Op == opEnd {
				return nil
			}
		}
	}
}

// begin thaws what a guard that died with its owner left frozen. A guest without an
// agent, or with one that starts later, is none of its business.
func (w *watch) begin() error {
	if !w.machine.At.freezable() {
		return nil
	}
	g, err := w.machine.At.dialGuest(guestAnswers)
	if err != nil {
		return nil // it tells when it is to freeze
	}
	defer g.close()
	frozen, err := g.frozen(guestAnswers)
	if err != nil || !frozen {
		return err
	}
	return g.thaw(guestAnswers)
}

func (w *watch) freeze(bound time.Duration) error {
	if w.frozen {
		return errors.New("the guest is still frozen")
	}
	g, err := w.machine.At.dialGuest(guestAnswers)
	if err != nil {
		return err
	}
	// Under libvirt others ask the guest's agent, too: what they froze is not ours to thaw.
	if frozen, err := g.frozen(guestAnswers); err != nil || frozen {
		g.close()
		if err == nil {
			err = errors.New("somebody else has frozen the guest's filesystems, such as another backup: wait until it thaws them, or run virsh domfsthaw")
		}
		return err
	}
	w.guest, w.frozen = g, true
	n, err := g.freeze(bound)
	if err == nil && n == 0 {
		err = errors.New("the guest has no filesystem that can be frozen")
	}
	if err != nil {
		w.late = true
		return errors.Join(err, w.thaw())
	}
	return nil
}

// thaw lets the guest go on. When it fails it is to be tried again, over a new
// connection.
func (w *watch) thaw() (err error) {
	if !w.frozen {
		return nil
	}
	if w.guest == nil {
		if w.guest, err = w.machine.At.dialGuest(guestAnswers); err != nil {
			w.guest = nil
			return err
		}
	}
	err = w.guest.thaw(guestAnswers)
	w.guest.close()
	w.guest, w.frozen = nil, err != nil
	return err
}

// takeOver puts right what the owner left.
func (w *watch) takeOver() error {
	w.minding.borrow(none)                                                              // what the owner has had closes with it
	for until := time.Now().Add(giveUp); w.thaw() != nil && time.Now().Before(until); { // it has nothing else to do
		time.Sleep(again)
	}
	if w.machine.At == (Address{}) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), giveUp)
	defer cancel()
	m, err := w.machine.At.dial(ctx)
	if err != nil {
		return nil // QEMU is gone, or has the owner's successor, who does it
	}
	defer m.close()
	if w.machine.Keep {
		err = m.take(ctx, w.machine.ID)
	} else {
		err = m.sweep(ctx, w.machine.ID, nobodys)
	}
	if err != nil {
		return fmt.Errorf("guard: remove what the agent left in QEMU: %w", err)
	}
	return nil
}
