// Command inside is the helper that runs in a guest of the tests: it takes
// commands from the host and holds the programs that a test needs there.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	err := errors.New("usage: inside serve | track")
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "serve":
			err = serve()
		case "track":
			err = track()
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "inside:", err)
		os.Exit(1)
	}
}

type command struct{ Args []string }

type answer struct{ Output, Error string }

// serve runs what the host asks for, one command after the other.
func serve() error {
	port, err := openPort("commands")
	if err != nil {
		return err
	}
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
		var c command
		if err := json.Unmarshal(line, &c); err != nil || len(c.Args) == 0 {
			return fmt.Errorf("command %q: %w", line, err)
		}
		var a answer
		out, err := exec.CommandContext(context.Background(), c.Args[0], c.Args[1:]...).CombinedOutput()
		a.Output = string(out)
		if err != nil {
			a.Error = err.Error()
		}
		raw, err := json.Marshal(a)
		if err != nil {
			return err
		}
		if _, err := port.Write(append(raw, '\n')); err != nil {
			return err
		}
	}
}

// openPort opens the virtio port of a name.
func openPort(name string) (*os.File, error) {
	ports, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return nil, err
	}
	for _, p := range ports {
		raw, err := os.ReadFile(p)
		if err == nil && strings.TrimSpace(string(raw)) == name {
			return os.OpenFile("/dev/"+filepath.Base(filepath.Dir(p)), os.O_RDWR, 0)
		}
	}
	return nil, fmt.Errorf("no virtio port %s", name)
}
