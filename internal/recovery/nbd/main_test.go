package nbd_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"lifeboat/internal/recovery/nbd"
)

// TestMain turns the test binary into a server of one file when asked, so that
// tests can kill a real one.
func TestMain(m *testing.M) {
	if path := os.Getenv("NBD_TEST_FILE"); path != "" {
		if err := serveFile(path, os.Getenv("NBD_TEST_SOCKET")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func serveFile(path, socket string) error {
	d, err := openFileDevice(path)
	if err != nil {
		return err
	}
	ln, err := nbd.ListenUnix(context.Background(), socket)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return nbd.New(nbd.Config{Open: exports(map[string]*nbd.Export{"": {Device: d, Shared: true}})}).Serve(ctx, ln)
}

// exports serves a fixed set of names.
func exports(m map[string]*nbd.Export) func(context.Context, string) (*nbd.Export, error) {
	return func(_ context.Context, name string) (*nbd.Export, error) {
		if e := m[name]; e != nil {
			return e, nil
		}
		return nil, fmt.Errorf("%q: %w", name, nbd.ErrUnknownExport)
	}
}

// startServer serves m on a unix socket until the test ends and returns the
// server and the socket's path.
func startServer(t testing.TB, cfg nbd.Config) (*nbd.Server, string) {
	t.Helper()
	// Short, for the limit on socket paths.
	dir, err := os.MkdirTemp("", "nbd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	ln, err := nbd.ListenUnix(context.Background(), socket)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	srv := nbd.New(cfg)
	serve(t, srv, ln)
	return srv, socket
}

func serve(t testing.TB, srv *nbd.Server, ln net.Listener) {
	done := make(chan error, 1)
	go func() { done <- srv.Serve(context.Background(), ln) }()
	t.Cleanup(func() {
		srv.Close()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}

// need skips the test when a program is not installed.
func need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not installed (Debian: qemu-utils, qemu-system-x86, libnbd-bin, fio)", p)
		}
	}
}

// run runs a program and returns what it printed; the test fails if it does.
func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(patience(t), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// patience ends programs that hang, so that the test fails and says which.
func patience(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}
