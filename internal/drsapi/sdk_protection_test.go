package drsapi

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsdrs "github.com/aws/aws-sdk-go-v2/service/drs"
	"github.com/aws/aws-sdk-go-v2/service/drs/types"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

// replicating brings a new server to CONTINUOUS, with a recovery point.
func (s *site) replicating(account drs.Account, name string) drs.SourceServer {
	s.t.Helper()
	server := s.addServer(account, name)
	if err := s.vault.CreateServer(s.t.Context(), server.ID); err != nil {
		s.t.Fatal(err)
	}
	for _, state := range []drs.ReplicationState{drs.ReplicationInitialSync, drs.ReplicationCreatingSnapshot, drs.ReplicationContinuous} {
		info := drs.DataReplicationInfo{State: state, AsOf: time.Now(), Disks: []drs.ReplicatedDisk{{Device: "/dev/vda", Total: 4 << 30, Replicated: 4 << 30}}}
		if err := s.db.ReportReplication(s.t.Context(), server.ID, info, time.Now()); err != nil {
			s.t.Fatal(err)
		}
	}
	s.addPoint(server.ID, time.Now().Add(-time.Minute), drs.CrashConsistent)
	return server
}

func state(server *types.SourceServer) types.DataReplicationState {
	return server.DataReplicationInfo.DataReplicationState
}

func TestStopAndStartReplication(t *testing.T) {
	s := newSite(t)
	ctx, client := t.Context(), s.sdk(home)
	server := s.replicating(home, "web1")
	id := aws.String(string(server.ID))
	var conflict *types.ConflictException
	if _, err := client.StartReplication(ctx, &awsdrs.StartReplicationInput{SourceServerID: id}); !errors.As(err, &conflict) || aws.ToString(conflict.ResourceId) != *id {
		t.Errorf("start what runs: %v", err)
	}
	stopped := must[*awsdrs.StopReplicationOutput](t)(client.StopReplication(ctx, &awsdrs.StopReplicationInput{SourceServerID: id})).SourceServer
	if state(stopped) != types.DataReplicationStateStopped || stopped.DataReplicationInfo.LagDuration != nil ||
		stopped.DataReplicationInfo.ReplicatedDisks[0].ReplicatedStorageBytes != 0 || stopped.DataReplicationInfo.ReplicatedDisks[0].TotalStorageBytes != 4<<30 {
		t.Errorf("stopped: %+v", stopped.DataReplicationInfo)
	}
	if told := s.agents.take(); !slices.Equal(told, []string{"pause " + *id}) {
		t.Errorf("the agent was told %v", told)
	}
	s.vault.awaitDrop(server.ID)
	if points := must[*awsdrs.DescribeRecoverySnapshotsOutput](t)(client.DescribeRecoverySnapshots(ctx, &awsdrs.DescribeRecoverySnapshotsInput{SourceServerID: id})); len(points.Items) != 0 {
		t.Errorf("points of a stopped server: %+v", points.Items)
	}
	// A point that a dying session still reports is not one.
	s.addPoint(server.ID, time.Now(), drs.CrashConsistent)
	if err := s.db.ReportReplication(ctx, server.ID, drs.DataReplicationInfo{State: drs.ReplicationContinuous}, time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := client.StopReplication(ctx, &awsdrs.StopReplicationInput{SourceServerID: id}); !errors.As(err, &conflict) {
		t.Errorf("stop again: %v", err)
	}

	started := must[*awsdrs.StartReplicationOutput](t)(client.StartReplication(ctx, &awsdrs.StartReplicationInput{SourceServerID: id})).SourceServer
	if state(started) != types.DataReplicationStateInitiating || started.LifeCycle.FirstByteDateTime != nil && *started.LifeCycle.FirstByteDateTime == "" || !s.vault.has(server.ID) {
		t.Errorf("started: %+v", started)
	}
	if told := s.agents.take(); !slices.Equal(told, []string{"expect " + *id}) {
		t.Errorf("the agent was told %v", told)
	}
	if points := must[*awsdrs.DescribeRecoverySnapshotsOutput](t)(client.DescribeRecoverySnapshots(ctx, &awsdrs.DescribeRecoverySnapshotsInput{SourceServerID: id})); len(points.Items) != 0 {
		t.Errorf("points of before: %+v", points.Items)
	}

	var invalid *types.ValidationException
	if _, err := client.RetryDataReplication(ctx, &awsdrs.RetryDataReplicationInput{SourceServerID: id}); !errors.As(err, &invalid) { //nolint:staticcheck // deprecated, and still there
		t.Errorf("retry what runs: %v", err)
	}
	if err := s.db.ReportReplication(ctx, server.ID, drs.DataReplicationInfo{State: drs.ReplicationStalled, Error: &drs.DataReplicationErr{Code: drs.AgentNotSeen}}, time.Time{}); err != nil {
		t.Fatal(err)
	}
	retried := must[*awsdrs.RetryDataReplicationOutput](t)(client.RetryDataReplication(ctx, &awsdrs.RetryDataReplicationInput{SourceServerID: id})) //nolint:staticcheck // likewise
	if retried.DataReplicationInfo.DataReplicationState != types.DataReplicationStateInitiating || retried.DataReplicationInfo.DataReplicationError != nil {
		t.Errorf("retried: %+v", retried.DataReplicationInfo)
	}
	if told := s.agents.take(); !slices.Equal(told, []string{"restart " + *id}) {
		t.Errorf("the agent was told %v", told)
	}
}

func TestDisconnectAndDelete(t *testing.T) {
	s := newSite(t)
	ctx, client := t.Context(), s.sdk(home)
	server := s.replicating(home, "web1")
	id := aws.String(string(server.ID))
	instance := s.addInstance(server, drs.NewJobID())
	machine := aws.String(string(instance.ID))
	var conflict *types.ConflictException
	var absent *types.ResourceNotFoundException
	disconnect := func() (*awsdrs.DisconnectSourceServerOutput, error) {
		return client.DisconnectSourceServer(ctx, &awsdrs.DisconnectSourceServerInput{SourceServerID: id})
	}
	remove := func() error {
		_, err := client.DeleteSourceServer(ctx, &awsdrs.DeleteSourceServerInput{SourceServerID: id})
		return err
	}
	release := func() error {
		_, err := client.DeleteRecoveryInstance(ctx, &awsdrs.DeleteRecoveryInstanceInput{RecoveryInstanceID: machine})
		return err
	}
	if _, err := disconnect(); !errors.As(err, &conflict) {
		t.Errorf("disconnect a server with an instance: %v", err)
	}
	if err := remove(); !errors.As(err, &conflict) {
		t.Errorf("delete a server that is connected: %v", err)
	}
	if err := release(); !errors.As(err, &conflict) {
		t.Errorf("delete an instance that is connected: %v", err)
	}
	for range 2 {
		must[*awsdrs.DisconnectRecoveryInstanceOutput](t)(client.DisconnectRecoveryInstance(ctx, &awsdrs.DisconnectRecoveryInstanceInput{RecoveryInstanceID: machine}))
	}
	instances := func() []types.RecoveryInstance {
		t.Helper()
		return must[*awsdrs.DescribeRecoveryInstancesOutput](t)(client.DescribeRecoveryInstances(ctx, &awsdrs.DescribeRecoveryInstancesInput{})).Items
	}
	if all := instances(); len(all) != 1 || all[0].DataReplicationInfo.DataReplicationState != types.RecoveryInstanceDataReplicationStateDisconnected {
		t.Errorf("instances: %+v", all)
	}
	gone := must[*awsdrs.DisconnectSourceServerOutput](t)(disconnect())
	if gone.DataReplicationInfo.DataReplicationState != types.DataReplicationStateDisconnected || gone.DataReplicationInfo.ReplicatedDisks[0].TotalStorageBytes != 0 ||
		gone.DataReplicationInfo.LagDuration != nil || gone.DataReplicationInfo.EtaDateTime != nil {
		t.Errorf("disconnected: %+v", gone.DataReplicationInfo)
	}
	if told := s.agents.take(); !slices.Equal(told, []string{"forget " + *id}) {
		t.Errorf("the agent was told %v", told)
	}
	// The machine runs on the server's data: both stay.
	if err := release(); err != nil {
		t.Fatal(err)
	}
	if all := instances(); len(all) != 0 {
		t.Errorf("a deleted instance is listed: %+v", all)
	}
	if err := release(); !errors.As(err, &conflict) {
		t.Errorf("delete an instance again: %v", err)
	}
	if err := remove(); !errors.As(err, &conflict) || !s.vault.has(server.ID) {
		t.Errorf("delete a server whose data is in use: %v", err)
	}
	if err := s.db.InTx(ctx, func(ctx context.Context, tx db.Tx) error { return tx.DeleteInstance(ctx, instance.ID) }); err != nil {
		t.Fatal(err)
	}
	if err := remove(); err != nil {
		t.Fatal(err)
	}
	s.vault.awaitDrop(server.ID)
	if err := remove(); !errors.As(err, &absent) {
		t.Errorf("delete again: %v", err)
	}
	if left := must[*awsdrs.DescribeSourceServersOutput](t)(client.DescribeSourceServers(ctx, &awsdrs.DescribeSourceServersInput{})); len(left.Items) != 0 {
		t.Errorf("left: %+v", left.Items)
	}
}

// Locked points keep a server from being stopped, disconnected and deleted; a job
// keeps it from that while it runs.
func TestProtectedFromOrders(t *testing.T) {
	s := newSite(t)
	ctx, client := t.Context(), s.sdk(home)
	server := s.replicating(home, "web1")
	id := aws.String(string(server.ID))
	var conflict *types.ConflictException
	refused := func(why string) {
		t.Helper()
		if _, err := client.StopReplication(ctx, &awsdrs.StopReplicationInput{SourceServerID: id}); !errors.As(err, &conflict) {
			t.Errorf("stop a server %s: %v", why, err)
		}
		if _, err := client.DisconnectSourceServer(ctx, &awsdrs.DisconnectSourceServerInput{SourceServerID: id}); !errors.As(err, &conflict) {
			t.Errorf("disconnect a server %s: %v", why, err)
		}
	}
	s.vault.mu.Lock()
	s.vault.locked = time.Now().Add(time.Hour)
	s.vault.mu.Unlock()
	refused("with locked points")
	s.vault.mu.Lock()
	s.vault.locked = time.Time{}
	s.vault.mu.Unlock()

	started := must[*awsdrs.StartRecoveryOutput](t)(client.StartRecovery(ctx, &awsdrs.StartRecoveryInput{SourceServers: []types.StartRecoveryRequestSourceServer{{SourceServerID: id}}}))
	refused("in a job")
	job := started.Job.JobID
	if _, err := client.DeleteJob(ctx, &awsdrs.DeleteJobInput{JobID: job}); !errors.As(err, &conflict) || aws.ToString(conflict.ResourceType) != "job" {
		t.Errorf("delete a job that runs: %v", err)
	}
	s.finishJob(server, drs.JobID(*job))
	must[*awsdrs.DeleteJobOutput](t)(client.DeleteJob(ctx, &awsdrs.DeleteJobInput{JobID: job}))
	var absent *types.ResourceNotFoundException
	if _, err := client.DeleteJob(ctx, &awsdrs.DeleteJobInput{JobID: job}); !errors.As(err, &absent) {
		t.Errorf("delete a job again: %v", err)
	}
	if log := must[*awsdrs.DescribeJobLogItemsOutput](t)(client.DescribeJobLogItems(ctx, &awsdrs.DescribeJobLogItemsInput{JobID: job})); len(log.Items) != 0 {
		t.Errorf("log of a deleted job: %+v", log.Items)
	}
	must[*awsdrs.StopReplicationOutput](t)(client.StopReplication(ctx, &awsdrs.StopReplicationInput{SourceServerID: id}))
}

func TestExtendedSourceServers(t *testing.T) {
	s := newSite(t)
	ctx, client := t.Context(), s.sdk(home)
	staging := s.replicating(other, "web1")
	s.replicating(other, "web2")
	point := s.addPoint(staging.ID, time.Now(), drs.CrashConsistent)

	extensible := func() []types.StagingSourceServer {
		t.Helper()
		return must[*awsdrs.ListExtensibleSourceServersOutput](t)(client.ListExtensibleSourceServers(ctx, &awsdrs.ListExtensibleSourceServersInput{StagingAccountID: aws.String(other.ID)})).Items
	}
	if all := extensible(); len(all) != 2 || aws.ToString(all[0].Arn) != staging.ARN() || aws.ToString(all[0].Hostname) != "web1" {
		t.Fatalf("extensible: %+v", all)
	}
	extend := func(client *awsdrs.Client, arn string) (*awsdrs.CreateExtendedSourceServerOutput, error) {
		return client.CreateExtendedSourceServer(ctx, &awsdrs.CreateExtendedSourceServerInput{SourceServerArn: aws.String(arn), Tags: map[string]string{"a": "b"}})
	}
	server := must[*awsdrs.CreateExtendedSourceServerOutput](t)(extend(client, staging.ARN())).SourceServer
	if server.StagingArea.Status != types.ExtensionStatusExtended || aws.ToString(server.StagingArea.StagingAccountID) != other.ID ||
		aws.ToString(server.StagingArea.StagingSourceServerArn) != staging.ARN() || state(server) != types.DataReplicationStateContinuous || server.Tags["a"] != "b" {
		t.Errorf("extended: %+v", server)
	}
	if all := extensible(); len(all) != 1 || aws.ToString(all[0].Hostname) != "web2" {
		t.Errorf("extensible after one was extended: %+v", all)
	}
	accounts := must[*awsdrs.ListStagingAccountsOutput](t)(client.ListStagingAccounts(ctx, &awsdrs.ListStagingAccountsInput{MaxResults: aws.Int32(50)}))
	if len(accounts.Accounts) != 1 || aws.ToString(accounts.Accounts[0].AccountID) != other.ID {
		t.Errorf("staging accounts: %+v", accounts.Accounts)
	}
	found := must[*awsdrs.DescribeSourceServersOutput](t)(client.DescribeSourceServers(ctx, &awsdrs.DescribeSourceServersInput{Filters: &types.DescribeSourceServersRequestFilters{StagingAccountIDs: []string{other.ID}}}))
	if len(found.Items) != 1 || aws.ToString(found.Items[0].SourceServerID) != aws.ToString(server.SourceServerID) {
		t.Errorf("servers of the staging account: %+v", found.Items)
	}
	points := must[*awsdrs.DescribeRecoverySnapshotsOutput](t)(client.DescribeRecoverySnapshots(ctx, &awsdrs.DescribeRecoverySnapshotsInput{SourceServerID: server.SourceServerID, Order: types.RecoverySnapshotsOrderDesc}))
	if len(points.Items) != 2 || aws.ToString(points.Items[0].SnapshotID) != string(point.ID) || aws.ToString(points.Items[0].SourceServerID) != *server.SourceServerID {
		t.Errorf("points: %+v", points.Items)
	}

	var invalid *types.ValidationException
	var denied *types.AccessDeniedException
	var conflict *types.ConflictException
	for name, arn := range map[string]string{
		"again": staging.ARN(), "own": s.addServer(home, "web3").ARN(), "other region": "arn:aws:drs:us-east-1:444455556666:source-server/" + string(staging.ID),
	} {
		if _, err := extend(client, arn); !errors.As(err, &invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var absent *types.ResourceNotFoundException
	if _, err := extend(client, other.ARN(drs.TypeSourceServer, string(drs.NewSourceServerID()))); !errors.As(err, &absent) {
		t.Errorf("a server that is not there: %v", err)
	}
	// Trust is of one direction, and nothing is learnt without it.
	if err := s.db.Initialize(ctx, other); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{string(s.addServer(home, "web4").ID), string(drs.NewSourceServerID())} {
		if _, err := extend(s.sdk(other), home.ARN(drs.TypeSourceServer, id)); !errors.As(err, &denied) {
			t.Errorf("without trust: %v", err)
		}
	}
	if _, err := s.sdk(other).ListExtensibleSourceServers(ctx, &awsdrs.ListExtensibleSourceServersInput{StagingAccountID: aws.String(home.ID)}); !errors.As(err, &denied) {
		t.Errorf("list without trust: %v", err)
	}

	// Replication is controlled where it happens.
	if _, err := client.StopReplication(ctx, &awsdrs.StopReplicationInput{SourceServerID: server.SourceServerID}); !errors.As(err, &conflict) {
		t.Errorf("stop an extended server: %v", err)
	}
	if _, err := client.UpdateReplicationConfiguration(ctx, &awsdrs.UpdateReplicationConfigurationInput{SourceServerID: server.SourceServerID, BandwidthThrottling: 1}); !errors.As(err, &conflict) {
		t.Errorf("configure an extended server: %v", err)
	}
	mine := func() types.SourceServer {
		t.Helper()
		in := &awsdrs.DescribeSourceServersInput{Filters: &types.DescribeSourceServersRequestFilters{StagingAccountIDs: []string{other.ID}}}
		return must[*awsdrs.DescribeSourceServersOutput](t)(client.DescribeSourceServers(ctx, in)).Items[0]
	}
	s.revoked.Store(true)
	if got := mine(); got.StagingArea.Status != types.ExtensionStatusExtensionError {
		t.Errorf("extension without trust: %+v", got.StagingArea)
	} else if state(&got) != types.DataReplicationStateDisconnected {
		t.Errorf("without trust, replication elsewhere is told: %s", state(&got))
	}
	if got := must[*awsdrs.DescribeRecoverySnapshotsOutput](t)(client.DescribeRecoverySnapshots(ctx, &awsdrs.DescribeRecoverySnapshotsInput{SourceServerID: server.SourceServerID})); len(got.Items) != 0 {
		t.Errorf("without trust, points elsewhere are told: %+v", got.Items)
	}
	s.revoked.Store(false)
	if got := mine(); got.StagingArea.Status != types.ExtensionStatusExtended {
		t.Errorf("extension that is trusted again: %+v", got.StagingArea)
	}
	// The staging server goes, the extension stays and says so; then it goes, too.
	staged := s.sdk(other)
	must[*awsdrs.DisconnectSourceServerOutput](t)(staged.DisconnectSourceServer(ctx, &awsdrs.DisconnectSourceServerInput{SourceServerID: aws.String(string(staging.ID))}))
	must[*awsdrs.DeleteSourceServerOutput](t)(staged.DeleteSourceServer(ctx, &awsdrs.DeleteSourceServerInput{SourceServerID: aws.String(string(staging.ID))}))
	left := must[*awsdrs.DescribeSourceServersOutput](t)(client.DescribeSourceServers(ctx, &awsdrs.DescribeSourceServersInput{Filters: &types.DescribeSourceServersRequestFilters{StagingAccountIDs: []string{other.ID}}})).Items
	if len(left) != 1 || left[0].StagingArea.Status != types.ExtensionStatusExtensionError || aws.ToString(left[0].StagingArea.ErrorMessage) == "" {
		t.Errorf("extension of a deleted server: %+v", left)
	}
	drops := s.vault.drops
	must[*awsdrs.DeleteSourceServerOutput](t)(client.DeleteSourceServer(ctx, &awsdrs.DeleteSourceServerInput{SourceServerID: server.SourceServerID}))
	if accounts := must[*awsdrs.ListStagingAccountsOutput](t)(client.ListStagingAccounts(ctx, &awsdrs.ListStagingAccountsInput{})); len(accounts.Accounts) != 0 || s.vault.drops > drops+1 {
		t.Errorf("staging accounts at last: %+v", accounts.Accounts)
	}
}

func TestFailback(t *testing.T) {
	s := newSite(t)
	ctx, client := t.Context(), s.sdk(home)
	instance := s.addInstance(s.addServer(home, "web1"), drs.NewJobID())
	id := aws.String(string(instance.ID))
	get := func() *awsdrs.GetFailbackReplicationConfigurationOutput {
		t.Helper()
		return must[*awsdrs.GetFailbackReplicationConfigurationOutput](t)(client.GetFailbackReplicationConfiguration(ctx, &awsdrs.GetFailbackReplicationConfigurationInput{RecoveryInstanceID: id}))
	}
	if c := get(); aws.ToString(c.Name) != "Failback Replication Configuration" || aws.ToBool(c.UsePrivateIP) || c.BandwidthThrottling != 0 {
		t.Errorf("default: %+v", c)
	}
	must[*awsdrs.UpdateFailbackReplicationConfigurationOutput](t)(client.UpdateFailbackReplicationConfiguration(ctx, &awsdrs.UpdateFailbackReplicationConfigurationInput{
		RecoveryInstanceID: id, Name: aws.String("home"), BandwidthThrottling: 9, UsePrivateIP: aws.Bool(true),
	}))
	if c := get(); aws.ToString(c.Name) != "home" || !aws.ToBool(c.UsePrivateIP) || c.BandwidthThrottling != 9 {
		t.Errorf("updated: %+v", c)
	}
	var conflict *types.ConflictException
	if _, err := client.ReverseReplication(ctx, &awsdrs.ReverseReplicationInput{RecoveryInstanceID: id}); !errors.As(err, &conflict) {
		t.Errorf("reverse: %v", err)
	}
	if _, err := client.StartFailbackLaunch(ctx, &awsdrs.StartFailbackLaunchInput{RecoveryInstanceIDs: []string{*id}}); !errors.As(err, &conflict) || aws.ToString(conflict.ResourceId) != *id {
		t.Errorf("launch: %v", err)
	}
	must[*awsdrs.StopFailbackOutput](t)(client.StopFailback(ctx, &awsdrs.StopFailbackInput{RecoveryInstanceID: id}))
	var absent *types.ResourceNotFoundException
	unknown := aws.String(string(drs.NewRecoveryInstanceID()))
	if _, err := client.StopFailback(ctx, &awsdrs.StopFailbackInput{RecoveryInstanceID: unknown}); !errors.As(err, &absent) {
		t.Errorf("stop the failback of nothing: %v", err)
	}
	if _, err := client.StartFailbackLaunch(ctx, &awsdrs.StartFailbackLaunchInput{RecoveryInstanceIDs: []string{*unknown}}); !errors.As(err, &conflict) {
		t.Errorf("launch the failback of nothing: %v", err)
	}
}
