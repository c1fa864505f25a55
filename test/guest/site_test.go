package guest_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsdrs "github.com/aws/aws-sdk-go-v2/service/drs"

	"lifeboat/internal/demo/rig"
)

// binary is the lifeboat under test, built once.
var binary string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "lifeboat-guest-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "lifeboat")
		build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, "lifeboat/cmd/lifeboat")
		build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build lifeboat: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// patience bounds every wait: machines are emulated, and the host may be busy.
const patience = 4 * time.Minute

// site is a Lifeboat server on the host that machines reach at 10.0.2.2.
type site struct {
	rig    *rig.Rig
	server *rig.Server
}

func newSite(t *testing.T) *site {
	t.Helper()
	lab, err := rig.New(binary, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := &site{rig: lab}
	s.start(t)
	if err := s.server.Initialize(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("server:\n%s", s.server.Tail(40))
		}
		s.server.Kill()
	})
	return s
}

// start starts the server, also again after it was killed.
func (s *site) start(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	defer cancel()
	var err error
	if s.server, err = s.rig.StartServer(ctx, "--epoch", "1s"); err != nil {
		t.Fatal(err)
	}
}

// agent is the command line of an agent in a machine that has the certificate at
// /ca.pem and its state on a disk of its own.
func (s *site) agent(disks ...string) []string {
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(s.server.Endpoint, "https://"))
	args := []string{
		"/lifeboat", "agent", "--server", "https://10.0.2.2:" + port, "--ca-cert", "/ca.pem", "--token", s.server.Token,
		"--state", "/mnt/state/agent", "--tracker", "ebpf", "--epoch", "1s", "--hostname", "busy",
	}
	for _, d := range disks {
		args = append(args, "--disk", d)
	}
	return args
}

// point is a recovery point that promises to be of one moment.
type point struct {
	id, server  string
	taken       time.Time
	consistency string
}

// points lists those of the only source server, the oldest first.
func (s *site) points(t *testing.T) (all []point) {
	t.Helper()
	servers, err := s.server.DescribeSourceServers(t.Context(), &awsdrs.DescribeSourceServersInput{})
	if err != nil {
		t.Fatal(err)
	}
	if len(servers.Items) == 0 {
		return nil
	}
	pages := awsdrs.NewDescribeRecoverySnapshotsPaginator(s.server, &awsdrs.DescribeRecoverySnapshotsInput{
		SourceServerID: servers.Items[0].SourceServerID, Order: "ASC",
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range page.Items {
			taken, err := time.Parse(time.RFC3339Nano, aws.ToString(item.Timestamp))
			if err != nil {
				t.Fatal(err)
			}
			id := aws.ToString(item.SnapshotID)
			all = append(all, point{id, aws.ToString(item.SourceServerID), taken, s.server.Consistency(id)})
		}
	}
	return all
}

// export writes a disk of a point to a file.
func (s *site) export(t *testing.T, p point, disk int, file string) {
	t.Helper()
	if err := s.tryExport(t, p, disk, file); err != nil {
		t.Fatal(err)
	}
}

// tryExport is export where the point may not have the disk.
func (s *site) tryExport(t *testing.T, p point, disk int, file string) error {
	t.Helper()
	text, err := s.rig.Output(t.Context(), "env", "--data", s.rig.Data())
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), binary, "export", p.server, "--point", p.id, "--disk", fmt.Sprint(disk), "--output", file)
	cmd.Env = os.Environ()
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		if name, value, ok := strings.Cut(strings.TrimPrefix(lines.Text(), "export "), "="); ok {
			cmd.Env = append(cmd.Env, name+"="+strings.Trim(value, "'"))
		}
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("export disk %d of %s: %w\n%s", disk, p.id, err, out)
	}
	return nil
}
