package rig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"time"
)

// QuitMachines ends machines that no server is left to terminate. Each QEMU is
// told on its own control socket, so that nothing else can be hit.
func (r *Rig) QuitMachines(ctx context.Context) error {
	sockets, err := filepath.Glob(filepath.Join(r.Data(), "instances", "*", "qmp.sock"))
	if err != nil {
		return err
	}
	var errs []error
	for _, socket := range sockets {
		if err := quit(ctx, socket); err != nil {
			errs = append(errs, fmt.Errorf("end the machine of %s: %w", filepath.Dir(socket), err))
		}
	}
	return errors.Join(errs...)
}

func quit(ctx context.Context, socket string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil // nobody listens: that machine has ended
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, `{"execute":"qmp_capabilities"}{"execute":"quit"}`); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, conn) // QEMU closes it when it ends
	return err
}
