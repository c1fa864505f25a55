// Package rig runs a Lifeboat of its own for demonstrations, benchmarks and
// end-to-end tests: a server and agents as child processes in one directory, used
// from outside as its users do, through `lifeboat env`, the AWS SDK and the
// consoles of machines.
package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Rig is a directory with a Lifeboat in it. Its methods are for one goroutine.
type Rig struct {
	// Binary is the path of the lifeboat binary.
	Binary string
	// Dir holds logs (NAME.log), the server's data (data/) and the agents' states.
	Dir string

	api, replication string // addresses, chosen by the first StartServer
}

// New makes the directory when it is missing.
func New(binary, dir string) (*Rig, error) {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return nil, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make a directory to work in: %w", err)
	}
	return &Rig{Binary: binary, Dir: dir}, nil
}

// Path is where a file of the rig lies.
func (r *Rig) Path(name string) string { return filepath.Join(r.Dir, name) }

// Data is the server's data directory.
func (r *Rig) Data() string { return r.Path("data") }

// ConsoleLog is where the serial console of a recovery instance is written.
func (r *Rig) ConsoleLog(instance string) string {
	return filepath.Join(r.Data(), "instances", instance, "console.log")
}

const readyLimit = time.Minute

// Server is a running server and a client of it.
type Server struct {
	*Process
	*Client
}

// StartServer starts the server, again on the same ports after it was ended, and
// returns when it is ready. Extra arguments are passed on.
func (r *Rig) StartServer(ctx context.Context, args ...string) (*Server, error) {
	if r.api == "" {
		var err error
		if r.api, err = freeAddress(ctx); err != nil {
			return nil, err
		}
		if r.replication, err = freeAddress(ctx); err != nil {
			return nil, err
		}
	}
	process, err := r.Start("server", append([]string{
		"server", "--data", r.Data(), "--listen", r.api, "--replication-listen", r.replication,
	}, args...)...)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, readyLimit, errors.New("the server took too long to become ready"))
	defer cancel()
	client, err := r.connect(ctx, process)
	if err != nil {
		process.Kill()
		return nil, err
	}
	return &Server{process, client}, nil
}

// StartAgent starts an agent that replicates a disk image; its state is kept
// under the agent's name, so that starting it again goes on where it was.
func (r *Rig) StartAgent(c *Client, name, image string, args ...string) (*Process, error) {
	return r.Start(name, append([]string{
		"agent", "--server", c.Endpoint, "--ca-cert", c.CAFile, "--token", c.Token,
		"--state", r.Path(name), "--disk", image, "--tracker", "scan",
	}, args...)...)
}
