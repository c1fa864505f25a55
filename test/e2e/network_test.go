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

// Half a second there and back, and five packets of a hundred lost each way: the machine is
// protected all the same. A line that goes and comes breaks nothing. One that is dead, and tells
// neither end, is noticed by both; what was written meanwhile arrives when it is back, and
// no more than that is sent.
func TestABadLine(t *testing.T) {
	l := newLine(t)
	in := installAt(t, filepath.Join(t.TempDir(), "data"), "--listen", l.here+":0", "--replication-listen", l.here+":0")
	image := filepath.Join(t.TempDir(), "disk.img")
	disk, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	if err := disk.Truncate(256 << 20); err != nil {
		t.Fatal(err)
	}
	random := rand.NewChaCha8([32]byte{7})
	write := func(n int, at int64) {
		t.Helper()
		b := make([]byte, n)
		_, _ = random.Read(b) // never fails
		if _, err := disk.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
	}
	write(512<<10, 1<<20)
	l.delay.Store(int64(250 * time.Millisecond))
	l.loss.Store(50)
	socket := filepath.Join(t.TempDir(), "metrics")
	begun := time.Now()
	agent := startCommand(t, exec.Command("ip", l.beyond(binary, "agent", "--server", in.env["AWS_ENDPOINT_URL"], "--ca-cert", in.env["AWS_CA_BUNDLE"],
		"--token", in.env["LIFEBOAT_TOKEN"], "--state", filepath.Join(t.TempDir(), "agent"), "--disk", image, "--tracker", "scan",
		"--hostname", "far", "--epoch", "1s", "--metrics", "unix:"+socket)[1:]...))
	server := in.waitContinuous(t, agent)
	t.Logf("512 KiB and the handshakes took %s; %d packets, %d more were lost", time.Since(begun).Round(time.Millisecond), l.carried.Load(), l.lost.Load())
	in.wantDisk(t, server, image)

	for i := range 3 { // it goes and comes
		l.cut.Store(true)
		write(4096, int64(8+i)<<20)
		time.Sleep(time.Second) // for as long as it is away
		l.cut.Store(false)
		in.wantDisk(t, server, image)
	}

	before := counters(t, socket)
	logged := len(agent.log.Lines(0))
	l.cut.Store(true)
	write(64<<10, 32<<20)
	noticed := see(t, agent.log, logged, interrupted)
	see(t, agent.log, noticed.Next, interrupted) // an attempt to come back that came to nothing
	in.server.waitFor(t, `agent disconnected.*silent`)
	if now := counters(t, socket); now["connected"] != 0 {
		t.Error("the agent's metrics say that it is connected")
	}
	write(64<<10, 48<<20)
	mended := time.Now()
	l.cut.Store(false)
	in.wantDisk(t, server, image)
	after := counters(t, socket)
	t.Logf("back after %s", time.Since(mended).Round(time.Millisecond))
	if n := after["sent_bytes_total"] - before["sent_bytes_total"]; n < 128<<10 || n > 3*64<<10 {
		t.Errorf("%.0f bytes were sent for two times 64 KiB", n)
	}
	if after["sessions_total"] == before["sessions_total"] || after["connected"] != 1 {
		t.Errorf("before the cut: %v; after: %v", before, after)
	}
}
