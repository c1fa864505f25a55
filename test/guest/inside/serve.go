package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"lifeboat/test/guest"
)

// programs are those that were left running.
type programs struct {
	running map[string]*exec.Cmd
	ports   map[string]*os.File // a port is opened once
}

// serve runs what the host asks for, one command after the other.
func serve() error {
	port, err := openPort("commands")
	if err != nil {
		return err
	}
	p := programs{map[string]*exec.Cmd{}, map[string]*os.File{}}
	lines := bufio.NewReader(port)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) == 0 { // the host is not connected
			time.Sleep(20 * time.Millisecond)
			continue
		}
		if err != nil {
			return err
		}
		var c guest.Command
		if err := json.Unmarshal(line, &c); err != nil || len(c.Args) == 0 && c.Name == "" {
			return fmt.Errorf("command %q: %w", line, err)
		}
		raw, err := json.Marshal(p.do(c))
		if err != nil {
			return err
		}
		if _, err := port.Write(append(raw, '\n')); err != nil {
			return err
		}
	}
}

func (p programs) do(c guest.Command) (a guest.Answer) {
	var err error
	switch {
	case c.Name == "":
		var out []byte
		out, err = exec.CommandContext(context.Background(), c.Args[0], c.Args[1:]...).CombinedOutput()
		a.Output = string(out)
	case len(c.Args) > 0:
		a.Output, err = p.start(c.Name, c.Args)
	default:
		err = p.signal(c.Name, syscall.Signal(c.Signal))
	}
	if err != nil {
		a.Error = err.Error()
	}
	return a
}

func (p programs) start(name string, args []string) (pid string, err error) {
	if p.ports[name] == nil {
		if p.ports[name], err = openPort(name); err != nil {
			return "", err
		}
	}
	cmd := exec.Command(args[0], args[1:]...) //nolint:noctx // until it is told to end
	cmd.Stdout, cmd.Stderr = p.ports[name], p.ports[name]
	if err := cmd.Start(); err != nil {
		return "", err
	}
	p.running[name] = cmd
	return strconv.Itoa(cmd.Process.Pid), nil
}

func (p programs) signal(name string, signal syscall.Signal) error {
	cmd := p.running[name]
	if cmd == nil {
		return fmt.Errorf("no %s runs", name)
	}
	if signal != syscall.SIGKILL && signal != syscall.SIGTERM {
		return cmd.Process.Signal(signal)
	}
	_ = cmd.Process.Signal(signal) // it may have ended by itself
	_ = cmd.Wait()                 // by a signal, as was asked for
	delete(p.running, name)
	return nil
}
