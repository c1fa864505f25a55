package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/drs"
	"github.com/aws/aws-sdk-go-v2/service/drs/types"

	"lifeboat/internal/demo/guest"
)

// knownImage builds a machine whose disk holds a file that it prints at boot.
func knownImage(t *testing.T) (image, content string) {
	t.Helper()
	image, content = filepath.Join(t.TempDir(), "source.img"), "the harbour light still burns"
	err := guest.Build(t.Context(), guest.Spec{
		Hostname: "harbour", Files: map[string][]byte{"/srv/log.txt": []byte(content + "\n")},
	}, image)
	if err != nil {
		t.Fatal(err)
	}
	return image, content
}

// The main job: a machine is protected, everything dies, the server alone comes
// back, and StartRecovery brings the machine back with what it held.
func TestADeadMachineComesBack(t *testing.T) {
	in := install(t)
	image, content := knownImage(t)
	want := fileDigest(t, image)
	agent, server := in.startAgent(t, image, "--hostname", "harbour")

	agent.kill()
	in.server.kill()
	if err := os.Remove(image); err != nil {
		t.Fatal(err)
	}
	in.startServer(t)

	out, err := in.drs.StartRecovery(t.Context(), &drs.StartRecoveryInput{
		SourceServers: []types.StartRecoveryRequestSourceServer{{SourceServerID: aws.String(server)}},
		Tags:          map[string]string{"reason": "fire"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if j := out.Job; j.Status != types.JobStatusPending || j.InitiatedBy != types.InitiatedByStartRecovery || j.Type != types.JobTypeLaunch ||
		len(j.ParticipatingServers) != 1 || j.ParticipatingServers[0].LaunchStatus != types.LaunchStatusPending || j.Tags["reason"] != "fire" {
		t.Errorf("StartRecovery answered %+v", j)
	}
	job := in.waitJob(t, aws.ToString(out.Job.JobID))
	instance := in.launched(t, job)
	if got, want := eventNames(in.jobEvents(t, aws.ToString(job.JobID))),
		"JOB_START SNAPSHOT_START SNAPSHOT_FAIL USING_PREVIOUS_SNAPSHOT CONVERSION_START CONVERSION_END LAUNCH_START JOB_END"; got != want {
		t.Errorf("job log: %s\nwant:    %s", got, want)
	}
	console := in.console(t, instance)
	see(t, console, 0, regexp.MustCompile(`^`+regexp.QuoteMeta(content)+`$`))

	file := filepath.Join(t.TempDir(), "export.img")
	point := aws.ToString(in.points(t, server)[0].SnapshotID)
	if _, errs, code := lifeboat(t, in.env, "export", server, "--point", point, "--disk", "0", "--output", file); code != 0 {
		t.Fatalf("export: exit %d: %s", code, errs)
	}
	if got := fileDigest(t, file); got != want {
		t.Errorf("the exported point is not the source's disk: %s, want %s", got, want)
	}

	term, err := in.drs.TerminateRecoveryInstances(t.Context(), &drs.TerminateRecoveryInstancesInput{RecoveryInstanceIDs: []string{instance}})
	if err != nil {
		t.Fatal(err)
	}
	ended := in.waitJob(t, aws.ToString(term.Job.JobID))
	if s := ended.ParticipatingServers[0].LaunchStatus; s != types.LaunchStatusTerminated {
		t.Errorf("launch status after termination: %s", s)
	}
	if got := eventNames(in.jobEvents(t, aws.ToString(ended.JobID))); got != "JOB_START CLEANUP_START CLEANUP_END JOB_END" {
		t.Errorf("terminate job log: %s", got)
	}
	left, err := in.drs.DescribeRecoveryInstances(t.Context(), &drs.DescribeRecoveryInstancesInput{})
	if err != nil || len(left.Items) != 0 {
		t.Errorf("%d instances left, %v", len(left.Items), err)
	}
	if left, _ := filepath.Glob(filepath.Join(in.dir, "instances", "i-*")); len(left) != 0 {
		t.Errorf("files of the terminated instance are left: %v", left)
	}
}

// A drill of a living machine takes a point on demand and leaves replication
// alone; a second one replaces the first.
func TestDrillOfALivingMachine(t *testing.T) {
	in := install(t)
	image, content := knownImage(t)
	_, server := in.startAgent(t, image, "--hostname", "harbour")

	first := in.recover(t, server, true)
	one := in.launched(t, first)
	if got := eventNames(in.jobEvents(t, aws.ToString(first.JobID))); got !=
		"JOB_START SNAPSHOT_START SNAPSHOT_END CONVERSION_START CONVERSION_END LAUNCH_START JOB_END" {
		t.Errorf("job log of the first drill: %s", got)
	}
	see(t, in.console(t, one), 0, regexp.MustCompile(regexp.QuoteMeta(content)))

	second := in.recover(t, server, true)
	two := in.launched(t, second)
	if got := eventNames(in.jobEvents(t, aws.ToString(second.JobID))); !strings.HasPrefix(got, "JOB_START CLEANUP_START CLEANUP_END SNAPSHOT_START") {
		t.Errorf("job log of the second drill: %s", got)
	}
	out, err := in.drs.DescribeRecoveryInstances(t.Context(), &drs.DescribeRecoveryInstancesInput{})
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Items) != 1 || aws.ToString(out.Items[0].RecoveryInstanceID) != two || !aws.ToBool(out.Items[0].IsDrill) ||
		out.Items[0].Ec2InstanceState != types.EC2InstanceStateRunning {
		t.Errorf("instances: %+v", out.Items)
	}
}
