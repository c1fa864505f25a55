// Command inside is the helper that runs in a guest of the tests: it takes
// commands from the host and holds the programs that a test needs there.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	err := errors.New("usage: inside serve | track | load FILE MIB SECONDS RATE | syncs FILE N | clock | write PLAN FLOOR | check PLAN UPTO | kill-frozen WRITER VICTIM")
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "serve":
			err = serve()
		case "track":
			err = track()
		case "write":
			err = write(os.Args[2:])
		case "load":
			err = load(os.Args[2:])
		case "syncs":
			err = syncs(os.Args[2:])
		case "clock":
			_, err = fmt.Println(time.Now().UnixNano())
		case "check":
			err = check(os.Args[2:])
		case "kill-frozen":
			err = killFrozen(os.Args[2:])
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "inside:", err)
		os.Exit(1)
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
