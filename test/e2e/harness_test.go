// Package e2e runs Lifeboat as its users do: the built binary, real AWS clients,
// real machines in QEMU, kill -9.
package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/drs"
	"github.com/aws/aws-sdk-go-v2/service/drs/types"

	"lifeboat/internal/demo/guest"
	"lifeboat/internal/demo/rig"
)

// binary is the lifeboat under test, built once.
var binary string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "lifeboat-e2e-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "lifeboat")
		build := exec.Command("go", "build", "-o", binary, "lifeboat/cmd/lifeboat")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build lifeboat: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// patience bounds every wait: emulated machines on a busy host are slow, and a
// test that fails should say so long before the suite is killed.
const patience = 3 * time.Minute

// process is a lifeboat that runs in the background. Its log can be waited on.
type process struct {
	cmd  *exec.Cmd
	log  *guest.Console
	done chan struct{} // closed when it has ended
	err  error         // how it ended, once done is closed
}

func start(t *testing.T, args ...string) *process {
	t.Helper()
	return startCommand(t, exec.Command(binary, args...))
}

// startCommand is start for a command that comes to run lifeboat.
func startCommand(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{cmd: cmd, log: guest.NewConsole(), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		p.log.Close(fmt.Errorf("%s ended: %s", cmd, p.cmd.ProcessState))
		close(p.done)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("log of %s:\n%s", cmd, p.log.Tail(60))
		}
	})
	return p
}

// kill ends the process as a power cut would.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended already
	<-p.done
}

// stop ends the process politely and returns how it ended.
func (p *process) stop(t *testing.T) error {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.done:
		return p.err
	case <-time.After(patience):
		t.Fatalf("no end after SIGTERM:\n%s", p.log.Tail(40))
		return nil
	}
}

// waitFor returns when the process has logged a line.
func (p *process) waitFor(t *testing.T, pattern string) guest.Match {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	m, err := p.log.Wait(ctx, 0, regexp.MustCompile(pattern))
	if err != nil {
		t.Fatalf("%v\n%s", err, p.log.Tail(40))
	}
	return m
}

// lifeboat runs a verb to its end.
func lifeboat(t *testing.T, env map[string]string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	return execute(t, cmd, env)
}

func execute(t *testing.T, cmd *exec.Cmd, env map[string]string) (stdout, stderr string, code int) {
	t.Helper()
	cmd.Env = os.Environ()
	for k, v := range env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if err != nil && cmd.ProcessState == nil {
		t.Fatalf("%v: %v", cmd.Args, err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// installation is a data directory and the server that runs on it.
type installation struct {
	dir    string
	env    map[string]string
	server *process
	drs    *drs.Client
	rig    rig.Rig // the same installation as the demo sees it
}

// machines are the processes of the instances whose machines run.
func (in *installation) machines(t *testing.T) map[string]int {
	t.Helper()
	running, err := in.rig.Machines()
	if err != nil {
		t.Fatal(err)
	}
	return running
}

// install makes a data directory, starts its server on free ports and
// initializes the account.
func install(t *testing.T) *installation {
	t.Helper()
	return installAt(t, filepath.Join(t.TempDir(), "data"))
}

func installAt(t *testing.T, dir string, more ...string) *installation {
	t.Helper()
	in := &installation{dir: dir, rig: rig.Rig{Binary: binary, Dir: filepath.Dir(dir)}}
	// A failed test may leave machines: they outlive their server by design.
	t.Cleanup(func() {
		if err := in.rig.QuitMachines(); err != nil {
			t.Error(err)
		}
	})
	in.startServer(t, append([]string{"--listen", "127.0.0.1:0", "--replication-listen", "127.0.0.1:0"}, more...)...)
	if _, err := in.drs.InitializeService(t.Context(), &drs.InitializeServiceInput{}); err != nil {
		t.Fatal(err)
	}
	return in
}

// startServer starts the server, again on the addresses of the first start, and
// waits until it serves.
func (in *installation) startServer(t *testing.T, args ...string) {
	t.Helper()
	in.server = start(t, append([]string{"server", "--data", in.dir, "--epoch", "1s"}, args...)...)
	in.server.waitFor(t, `server is ready`)
	in.readEnv(t)
}

var exportLine = regexp.MustCompile(`(?m)^export (\w+)='(.*)'$`)

func (in *installation) readEnv(t *testing.T) {
	t.Helper()
	out, errs, code := lifeboat(t, nil, "env", "--data", in.dir)
	if code != 0 {
		t.Fatalf("lifeboat env: exit %d: %s", code, errs)
	}
	in.env = map[string]string{}
	for _, m := range exportLine.FindAllStringSubmatch(out, -1) {
		in.env[m[1]] = m[2]
	}
	pem, err := os.ReadFile(in.env["AWS_CA_BUNDLE"])
	if err != nil {
		t.Fatal(err)
	}
	c, err := config.LoadDefaultConfig(t.Context(),
		config.WithRegion(in.env["AWS_REGION"]),
		config.WithCustomCABundle(bytes.NewReader(pem)),
		config.WithBaseEndpoint(in.env["AWS_ENDPOINT_URL_DRS"]),
		config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider(in.env["AWS_ACCESS_KEY_ID"], in.env["AWS_SECRET_ACCESS_KEY"], "")))
	if err != nil {
		t.Fatal(err)
	}
	in.drs = drs.NewFromConfig(c)
}

// startAgent protects an image and waits until the server has a consistent
// point of it.
func (in *installation) startAgent(t *testing.T, image string, more ...string) (*process, string) {
	t.Helper()
	state := filepath.Join(t.TempDir(), "agent")
	args := append([]string{
		"agent", "--server", in.env["AWS_ENDPOINT_URL"], "--ca-cert", in.env["AWS_CA_BUNDLE"], "--token", in.env["LIFEBOAT_TOKEN"],
		"--state", state, "--disk", image, "--tracker", "scan", "--cpus", "2", "--memory", "512MiB",
	}, more...)
	agent := start(t, args...)
	return agent, in.waitContinuous(t, agent)
}

// waitContinuous returns the ID of the only source server once it is protected.
func (in *installation) waitContinuous(t *testing.T, agent *process) string {
	t.Helper()
	var id string
	eventually(t, "the source server is CONTINUOUS with a recovery point", func() (string, bool) {
		select {
		case <-agent.done:
			t.Fatalf("the agent ended: %v\n%s", agent.err, agent.log.Tail(40))
		default:
		}
		out, err := in.drs.DescribeSourceServers(t.Context(), &drs.DescribeSourceServersInput{})
		if err != nil {
			t.Fatal(err)
		}
		if len(out.Items) == 0 {
			return "no source server", false
		}
		s := out.Items[0]
		id = aws.ToString(s.SourceServerID)
		state := s.DataReplicationInfo.DataReplicationState
		return string(state), state == types.DataReplicationStateContinuous && len(in.points(t, id)) > 0
	})
	return id
}

func (in *installation) points(t *testing.T, server string) []types.RecoverySnapshot {
	t.Helper()
	var all []types.RecoverySnapshot
	pages := drs.NewDescribeRecoverySnapshotsPaginator(in.drs, &drs.DescribeRecoverySnapshotsInput{SourceServerID: aws.String(server)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, page.Items...)
	}
	return all
}

// recover starts a recovery and waits for its job to complete.
func (in *installation) recover(t *testing.T, server string, drill bool) types.Job {
	t.Helper()
	out, err := in.drs.StartRecovery(t.Context(), &drs.StartRecoveryInput{
		IsDrill:       aws.Bool(drill),
		SourceServers: []types.StartRecoveryRequestSourceServer{{SourceServerID: aws.String(server)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return in.waitJob(t, aws.ToString(out.Job.JobID))
}

func (in *installation) waitJob(t *testing.T, id string) types.Job {
	t.Helper()
	var job types.Job
	eventually(t, "job "+id+" is COMPLETED", func() (string, bool) {
		out, err := in.drs.DescribeJobs(t.Context(), &drs.DescribeJobsInput{Filters: &types.DescribeJobsRequestFilters{JobIDs: []string{id}}})
		if err != nil || len(out.Items) != 1 {
			return fmt.Sprint(err), false
		}
		job = out.Items[0]
		return string(job.Status), job.Status == types.JobStatusCompleted
	})
	return job
}

func (in *installation) jobEvents(t *testing.T, id string) []types.JobLog {
	t.Helper()
	var all []types.JobLog
	pages := drs.NewDescribeJobLogItemsPaginator(in.drs, &drs.DescribeJobLogItemsInput{JobID: aws.String(id)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, page.Items...)
	}
	return all
}

func eventNames(log []types.JobLog) string {
	var names []string
	for _, l := range log {
		names = append(names, string(l.Event))
	}
	return strings.Join(names, " ")
}

// launched is the instance of a completed job of one server; it fails the test
// when the launch failed.
func (in *installation) launched(t *testing.T, job types.Job) string {
	t.Helper()
	p := job.ParticipatingServers[0]
	if p.LaunchStatus != types.LaunchStatusLaunched {
		for _, l := range in.jobEvents(t, aws.ToString(job.JobID)) {
			t.Logf("%s %s", l.Event, aws.ToString(eventError(l)))
		}
		t.Fatalf("launch status %s\n%s", p.LaunchStatus, in.server.log.Tail(40))
	}
	return aws.ToString(p.RecoveryInstanceID)
}

func eventError(l types.JobLog) *string {
	if l.EventData == nil {
		return nil
	}
	return l.EventData.RawError
}

// console follows the serial console of an instance.
func (in *installation) console(t *testing.T, instance string) *guest.Console {
	t.Helper()
	c := guest.NewConsole()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		rig.Follow(ctx, filepath.Join(in.dir, "instances", instance, "console.log"), c)
	}()
	t.Cleanup(func() { stop(); <-ended })
	return c
}

func see(t *testing.T, c *guest.Console, from int, pattern *regexp.Regexp) guest.Match {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	m, err := c.Wait(ctx, from, pattern)
	if err != nil {
		t.Fatalf("%v\n%s", err, c.Tail(30))
	}
	return m
}

// eventually asks until the answer is yes. Asking is how the clients of a polled
// API wait; there is no event to wait for.
func eventually(t *testing.T, what string, ask func() (now string, yes bool)) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		now, yes := ask()
		if yes {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %s until %s; now: %s", patience, what, now)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func fileDigest(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}
