package rig

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// Process is a lifeboat that runs as a child, its output in a log file.
type Process struct {
	Name string
	Log  string // path

	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // how it ended, valid after done
}

// Start runs lifeboat with the arguments and adds its output to NAME.log. It ends
// when it is told to, or with us.
func (r *Rig) Start(name string, args ...string) (*Process, error) {
	p := &Process{Name: name, Log: r.Path(name + ".log"), done: make(chan struct{})}
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer log.Close()                       // the child has its own
	p.cmd = exec.Command(r.Binary, args...) //nolint:noctx // it lives until Kill or Stop, beyond any one call
	p.cmd.Stdout, p.cmd.Stderr = log, log
	// Away from our terminal's Ctrl-C, so that clean-up finds a server that answers.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		defer close(p.done)
		p.err = p.cmd.Wait()
	}()
	return p, nil
}

// PID is the number of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Ended returns why the process is no longer there, nil while it runs.
func (p *Process) Ended() error {
	select {
	case <-p.done:
		how := "without an error"
		if p.err != nil {
			how = p.err.Error()
		}
		return fmt.Errorf("the %s ended by itself (%s); its last words:\n%s", p.Name, how, p.Tail(8))
	default:
		return nil
	}
}

// Bind returns a context that also ends when the process does, with the reason.
// Release it, as every context with a cancel function.
func (p *Process) Bind(ctx context.Context) (bound context.Context, release func()) {
	bound, cancel := context.WithCancelCause(ctx)
	released := make(chan struct{})
	go func() {
		defer close(released)
		select {
		case <-p.done:
			cancel(p.Ended())
		case <-bound.Done():
		}
	}()
	return bound, func() {
		cancel(context.Canceled)
		<-released
	}
}

// Kill ends it as a crash would. It is safe to repeat.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may have ended already
	<-p.done
}

// Stop asks it to end, and kills it when ctx ends first.
func (p *Process) Stop(ctx context.Context) error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		p.Kill()
		return fmt.Errorf("the %s did not stop when asked and was killed", p.Name)
	}
}

// Tail returns the last lines of its log.
func (p *Process) Tail(lines int) string {
	data, err := os.ReadFile(p.Log)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// freeAddress returns an address of this machine that nobody listens on.
func freeAddress(ctx context.Context) (string, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	address := listener.Addr().String()
	return address, listener.Close()
}

// Output runs lifeboat to its end and returns what it printed.
func (r *Rig) Output(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, r.Binary, args...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
		}
		return "", fmt.Errorf("lifeboat %s: %w", strings.Join(args, " "), err)
	}
	return string(out), nil
}
