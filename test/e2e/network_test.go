package e2e

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

var interrupted = regexp.MustCompile(`replication interrupted`)

// counters reads an agent's metrics off its socket: each by its name, over all labels.
func counters(t *testing.T, socket string) map[string]float64 {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	reply, err := client.Get("http://agent/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	values := map[string]float64{}
	lines := bufio.NewScanner(reply.Body)
	for lines.Scan() {
		name, rest, _ := strings.Cut(lines.Text(), " ")
		name, _, labelled := strings.Cut(name, "{")
		if labelled {
			rest = lines.Text()[strings.LastIndex(lines.Text(), " ")+1:]
		}
		if v, err := strconv.ParseFloat(rest, 64); err == nil && strings.HasPrefix(name, "lifeboat_agent_") {
			values[strings.TrimPrefix(name, "lifeboat_agent_")] += v
		}
	}
	return values
}

// wantDisk waits for a point that is the disk as it is now.
func (in *installation) wantDisk(t *testing.T, server, image string) {
	t.Helper()
	want, seen := fileDigest(t, image), map[string]bool{}
	file := filepath.Join(t.TempDir(), "export.img")
	eventually(t, "there is a point of the disk as it is now", func() (string, bool) {
		points := in.points(t, server)
		for _, p := range points {
			id := aws.ToString(p.SnapshotID)
			if seen[id] {
				continue
			}
			seen[id] = true
			_ = os.Remove(file) // of the point before, if there was one
			if _, errs, code := lifeboat(t, in.env, "export", server, "--point", id, "--disk", "0", "--output", file); code != 0 {
				t.Fatalf("export: exit %d: %s", code, errs)
			}
			if fileDigest(t, file) == want {
				return id, true
			}
		}
		return fmt.Sprint(len(points), " points"), false
	})
}

// far is a disk image whose agent is at the other end of a line.
type far struct {
	*testing.T
	*installation
	line              *line
	image, id, socket string
	disk              *os.File
	agent             *process
	random            *rand.ChaCha8
}

// protectFar has an image of 256 MiB with 512 KiB in it protected over a line.
func protectFar(t *testing.T, delay time.Duration, lostOfThousand int64) *far {
	t.Helper()
	f := &far{T: t, line: newLine(t), random: rand.NewChaCha8([32]byte{7})}
	f.installation = installAt(t, filepath.Join(t.TempDir(), "data"), "--listen", f.line.here+":0", "--replication-listen", f.line.here+":0")
	f.image, f.socket = filepath.Join(t.TempDir(), "disk.img"), filepath.Join(t.TempDir(), "metrics")
	disk, err := os.Create(f.image)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { disk.Close() })
	f.disk = disk
	if err := disk.Truncate(256 << 20); err != nil {
		t.Fatal(err)
	}
	f.write(512<<10, 1<<20)
	f.line.delay.Store(int64(delay))
	f.line.loss.Store(lostOfThousand)
	begun := time.Now()
	f.agent = startCommand(t, exec.Command("ip", f.line.beyond(binary, "agent", "--server", f.env["AWS_ENDPOINT_URL"], "--ca-cert", f.env["AWS_CA_BUNDLE"],
		"--token", f.env["LIFEBOAT_TOKEN"], "--state", filepath.Join(t.TempDir(), "agent"), "--disk", f.image, "--tracker", "scan",
		"--hostname", "far", "--epoch", "1s", "--metrics", "unix:"+f.socket)[1:]...))
	f.id = f.waitContinuous(t, f.agent)
	t.Logf("512 KiB and the handshakes took %s; %d packets, %d more were lost", time.Since(begun).Round(time.Millisecond), f.line.carried.Load(), f.line.lost.Load())
	f.wantDisk(t, f.id, f.image)
	return f
}

// write changes n bytes of the disk, incompressibly.
func (f *far) write(n int, at int64) {
	f.Helper()
	b := make([]byte, n)
	_, _ = f.random.Read(b) // never fails
	if _, err := f.disk.WriteAt(b, at); err != nil {
		f.Fatal(err)
	}
}

// soaking says that the long form of a test is asked for, as `make soak` does.
func soaking() bool { return os.Getenv("LIFEBOAT_TEST_LONG") != "" }

// Half a second there and back, and five packets of a hundred lost each way: the machine is
// protected all the same. A line that goes and comes breaks nothing, and no session.
func TestABadLine(t *testing.T) {
	t.Parallel() // with TestADeadLine: both wait, mostly
	f := protectFar(t, 250*time.Millisecond, 50)
	flaps := 1
	if soaking() {
		flaps = 60
	}
	before := counters(t, f.socket)
	for i := range flaps {
		f.line.cut.Store(true)
		f.write(4096, int64(8+i)<<20)
		time.Sleep(time.Second) // for as long as it is away
		f.line.cut.Store(false)
		f.wantDisk(t, f.id, f.image)
	}
	if after := counters(t, f.socket); after["sessions_total"] != before["sessions_total"] {
		t.Errorf("%v sessions became %v", before["sessions_total"], after["sessions_total"])
	}
}

// A line that is dead, and tells neither end, is noticed by both. What was written meanwhile
// arrives when it is back, and no more than that is sent. The long form cuts it for an hour,
// or for LIFEBOAT_TEST_CUT.
func TestADeadLine(t *testing.T) {
	t.Parallel()
	f := protectFar(t, 5*time.Millisecond, 0)
	before := counters(t, f.socket)
	logged := len(f.agent.log.Lines(0))
	f.line.cut.Store(true)
	down := time.Now()
	f.write(64<<10, 32<<20)
	see(t, f.agent.log, logged, interrupted)
	f.server.waitFor(t, `agent disconnected.*silent`)
	if now := counters(t, f.socket); now["connected"] != 0 {
		t.Error("the agent's metrics say that it is connected")
	}
	f.write(64<<10, 48<<20)
	if soaking() {
		hour := time.Hour
		if text := os.Getenv("LIFEBOAT_TEST_CUT"); text != "" {
			var err error
			if hour, err = time.ParseDuration(text); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Until(down.Add(hour))) // the cut's length is the subject
	}
	mended := time.Now()
	f.line.cut.Store(false)
	f.wantDisk(t, f.id, f.image)
	back := time.Since(mended)
	after := counters(t, f.socket)
	t.Logf("cut for %s; back after %s", mended.Sub(down).Round(time.Second), back.Round(time.Millisecond))
	if n := after["sent_bytes_total"] - before["sent_bytes_total"]; n < 128<<10 || n > 3*64<<10 {
		t.Errorf("%.0f bytes were sent for two times 64 KiB", n)
	}
	if after["sessions_total"] != before["sessions_total"]+1 || after["connected"] != 1 {
		t.Errorf("before the cut: %v; after: %v", before, after)
	}
}
