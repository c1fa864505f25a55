package ingest_test

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"lifeboat/internal/drs"
	"lifeboat/internal/ingest"
	"lifeboat/internal/source/agent"
	"lifeboat/internal/source/blocktrack/tracktest"
	"lifeboat/internal/source/freeze"
	"lifeboat/internal/source/inventory"
	"lifeboat/internal/vault"
)

// stamps writes numbered blocks to a disk in an order that anyone can follow:
// write n goes to block place(n) and holds n. So a disk at any moment must be a
// prefix of the writes.
type stamps struct {
	path   string
	blocks uint64
	n      uint64
	flags  int // of open: O_DIRECT keeps the order of writes to a block device
}

const stampBlock = 4096

func (s *stamps) place(n uint64) uint64 { return n * 7919 % s.blocks }

func (s *stamps) write(t testing.TB, count int) {
	t.Helper()
	f, err := os.OpenFile(s.path, os.O_RDWR|s.flags, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 2*stampBlock)
	block = block[-uintptr(unsafe.Pointer(&block[0]))%stampBlock:][:stampBlock] // aligned, for O_DIRECT
	for range count {
		s.n++
		for i := 0; i < stampBlock; i += 8 {
			binary.LittleEndian.PutUint64(block[i:], s.n)
		}
		if _, err := f.WriteAt(block, int64(s.place(s.n))*stampBlock); err != nil {
			t.Fatal(err)
		}
	}
}

// prefix returns how many writes a disk holds, or an error when they are no prefix.
func (s *stamps) prefix(disk []byte) (uint64, error) {
	last := uint64(0)
	at := make([]uint64, s.blocks)
	for i := range at {
		block := disk[i*stampBlock : (i+1)*stampBlock]
		at[i] = binary.LittleEndian.Uint64(block)
		last = max(last, at[i])
		for j := 0; j < stampBlock; j += 8 {
			if binary.LittleEndian.Uint64(block[j:]) != at[i] {
				return 0, fmt.Errorf("block %d is torn", i)
			}
		}
	}
	want := make([]uint64, s.blocks)
	for n := uint64(1); n <= last; n++ {
		want[s.place(n)] = n
	}
	for i := range at {
		if at[i] != want[i] {
			return 0, fmt.Errorf("block %d holds write %d, but of %d writes the last one there is %d", i, at[i], last, want[i])
		}
	}
	return last, nil
}

func (s *stamps) create(t testing.TB) {
	t.Helper()
	f, err := os.Create(s.path)
	if err == nil {
		err = errors.Join(f.Truncate(int64(s.blocks)*stampBlock), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// wantPrefixes checks every point that calls itself consistent.
func (s *stamps) wantPrefixes(t testing.TB, v *vault.Vault, server drs.SourceServerID) (points int, last uint64) {
	t.Helper()
	all, err := v.Points(context.Background(), server)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if !p.Bootable() {
			continue
		}
		n, err := s.prefix(content(t, v, server, p.ID, 0))
		if err != nil {
			t.Errorf("point %s of epoch %d: %v", p.ID, p.Epoch, err)
		}
		if n < last {
			t.Errorf("point %s holds %d writes, the one before %d", p.ID, n, last)
		}
		points, last = points+1, n
	}
	return points, last
}

// The network is cut, the agent stopped and the server restarted at random
// moments while the disk changes: every consistent point is a prefix of the
// writes, and in the end the vault equals the disk.
func TestEveryPointIsAPrefixOfTheWrites(t *testing.T) {
	const blocks = 4096 + 3
	t.Run("image", func(t *testing.T) {
		t.Parallel()
		disk := &stamps{path: filepath.Join(t.TempDir(), "disk.img"), blocks: blocks}
		disk.create(t)
		everyPointIsAPrefix(t, disk, "")
	})
	// Where writes can be tracked, they are.
	t.Run("device", func(t *testing.T) {
		t.Parallel()
		everyPointIsAPrefix(t, &stamps{path: tracktest.Loop(t, blocks*stampBlock), blocks: blocks, flags: syscall.O_DIRECT}, "")
	})
	// And the kernel goes on while the agent is away.
	t.Run("pinned", func(t *testing.T) {
		t.Parallel()
		disk := &stamps{path: tracktest.Loop(t, blocks*stampBlock), blocks: blocks, flags: syscall.O_DIRECT}
		everyPointIsAPrefix(t, disk, tracktest.Pins(t))
	})
}

func everyPointIsAPrefix(t *testing.T, disk *stamps, pins string) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	r := newRig(t, nil)
	disk.write(t, 3000)
	cfg := r.config(t.TempDir(), disk.path)
	cfg.Pins = pins
	a := runAgent(cfg)
	for range 40 {
		disk.write(t, rng.IntN(400))
		time.Sleep(time.Duration(rng.IntN(60)) * time.Millisecond) // spreads the faults over the work
		switch rng.IntN(8) {
		case 0, 1:
			r.proxy.cut()
			disk.write(t, rng.IntN(100))
			r.proxy.mend()
		case 2:
			a.stop(t)
			disk.write(t, rng.IntN(100))
			a = runAgent(cfg)
		case 3:
			r.stop()
			disk.write(t, rng.IntN(100))
			r.start()
		case 4:
			if servers, _ := r.vault.Servers(context.Background()); len(servers) == 1 {
				ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
				r.server.TakePoint(ctx, servers[0]) // whatever comes of it
				cancel()
			}
		}
	}
	server := r.only()
	wantContent(t, r.vault, r.takePoint(server), disk.path)
	a.stop(t)
	points, last := disk.wantPrefixes(t, r.vault, server)
	t.Logf("%d consistent points", points)
	if last != disk.n {
		t.Errorf("the last point holds %d of %d writes", last, disk.n)
	}
}

// role makes this test binary a server or an agent, to be killed.
const role = "LIFEBOAT_TEST_ROLE"

func TestMain(m *testing.M) {
	var err error
	switch kind, arg, _ := strings.Cut(os.Getenv(role), " "); kind {
	case "server":
		err = serveProcess(arg)
	case "guard":
		if err = freeze.Watch(os.Stdin, os.Stdout); err == nil {
			return
		}
	case "agent":
		args := strings.Split(arg, " ")
		err = agent.Run(context.Background(), agent.Config{
			Server: "https://" + args[0], CAFile: args[1], Token: goodToken, State: args[2], Pins: args[3], Disks: args[4:],
			Epoch: 100 * time.Millisecond, Overrides: inventory.Overrides{Hostname: "source"},
		})
	default:
		os.Exit(m.Run())
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// serveProcess is a server on the directory and port of "DIR PORT".
func serveProcess(arg string) error {
	dir, port, _ := strings.Cut(arg, " ")
	v, authority := openData(nopTB{}, dir)
	cert, err := authority.ServerCertificate(dir, nil)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		return err
	}
	server := ingest.New(ingest.Config{
		Vault: makes{ingest.OnVault(v), v}, Catalog: newMemCatalog(), TLS: authority.AgentTLS(cert), Identify: identify(authority),
		Logger: slog.New(slog.DiscardHandler),
	})
	return server.Serve(context.Background(), l)
}

// nopTB lets a process use what tests use.
type nopTB struct{ testing.TB }

func (nopTB) Helper()           {}
func (nopTB) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

func startProcess(t *testing.T, what string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), role+"="+what)
	cmd.Stderr = os.Stderr
	if !testing.Verbose() {
		cmd.Stderr = nil
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func kill(cmd *exec.Cmd) {
	cmd.Process.Kill()
	cmd.Wait()
}

// The same with real processes and kill -9, of either end, at any moment.
func TestKillEitherEnd(t *testing.T) {
	t.Run("image", func(t *testing.T) {
		t.Parallel()
		disk := &stamps{path: filepath.Join(t.TempDir(), "disk.img"), blocks: 3000}
		disk.create(t)
		killEitherEnd(t, disk, "")
	})
	t.Run("pinned", func(t *testing.T) {
		t.Parallel()
		disk := &stamps{path: tracktest.Loop(t, 3000*stampBlock), blocks: 3000, flags: syscall.O_DIRECT}
		killEitherEnd(t, disk, tracktest.Pins(t))
	})
}

func killEitherEnd(t *testing.T, disk *stamps, pins string) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))

	// Registration goes to this process; replication to the one that is killed.
	dir, state := t.TempDir(), t.TempDir()
	v, authority := openData(t, dir)
	cert, err := authority.ServerCertificate(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	v.Close()
	l := listen(t)
	_, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	handler := registrar(authority, nil, "127.0.0.1:"+port).(ingest.Registrar)
	handler.CreateServer = func(context.Context, drs.SourceServerID) error { return nil } // the child does: see makes
	api := listen(t)
	web := &http.Server{Handler: handler}
	go web.Serve(tls.NewListener(api, &tls.Config{Certificates: []tls.Certificate{cert}}))
	defer web.Close()
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, authority.CertPEM(), 0o600); err != nil {
		t.Fatal(err)
	}

	disk.write(t, 2500)
	serverArg := "server " + dir + " " + port
	agentArg := strings.Join([]string{"agent", api.Addr().String(), ca, state, pins, disk.path}, " ")
	server, source := startProcess(t, serverArg), startProcess(t, agentArg)
	defer func() { kill(server); kill(source) }()
	for range 12 {
		disk.write(t, rng.IntN(300))
		time.Sleep(time.Duration(rng.IntN(700)) * time.Millisecond) // where in its work a process is killed
		disk.write(t, rng.IntN(300))
		if rng.IntN(2) == 0 {
			kill(server)
			disk.write(t, rng.IntN(100))
			server = startProcess(t, serverArg)
		} else {
			kill(source)
			disk.write(t, rng.IntN(100))
			source = startProcess(t, agentArg)
		}
	}
	kill(server)
	kill(source)

	// What is left must be all right, and go on to equal the disk.
	v, _ = openData(t, dir)
	servers, err := v.Servers(context.Background())
	if err != nil || len(servers) != 1 {
		t.Fatalf("servers %v, %v", servers, err)
	}
	points, last := disk.wantPrefixes(t, v, servers[0])
	t.Logf("%d consistent points, %d of %d writes", points, last, disk.n)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	server, source = startProcess(t, serverArg), startProcess(t, agentArg)
	deadline := time.Now().Add(patience)
	for last != disk.n {
		if time.Now().After(deadline) {
			t.Fatalf("the last point holds %d of %d writes", last, disk.n)
		}
		time.Sleep(2 * time.Second) // the vault cannot be read while the process has it
		kill(server)
		v, _ = openData(t, dir)
		_, last = disk.wantPrefixes(t, v, servers[0])
		v.Close()
		server = startProcess(t, serverArg)
	}
}

// makes is a vault that makes the server's place at its first session: in this
// test the registrar has no access to the vault of the process that is killed.
type makes struct {
	ingest.Vault
	v *vault.Vault
}

func (m makes) OpenBranch(ctx context.Context, server drs.SourceServerID) (ingest.Branch, error) {
	if err := m.v.CreateServer(ctx, server); err != nil && !errors.Is(err, vault.ErrExists) {
		return nil, err
	}
	return m.Vault.OpenBranch(ctx, server)
}
