package nbd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// ListenUnix listens on a unix socket at path that only the owner may use. A
// socket that a dead server left there is replaced; one that still answers, or
// anything that is not a socket, is refused with syscall.EADDRINUSE. The socket is
// left behind when the listener is closed.
//
// The path may have any length: a socket's address holds 107 bytes, so the
// directory is named through an open file of it.
func ListenUnix(ctx context.Context, path string) (net.Listener, error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	defer dir.Close()
	address := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path))
	switch info, err := os.Lstat(path); {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	case info.Mode().Type() != os.ModeSocket:
		return nil, fmt.Errorf("listen on %s: something that is not a socket lies there; move it away: %w", path, syscall.EADDRINUSE)
	default:
		nc, err := new(net.Dialer).DialContext(ctx, "unix", address)
		if err == nil {
			nc.Close()
			return nil, fmt.Errorf("listen on %s: another server answers there; stop it first: %w", path, syscall.EADDRINUSE)
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return nil, fmt.Errorf("probe socket %s: %w", path, err)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("remove stale socket: %w", err)
		}
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "unix", address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false) // that address ends with dir
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("restrict socket to its owner: %w", err), ln.Close())
	}
	return ln, nil
}
