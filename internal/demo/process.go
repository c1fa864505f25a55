package demo

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

// process is a lifeboat that runs as a child, its output in a log file.
type process struct {
	name string
	log  string // path
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // how it ended, valid after done
}

// start runs lifeboat with the arguments. It ends when it is told to, or with us.
func (s *stage) start(name string, args ...string) (*process, error) {
	p := &process{name: name, log: s.path(name + ".log"), done: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer log.Close() // the child has its own
	p.cmd = exec.Command(s.binary, args...)
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

// ended returns why the process is no longer there, nil while it runs.
func (p *process) ended() error {
	select {
	case <-p.done:
		return fmt.Errorf("the %s ended by itself (%v); its last words:\n%s", p.name, p.err, p.tail(8))
	default:
		return nil
	}
}

// kill ends it as a crash would. It is safe to repeat.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended already
	<-p.done
}

// stop asks it to end, and kills it when ctx ends first.
func (p *process) stop(ctx context.Context) error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		p.kill()
		return fmt.Errorf("the %s did not stop when asked and was killed", p.name)
	}
}

func (p *process) tail(lines int) string {
	data, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// freeAddress returns an address of this machine that nobody listens on.
func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	address := listener.Addr().String()
	return address, listener.Close()
}

// output runs lifeboat to its end and returns what it printed.
func (s *stage) output(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, s.binary, args...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
		}
		return "", fmt.Errorf("lifeboat %s: %w", strings.Join(args, " "), err)
	}
	return string(out), nil
}
