package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// awsCLI is Debian's; another one may come first on the PATH.
const awsCLI = "/usr/bin/aws"

// aws runs one operation of the AWS CLI and returns what it printed as JSON.
func (in *installation) aws(t *testing.T, args ...string) map[string]any {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), awsCLI, append([]string{"--endpoint-url", in.env["AWS_ENDPOINT_URL"], "drs"}, args...)...)
	stdout, stderr, code := execute(t, cmd, in.env)
	if code != 0 {
		t.Fatalf("aws drs %s: exit %d: %s", strings.Join(args, " "), code, stderr)
	}
	out := map[string]any{}
	if strings.TrimSpace(stdout) != "" {
		if err := json.Unmarshal([]byte(stdout), &out); err != nil {
			t.Fatalf("aws drs %s printed %s: %v", args[0], stdout, err)
		}
	}
	return out
}

func first(t *testing.T, reply map[string]any) map[string]any {
	t.Helper()
	items, _ := reply["items"].([]any)
	if len(items) == 0 {
		t.Fatalf("no items: %v", reply)
	}
	return items[0].(map[string]any)
}

// The runbook of the README, with the AWS CLI that Debian ships.
func TestRunbookWithTheAWSCLI(t *testing.T) {
	if _, err := os.Stat(awsCLI); err != nil {
		t.Fatalf("%v: make test installs it (apt-get install awscli)", err)
	}
	in := install(t)
	image := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(image, []byte(strings.Repeat("no boot code here", 1<<16)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, server := in.startAgent(t, image, "--hostname", "clerk")

	described := first(t, in.aws(t, "describe-source-servers"))
	if described["sourceServerID"] != server || described["arn"] == "" || described["lastLaunchResult"] != "NOT_STARTED" {
		t.Errorf("describe-source-servers: %v", described)
	}
	job := in.aws(t, "start-recovery", "--is-drill", "--source-servers", "sourceServerID="+server, "--tags", "drill=autumn")["job"].(map[string]any)
	if job["status"] != "PENDING" || job["initiatedBy"] != "START_DRILL" || job["type"] != "LAUNCH" ||
		fmt.Sprint(job["tags"]) != "map[drill:autumn]" {
		t.Errorf("start-recovery: %v", job)
	}
	id := job["jobID"].(string)
	in.launched(t, in.waitJob(t, id))
	done := first(t, in.aws(t, "describe-jobs", "--filters", "jobIDs="+id))
	if done["status"] != "COMPLETED" || done["endDateTime"] == nil {
		t.Errorf("describe-jobs: %v", done)
	}
	if log := in.aws(t, "describe-job-log-items", "--job-id", id)["items"].([]any); len(log) < 6 ||
		log[0].(map[string]any)["event"] != "JOB_START" || log[len(log)-1].(map[string]any)["event"] != "JOB_END" {
		t.Errorf("describe-job-log-items: %v", log)
	}
	instance := first(t, in.aws(t, "describe-recovery-instances", "--filters", "sourceServerIDs="+server))
	if instance["ec2InstanceState"] != "RUNNING" || instance["isDrill"] != true || instance["jobID"] != id {
		t.Errorf("describe-recovery-instances: %v", instance)
	}
	after := first(t, in.aws(t, "describe-source-servers", "--filters", "sourceServerIDs="+server))
	if after["lastLaunchResult"] != "SUCCEEDED" || after["recoveryInstanceId"] != instance["recoveryInstanceID"] {
		t.Errorf("after the drill: %v", after)
	}
	term := in.aws(t, "terminate-recovery-instances", "--recovery-instance-ids", instance["recoveryInstanceID"].(string))["job"].(map[string]any)
	if term["type"] != "TERMINATE" || term["initiatedBy"] != "TERMINATE_RECOVERY_INSTANCES" {
		t.Errorf("terminate-recovery-instances: %v", term)
	}
	in.waitJob(t, term["jobID"].(string))
	if left := in.aws(t, "describe-recovery-instances")["items"].([]any); len(left) != 0 {
		t.Errorf("instances left: %v", left)
	}
}
