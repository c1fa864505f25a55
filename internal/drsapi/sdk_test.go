package drsapi

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsdrs "github.com/aws/aws-sdk-go-v2/service/drs"
	"github.com/aws/aws-sdk-go-v2/service/drs/types"
	"github.com/aws/smithy-go"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

func sha256Of(s string) [32]byte { return sha256.Sum256([]byte(s)) }

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// The whole of the API as a program with the AWS SDK sees it.
func TestSDK(t *testing.T) {
	s := newSite(t)
	ctx, client := t.Context(), s.sdk(home)
	server := s.addServer(home, "web1")
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	point := s.addPoint(server.ID, at, drs.CrashConsistent)
	id := aws.String(string(server.ID))

	servers := must[*awsdrs.DescribeSourceServersOutput](t)(client.DescribeSourceServers(ctx, &awsdrs.DescribeSourceServersInput{}))
	if len(servers.Items) != 1 || aws.ToString(servers.Items[0].SourceServerID) != string(server.ID) {
		t.Fatalf("servers: %+v", servers.Items)
	}
	if got := servers.Items[0]; got.DataReplicationInfo.DataReplicationState != types.DataReplicationStateInitiating ||
		aws.ToString(got.SourceProperties.IdentificationHints.Hostname) != "web1" || got.SourceProperties.RamBytes != 2<<30 ||
		got.LastLaunchResult != types.LastLaunchResultNotStarted || aws.ToString(got.AgentVersion) != "1.2.3" {
		t.Errorf("server: %+v", got)
	}

	snapshots := must[*awsdrs.DescribeRecoverySnapshotsOutput](t)(client.DescribeRecoverySnapshots(ctx, &awsdrs.DescribeRecoverySnapshotsInput{SourceServerID: id}))
	if len(snapshots.Items) != 1 || aws.ToString(snapshots.Items[0].SnapshotID) != string(point.ID) || len(snapshots.Items[0].EbsSnapshots) != 2 ||
		aws.ToString(snapshots.Items[0].ExpectedTimestamp) != "2026-03-01T12:00:00.000Z" || aws.ToString(snapshots.Items[0].Timestamp) != "2026-03-01T12:00:02.000Z" {
		t.Errorf("snapshots: %+v", snapshots.Items)
	}

	replication := must[*awsdrs.GetReplicationConfigurationOutput](t)(client.GetReplicationConfiguration(ctx, &awsdrs.GetReplicationConfigurationInput{SourceServerID: id}))
	if len(replication.PitPolicy) != 3 || len(replication.ReplicatedDisks) != 2 || !aws.ToBool(replication.ReplicatedDisks[0].IsBootDisk) {
		t.Errorf("replication configuration: %+v", replication)
	}

	launch := must[*awsdrs.UpdateLaunchConfigurationOutput](t)(client.UpdateLaunchConfiguration(ctx, &awsdrs.UpdateLaunchConfigurationInput{
		SourceServerID: id, Name: aws.String("mine"), LaunchDisposition: types.LaunchDispositionStopped, CopyTags: aws.Bool(true),
		Licensing: &types.Licensing{OsByol: aws.Bool(true)},
	}))
	if aws.ToString(launch.Name) != "mine" {
		t.Errorf("updated launch configuration: %+v", launch)
	}
	kept := must[*awsdrs.GetLaunchConfigurationOutput](t)(client.GetLaunchConfiguration(ctx, &awsdrs.GetLaunchConfigurationInput{SourceServerID: id}))
	if kept.LaunchDisposition != types.LaunchDispositionStopped || !aws.ToBool(kept.CopyTags) || aws.ToBool(kept.CopyPrivateIp) || !aws.ToBool(kept.Licensing.OsByol) {
		t.Errorf("kept launch configuration: %+v", kept)
	}

	started := must[*awsdrs.StartRecoveryOutput](t)(client.StartRecovery(ctx, &awsdrs.StartRecoveryInput{
		IsDrill: aws.Bool(true), Tags: map[string]string{"purpose": "test"},
		SourceServers: []types.StartRecoveryRequestSourceServer{{SourceServerID: id, RecoverySnapshotID: aws.String(string(point.ID))}},
	}))
	job := started.Job
	if job.Status != types.JobStatusPending || job.Type != types.JobTypeLaunch || job.InitiatedBy != types.InitiatedByStartDrill ||
		len(job.ParticipatingServers) != 1 || job.ParticipatingServers[0].LaunchStatus != types.LaunchStatusPending ||
		job.ParticipatingResources == nil || len(job.ParticipatingResources) != 0 || job.Tags["purpose"] != "test" ||
		aws.ToString(job.Arn) != "arn:aws:drs:eu-west-1:111122223333:job/"+aws.ToString(job.JobID) || job.EndDateTime != nil {
		t.Errorf("job: %+v", job)
	}

	// A server in a job keeps its launch configuration.
	_, err := client.UpdateLaunchConfiguration(ctx, &awsdrs.UpdateLaunchConfigurationInput{SourceServerID: id, Name: aws.String("no")})
	var conflict *types.ConflictException
	if !errors.As(err, &conflict) || aws.ToString(conflict.ResourceId) != string(server.ID) || aws.ToString(conflict.ResourceType) != "source-server" {
		t.Errorf("update during a job: %v", err)
	}

	jobs := must[*awsdrs.DescribeJobsOutput](t)(client.DescribeJobs(ctx, &awsdrs.DescribeJobsInput{
		Filters: &types.DescribeJobsRequestFilters{JobIDs: []string{aws.ToString(job.JobID)}},
	}))
	if len(jobs.Items) != 1 || aws.ToString(jobs.Items[0].JobID) != aws.ToString(job.JobID) {
		t.Errorf("jobs: %+v", jobs.Items)
	}

	err = s.db.InTx(ctx, func(ctx context.Context, tx db.Tx) error {
		id := drs.JobID(aws.ToString(job.JobID))
		return errors.Join(
			tx.Log(ctx, "1", drs.JobLogItem{Job: id, Time: at, Event: drs.EventJobStart}),
			tx.Log(ctx, "2", drs.JobLogItem{Job: id, Time: at, Event: drs.EventConversionEnd, SourceServer: server.ID,
				Conversion: &drs.Conversion{RootVolume: "/dev/vda", DataTimestamp: at, VolumeSizes: map[string]int64{"/dev/vda": 4 << 30}}}),
			tx.Log(ctx, "3", drs.JobLogItem{Job: id, Time: at, Event: drs.EventLaunchFailed, SourceServer: server.ID, RawError: "no room"}),
		)
	})
	if err != nil {
		t.Fatal(err)
	}
	log := must[*awsdrs.DescribeJobLogItemsOutput](t)(client.DescribeJobLogItems(ctx, &awsdrs.DescribeJobLogItemsInput{JobID: job.JobID}))
	if len(log.Items) != 3 || log.Items[0].Event != types.JobLogEventJobStart || log.Items[0].EventData == nil ||
		log.Items[1].EventData.ConversionProperties.VolumeToVolumeSize["/dev/vda"] != 4<<30 ||
		aws.ToString(log.Items[2].EventData.RawError) != "no room" {
		t.Errorf("log: %+v", log.Items)
	}

	instance := s.addInstance(server, drs.JobID(aws.ToString(job.JobID)))
	instances := must[*awsdrs.DescribeRecoveryInstancesOutput](t)(client.DescribeRecoveryInstances(ctx, &awsdrs.DescribeRecoveryInstancesInput{
		Filters: &types.DescribeRecoveryInstancesRequestFilters{SourceServerIDs: []string{string(server.ID)}},
	}))
	if len(instances.Items) != 1 || aws.ToString(instances.Items[0].Ec2InstanceID) != string(instance.ID) || !aws.ToBool(instances.Items[0].IsDrill) ||
		instances.Items[0].Ec2InstanceState != types.EC2InstanceStateRunning || instances.Items[0].Failback.State != types.FailbackStateFailbackNotStarted {
		t.Errorf("instances: %+v", instances.Items)
	}
	ended := must[*awsdrs.TerminateRecoveryInstancesOutput](t)(client.TerminateRecoveryInstances(ctx, &awsdrs.TerminateRecoveryInstancesInput{
		RecoveryInstanceIDs: []string{string(instance.ID)},
	}))
	if ended.Job.Type != types.JobTypeTerminate || ended.Job.InitiatedBy != types.InitiatedByTerminateRecoveryInstances {
		t.Errorf("terminate job: %+v", ended.Job)
	}
}

func TestSDKTags(t *testing.T) {
	s := newSite(t)
	ctx, client := t.Context(), s.sdk(home)
	server := s.addServer(home, "web1")
	arn := aws.String(server.ARN())
	must[*awsdrs.TagResourceOutput](t)(client.TagResource(ctx, &awsdrs.TagResourceInput{ResourceArn: arn, Tags: map[string]string{"a": "1", "b/ü x+&": "2", "c": ""}}))
	must[*awsdrs.UntagResourceOutput](t)(client.UntagResource(ctx, &awsdrs.UntagResourceInput{ResourceArn: arn, TagKeys: []string{"b/ü x+&", "a", "absent"}}))
	tags := must[*awsdrs.ListTagsForResourceOutput](t)(client.ListTagsForResource(ctx, &awsdrs.ListTagsForResourceInput{ResourceArn: arn}))
	if len(tags.Tags) != 1 || tags.Tags["c"] != "" {
		t.Errorf("tags: %v", tags.Tags)
	}

	many := map[string]string{}
	for i := range drs.MaxTags {
		many[fmt.Sprint("key", i)] = ""
	}
	_, err := client.TagResource(ctx, &awsdrs.TagResourceInput{ResourceArn: arn, Tags: many})
	var invalid *types.ValidationException
	if !errors.As(err, &invalid) || invalid.Reason != types.ValidationExceptionReasonFieldValidationFailed {
		t.Errorf("51 tags: %v", err)
	}
	var absent *types.ResourceNotFoundException
	for _, arn := range []string{
		home.ARN(drs.TypeSourceServer, string(drs.NewSourceServerID())), // not there
		s.addServer(other, "web2").ARN(),                                // of another account
		"arn:aws:drs:us-east-1:111122223333:source-server/" + string(server.ID),
		home.ARN(drs.TypeLaunchTemplate, "lct-0123456789abcdef0"),
	} {
		if _, err := client.ListTagsForResource(ctx, &awsdrs.ListTagsForResourceInput{ResourceArn: aws.String(arn)}); !errors.As(err, &absent) {
			t.Errorf("list tags of %s: %v", arn, err)
		}
		if _, err := client.TagResource(ctx, &awsdrs.TagResourceInput{ResourceArn: aws.String(arn), Tags: map[string]string{"a": "b"}}); !errors.As(err, &absent) {
			t.Errorf("tag %s: %v", arn, err)
		}
	}
	// The tag operations work before InitializeService.
	if _, err := s.sdk(other).TagResource(ctx, &awsdrs.TagResourceInput{ResourceArn: aws.String(s.addServer(other, "web3").ARN()), Tags: map[string]string{"a": "b"}}); err != nil {
		t.Error(err)
	}
}

func TestInitializeFirst(t *testing.T) {
	s := newSite(t)
	ctx, client := t.Context(), s.sdk(other)
	var uninitialized *types.UninitializedAccountException
	if _, err := client.DescribeJobs(ctx, &awsdrs.DescribeJobsInput{}); !errors.As(err, &uninitialized) {
		t.Fatalf("before: %v", err)
	}
	// It comes before validation.
	if got := s.send(other, "POST", "/StartRecovery", "{").code(t); got != "UninitializedAccountException" {
		t.Errorf("invalid request: %s", got)
	}
	for range 2 {
		must[*awsdrs.InitializeServiceOutput](t)(client.InitializeService(ctx, &awsdrs.InitializeServiceInput{}))
	}
	if _, err := client.DescribeJobs(ctx, &awsdrs.DescribeJobsInput{}); err != nil {
		t.Errorf("after: %v", err)
	}
}

func TestWrongSecret(t *testing.T) {
	s := newSite(t)
	key := s.keys[home]
	key.Secret = "wrong"
	s.keys[home] = key
	_, err := s.sdk(home).DescribeJobs(t.Context(), &awsdrs.DescribeJobsInput{})
	var refused smithy.APIError
	if !errors.As(err, &refused) || refused.ErrorCode() != "InvalidSignatureException" {
		t.Errorf("got %v", err)
	}
}

// An endpoint may be written with a slash at its end.
func TestEndpointWithSlash(t *testing.T) {
	s := newSite(t)
	s.server.URL += "/"
	if _, err := s.sdk(home).DescribeJobs(t.Context(), &awsdrs.DescribeJobsInput{}); err != nil {
		t.Error(err)
	}
}
