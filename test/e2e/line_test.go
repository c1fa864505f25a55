package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// line is a network between this machine and a namespace of it, for programs to talk over
// by themselves: the kernel's TCP at both ends, and packets that take their time, or
// never arrive.
type line struct {
	here, there string // addresses of its ends
	namespace   string
	delay       atomic.Int64 // of a packet, one way, in nanoseconds
	loss        atomic.Int64 // packets of 1000 that are lost, each way
	cut         atomic.Bool  // all are
	carried     atomic.Int64 // packets
	lost        atomic.Int64
}

// lines numbers those of this process; others may run on this machine, too.
var lines atomic.Int64

func newLine(t *testing.T) *line {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may lay a line between two network namespaces")
	}
	n, pid := lines.Add(1), os.Getpid()
	net := fmt.Sprintf("10.%d.%d", 128+pid/256%64, pid%256)
	l := &line{
		here: fmt.Sprintf("%s.%d", net, 4*n+1), there: fmt.Sprintf("%s.%d", net, 4*n+2),
		namespace: fmt.Sprintf("lifeboat-%d-%d", pid, n),
	}
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	if tun, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0); err != nil {
		t.Skipf("no network device can be made here: %v", err)
	} else {
		tun.Close()
	}
	if out, err := exec.Command("ip", "netns", "add", l.namespace).CombinedOutput(); err != nil {
		t.Skipf("no network namespace can be made here: %v: %s", err, out)
	}
	t.Cleanup(func() { ip("netns", "delete", l.namespace) })
	names := [2]string{fmt.Sprintf("lba%d-%d", pid, n), fmt.Sprintf("lbb%d-%d", pid, n)}
	var ends [2]*os.File
	for i, name := range names {
		ends[i] = tun(t, name)
	}
	ip("link", "set", names[1], "netns", l.namespace)
	ip("addr", "add", l.here+"/30", "dev", names[0])
	ip("link", "set", names[0], "up")
	ip("-n", l.namespace, "addr", "add", l.there+"/30", "dev", names[1])
	ip("-n", l.namespace, "link", "set", names[1], "up")
	ip("-n", l.namespace, "link", "set", "lo", "up")
	seed := rand.Uint64()
	t.Logf("the line's seed: %d", seed)
	var carriers sync.WaitGroup
	for i := range ends {
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		carriers.Go(func() { l.carry(ends[i], ends[1-i], rng) })
	}
	t.Cleanup(func() {
		for _, end := range ends {
			end.Close()
		}
		carriers.Wait()
		if t.Failed() {
			t.Logf("%d packets were carried, %d lost", l.carried.Load(), l.lost.Load())
		}
	})
	return l
}

// tun makes a network device whose packets are the file's.
func tun(t *testing.T, name string) *os.File {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	request, err := unix.NewIfreq(name)
	if err != nil {
		t.Fatal(err)
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		t.Fatalf("make network device %s: %v", name, err)
	}
	runtime.KeepAlive(request)
	return os.NewFile(uintptr(fd), name)
}

// carry takes packets from one end to the other until either is closed.
func (l *line) carry(from, to *os.File, rng *rand.Rand) {
	type packet struct {
		b  []byte
		at time.Time
	}
	underway := make(chan packet, 1<<16)
	var arrivals sync.WaitGroup
	arrivals.Go(func() {
		for p := range underway {
			time.Sleep(time.Until(p.at)) // the line's length
			if _, err := to.Write(p.b); errors.Is(err, os.ErrClosed) {
				continue
			}
		}
	})
	defer arrivals.Wait()
	defer close(underway)
	for {
		b := make([]byte, 1<<16)
		n, err := from.Read(b)
		if err != nil {
			return
		}
		if l.cut.Load() || rng.Int64N(1000) < l.loss.Load() {
			l.lost.Add(1)
			continue
		}
		l.carried.Add(1)
		select {
		case underway <- packet{append([]byte(nil), b[:n]...), time.Now().Add(time.Duration(l.delay.Load()))}:
		default: // a router's queue is not endless, either
			l.lost.Add(1)
		}
	}
}

// beyond is the command that runs a program at the line's other end.
func (l *line) beyond(args ...string) []string {
	return append([]string{"ip", "netns", "exec", l.namespace}, args...)
}
