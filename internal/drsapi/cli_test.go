package drsapi

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
	"lifeboat/internal/iam"
)

// awsCLI finds the AWS CLI, version 2: the distribution's first, since another
// of the name may shadow it.
func awsCLI(t testing.TB) string {
	t.Helper()
	for _, name := range []string{"/usr/bin/aws", "/usr/local/bin/aws", "aws"} {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		version, err := exec.Command(path, "--version").Output()
		if err == nil && strings.HasPrefix(string(version), "aws-cli/2.") {
			return path
		}
	}
	t.Fatal("the AWS CLI, version 2, is not installed: run `scripts/setup.sh test`, or install the package awscli")
	return ""
}

// cli runs `aws drs ARGS` as the holder of a key and returns its output.
func (s *site) cli(account drs.Account, args ...string) (stdout, stderr string, err error) {
	s.t.Helper()
	key := s.keys[account]
	cmd := exec.CommandContext(s.t.Context(), awsCLI(s.t), append([]string{"drs", "--output", "json", "--no-cli-pager"}, args...)...)
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir,
		"AWS_ENDPOINT_URL_DRS=" + s.server.URL, "AWS_ENDPOINT_URL=" + s.server.URL,
		"AWS_CA_BUNDLE=" + iam.AuthorityCertFile(s.dir), "AWS_REGION=" + account.Region,
		"AWS_ACCESS_KEY_ID=" + key.ID, "AWS_SECRET_ACCESS_KEY=" + key.Secret.Reveal(),
		"AWS_CONFIG_FILE=" + filepath.Join(s.dir, "none"), "AWS_SHARED_CREDENTIALS_FILE=" + filepath.Join(s.dir, "none"),
		"AWS_MAX_ATTEMPTS=1", "AWS_EC2_METADATA_DISABLED=true",
	}
	// Older ones do not know the environment variable.
	cmd.Args = slices.Insert(cmd.Args, 1, "--endpoint-url", s.server.URL)
	var out, problems strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &problems
	err = cmd.Run()
	return out.String(), problems.String(), err
}

func (s *site) cliJSON(args ...string) map[string]any {
	s.t.Helper()
	stdout, stderr, err := s.cli(home, args...)
	if err != nil {
		s.t.Fatalf("aws drs %s: %v\n%s", strings.Join(args, " "), err, stderr)
	}
	out := map[string]any{}
	if stdout != "" {
		if err := json.Unmarshal([]byte(stdout), &out); err != nil {
			s.t.Fatalf("aws drs %s wrote %q: %v", strings.Join(args, " "), stdout, err)
		}
	}
	return out
}

// The API as the AWS CLI sees it, over TLS with the authority's certificate.
func TestCLI(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	server := s.addServer(home, "web1")
	point := s.addPoint(server.ID, time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), drs.CrashConsistent)
	id := string(server.ID)

	s.cliJSON("initialize-service")
	first := func(object map[string]any, list string) map[string]any {
		t.Helper()
		items, _ := object[list].([]any)
		if len(items) != 1 {
			t.Fatalf("%d items in %v", len(items), object)
		}
		return items[0].(map[string]any)
	}
	if got := first(s.cliJSON("describe-source-servers"), "items"); got["sourceServerID"] != id {
		t.Errorf("server: %v", got)
	}
	if got := first(s.cliJSON("describe-recovery-snapshots", "--source-server-id", id), "items"); got["snapshotID"] != string(point.ID) {
		t.Errorf("snapshot: %v", got)
	}
	if got := s.cliJSON("get-replication-configuration", "--source-server-id", id); got["replicationServerInstanceType"] != "t3.small" {
		t.Errorf("replication configuration: %v", got)
	}
	if got := s.cliJSON("update-launch-configuration", "--source-server-id", id, "--copy-tags", "--launch-disposition", "STOPPED"); got["copyTags"] != true {
		t.Errorf("updated launch configuration: %v", got)
	}
	if got := s.cliJSON("get-launch-configuration", "--source-server-id", id); got["launchDisposition"] != "STOPPED" {
		t.Errorf("launch configuration: %v", got)
	}

	job := s.cliJSON("start-recovery", "--is-drill", "--tags", "purpose=test",
		"--source-servers", "sourceServerID="+id+",recoverySnapshotID="+string(point.ID))["job"].(map[string]any)
	if job["status"] != "PENDING" || job["initiatedBy"] != "START_DRILL" || job["type"] != "LAUNCH" {
		t.Errorf("job: %v", job)
	}
	jobID := job["jobID"].(string)
	err := s.db.InTx(t.Context(), func(ctx context.Context, tx db.Tx) error {
		return tx.Log(ctx, "1", drs.JobLogItem{Job: drs.JobID(jobID), Time: time.Now(), Event: drs.EventJobStart})
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := first(s.cliJSON("describe-jobs", "--filters", "jobIDs="+jobID), "items"); got["jobID"] != jobID {
		t.Errorf("jobs: %v", got)
	}
	if got := first(s.cliJSON("describe-job-log-items", "--job-id", jobID), "items"); got["event"] != "JOB_START" {
		t.Errorf("log: %v", got)
	}
	instance := s.addInstance(server, drs.JobID(jobID))
	if got := first(s.cliJSON("describe-recovery-instances"), "items"); got["ec2InstanceID"] != string(instance.ID) {
		t.Errorf("instance: %v", got)
	}
	ended := s.cliJSON("terminate-recovery-instances", "--recovery-instance-ids", string(instance.ID))["job"].(map[string]any)
	if ended["type"] != "TERMINATE" {
		t.Errorf("terminate job: %v", ended)
	}

	s.cliJSON("tag-resource", "--resource-arn", server.ARN(), "--tags", "owner=me,site=a b/c")
	s.cliJSON("untag-resource", "--resource-arn", server.ARN(), "--tag-keys", "owner", "absent")
	if got := s.cliJSON("list-tags-for-resource", "--resource-arn", server.ARN())["tags"].(map[string]any); len(got) != 1 || got["site"] != "a b/c" {
		t.Errorf("tags: %v", got)
	}
}

// The CLI's own paginator follows our tokens to the end.
func TestCLIPages(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	want := map[string]bool{}
	for _, name := range []string{"a1", "a2", "a3", "a4", "a5"} {
		want[string(s.addServer(home, name).ID)] = true
	}
	items, _ := s.cliJSON("describe-source-servers", "--page-size", "2")["items"].([]any)
	for _, item := range items {
		delete(want, item.(map[string]any)["sourceServerID"].(string))
	}
	if len(items) != 5 || len(want) != 0 {
		t.Errorf("%d items, missing %v", len(items), want)
	}
}

func TestCLIRefusals(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	_, stderr, err := s.cli(other, "describe-source-servers")
	if err == nil || !strings.Contains(stderr, "(UninitializedAccountException)") || !strings.Contains(stderr, "InitializeService") {
		t.Errorf("uninitialized: %v %s", err, stderr)
	}
	_, stderr, err = s.cli(home, "get-launch-configuration", "--source-server-id", "s-00000000000000000")
	if err == nil || !strings.Contains(stderr, "(ResourceNotFoundException)") {
		t.Errorf("unknown server: %v %s", err, stderr)
	}
	key := s.keys[home]
	key.Secret = "wrong"
	s.keys[home] = key
	_, stderr, err = s.cli(home, "describe-source-servers")
	if err == nil || !strings.Contains(stderr, "(InvalidSignatureException)") {
		t.Errorf("wrong secret: %v %s", err, stderr)
	}
}
