package drsapi

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsdrs "github.com/aws/aws-sdk-go-v2/service/drs"
	"github.com/aws/aws-sdk-go-v2/service/drs/types"

	"lifeboat/internal/drs"
)

func pitPolicy(days int32) []types.PITPolicyRule {
	return []types.PITPolicyRule{
		{RuleID: 1, Units: types.PITPolicyRuleUnitsMinute, Interval: aws.Int32(10), RetentionDuration: aws.Int32(60), Enabled: aws.Bool(true)},
		{RuleID: 2, Units: types.PITPolicyRuleUnitsHour, Interval: aws.Int32(1), RetentionDuration: aws.Int32(24), Enabled: aws.Bool(true)},
		{RuleID: 3, Units: types.PITPolicyRuleUnitsDay, Interval: aws.Int32(1), RetentionDuration: aws.Int32(days), Enabled: aws.Bool(true)},
	}
}

// A program that declares a template finds what it declared, each time it looks.
func TestReplicationTemplateRoundTrip(t *testing.T) {
	s := newSite(t)
	ctx, client := t.Context(), s.sdk(home)
	created := must[*awsdrs.CreateReplicationConfigurationTemplateOutput](t)(client.CreateReplicationConfigurationTemplate(ctx, &awsdrs.CreateReplicationConfigurationTemplateInput{
		StagingAreaSubnetId: aws.String("subnet-0123456789abcdef0"), ReplicationServersSecurityGroupsIDs: []string{"sg-01234567"},
		EbsEncryption: types.ReplicationConfigurationEbsEncryptionCustom, EbsEncryptionKeyArn: aws.String("arn:aws:kms:eu-west-1:111122223333:key/k"),
		BandwidthThrottling: 12, StagingAreaTags: map[string]string{"stage": "yes"}, PitPolicy: pitPolicy(3), Tags: map[string]string{"a": "b"},
		AssociateDefaultSecurityGroup: aws.Bool(false), ReplicationServerInstanceType: aws.String("t3.large"), UseDedicatedReplicationServer: aws.Bool(true),
		DefaultLargeStagingDiskType: types.ReplicationConfigurationDefaultLargeStagingDiskTypeGp3, DataPlaneRouting: types.ReplicationConfigurationDataPlaneRoutingPrivateIp,
		CreatePublicIP: aws.Bool(false), AutoReplicateNewDisks: aws.Bool(false), InternetProtocol: types.InternetProtocolIpv6,
	}))
	read := func() types.ReplicationConfigurationTemplate {
		t.Helper()
		found := must[*awsdrs.DescribeReplicationConfigurationTemplatesOutput](t)(client.DescribeReplicationConfigurationTemplates(ctx,
			&awsdrs.DescribeReplicationConfigurationTemplatesInput{ReplicationConfigurationTemplateIDs: []string{*created.ReplicationConfigurationTemplateID}}))
		if len(found.Items) != 1 {
			t.Fatalf("templates: %+v", found.Items)
		}
		return found.Items[0]
	}
	same := func(what string, got, want any) {
		t.Helper()
		g, w := reflect.ValueOf(got), reflect.ValueOf(want)
		for _, name := range []string{
			"Arn", "AssociateDefaultSecurityGroup", "AutoReplicateNewDisks", "BandwidthThrottling", "CreatePublicIP", "DataPlaneRouting",
			"DefaultLargeStagingDiskType", "EbsEncryption", "EbsEncryptionKeyArn", "InternetProtocol", "PitPolicy", "ReplicationConfigurationTemplateID",
			"ReplicationServerInstanceType", "ReplicationServersSecurityGroupsIDs", "StagingAreaSubnetId", "StagingAreaTags", "Tags", "UseDedicatedReplicationServer",
		} {
			if !reflect.DeepEqual(g.FieldByName(name).Interface(), w.FieldByName(name).Interface()) {
				t.Errorf("%s: %s differs", what, name)
			}
		}
	}
	first := read()
	same("read after create", first, *created)
	if !reflect.DeepEqual(first.PitPolicy, pitPolicy(3)) || first.BandwidthThrottling != 12 || first.Tags["a"] != "b" ||
		aws.ToString(first.Arn) != "arn:aws:drs:eu-west-1:111122223333:replication-configuration-template/"+*created.ReplicationConfigurationTemplateID {
		t.Errorf("created: %+v", first)
	}
	same("read again", read(), first)

	updated := must[*awsdrs.UpdateReplicationConfigurationTemplateOutput](t)(client.UpdateReplicationConfigurationTemplate(ctx, &awsdrs.UpdateReplicationConfigurationTemplateInput{
		ReplicationConfigurationTemplateID: created.ReplicationConfigurationTemplateID, Arn: created.Arn, BandwidthThrottling: 7, PitPolicy: pitPolicy(365),
	}))
	second := read()
	same("read after update", second, *updated)
	want := first
	want.BandwidthThrottling, want.PitPolicy = 7, pitPolicy(365)
	same("what was not updated", second, want)

	// A new server is configured by the template, one that was there is not.
	server := s.addServer(home, "web1")
	config := must[*awsdrs.GetReplicationConfigurationOutput](t)(client.GetReplicationConfiguration(ctx, &awsdrs.GetReplicationConfigurationInput{SourceServerID: aws.String(string(server.ID))}))
	if config.BandwidthThrottling != 7 || !reflect.DeepEqual(config.PitPolicy, pitPolicy(365)) || config.StagingAreaTags["stage"] != "yes" ||
		aws.ToString(config.Name) != "Data Replication Configuration for Source Server "+string(server.ID) || aws.ToBool(config.AutoReplicateNewDisks) {
		t.Errorf("configuration by the template: %+v", config)
	}
	must[*awsdrs.DeleteReplicationConfigurationTemplateOutput](t)(client.DeleteReplicationConfigurationTemplate(ctx, &awsdrs.DeleteReplicationConfigurationTemplateInput{
		ReplicationConfigurationTemplateID: created.ReplicationConfigurationTemplateID,
	}))
	var absent *types.ResourceNotFoundException
	if _, err := client.DescribeReplicationConfigurationTemplates(ctx, &awsdrs.DescribeReplicationConfigurationTemplatesInput{
		ReplicationConfigurationTemplateIDs: []string{*created.ReplicationConfigurationTemplateID},
	}); !errors.As(err, &absent) {
		t.Errorf("describe what was deleted: %v", err)
	}
	if after := must[*awsdrs.GetReplicationConfigurationOutput](t)(client.GetReplicationConfiguration(ctx, &awsdrs.GetReplicationConfigurationInput{SourceServerID: aws.String(string(server.ID))})); after.BandwidthThrottling != 7 {
		t.Errorf("the server lost its copy: %+v", after)
	}
	next := s.addServer(home, "web2")
	if next.ReplicationConfiguration.BandwidthThrottlingMbps != 0 {
		t.Errorf("a server without a template: %+v", next.ReplicationConfiguration)
	}
}

func TestLaunchTemplateRoundTrip(t *testing.T) {
	s := newSite(t)
	ctx, client := t.Context(), s.sdk(home)
	created := must[*awsdrs.CreateLaunchConfigurationTemplateOutput](t)(client.CreateLaunchConfigurationTemplate(ctx, &awsdrs.CreateLaunchConfigurationTemplateInput{
		LaunchDisposition: types.LaunchDispositionStopped, TargetInstanceTypeRightSizingMethod: types.TargetInstanceTypeRightSizingMethodNone,
		CopyPrivateIp: aws.Bool(true), CopyTags: aws.Bool(true), Licensing: &types.Licensing{OsByol: aws.Bool(true)},
		ExportBucketArn: aws.String("arn:aws:s3:::a-bucket-for-it"), PostLaunchEnabled: aws.Bool(true), LaunchIntoSourceInstance: aws.Bool(true),
		Tags: map[string]string{"a": "b"},
	})).LaunchConfigurationTemplate
	id := created.LaunchConfigurationTemplateID
	read := func() *types.LaunchConfigurationTemplate {
		t.Helper()
		found := must[*awsdrs.DescribeLaunchConfigurationTemplatesOutput](t)(client.DescribeLaunchConfigurationTemplates(ctx,
			&awsdrs.DescribeLaunchConfigurationTemplatesInput{LaunchConfigurationTemplateIDs: []string{*id}}))
		if len(found.Items) != 1 {
			t.Fatalf("templates: %+v", found.Items)
		}
		return &found.Items[0]
	}
	if first := read(); !reflect.DeepEqual(first, created) || !aws.ToBool(first.LaunchIntoSourceInstance) || aws.ToString(first.ExportBucketArn) != "arn:aws:s3:::a-bucket-for-it" {
		t.Errorf("read after create: %+v, want %+v", first, created)
	}
	var quota *types.ServiceQuotaExceededException
	if _, err := client.CreateLaunchConfigurationTemplate(ctx, &awsdrs.CreateLaunchConfigurationTemplateInput{}); !errors.As(err, &quota) || aws.ToString(quota.QuotaCode) != "L-1F3FAE4D" {
		t.Errorf("a second template: %v", err)
	}
	action := &awsdrs.PutLaunchActionInput{
		ResourceId: id, ActionId: aws.String("01234567-89ab-cdef-0123-456789abcdef"), ActionCode: aws.String("AWS-RunShellScript"), ActionVersion: aws.String("$LATEST"),
		Name: aws.String("Say hello"), Description: aws.String("d"), Category: types.LaunchActionCategoryOther, Order: aws.Int32(10), Active: aws.Bool(true), Optional: aws.Bool(false),
	}
	must[*awsdrs.PutLaunchActionOutput](t)(client.PutLaunchAction(ctx, action))

	updated := must[*awsdrs.UpdateLaunchConfigurationTemplateOutput](t)(client.UpdateLaunchConfigurationTemplate(ctx, &awsdrs.UpdateLaunchConfigurationTemplateInput{
		LaunchConfigurationTemplateID: id, CopyTags: aws.Bool(false),
	})).LaunchConfigurationTemplate
	want := *created
	want.CopyTags = aws.Bool(false)
	if got := read(); !reflect.DeepEqual(got, updated) || !reflect.DeepEqual(got, &want) {
		t.Errorf("read after update: %+v, want %+v", got, &want)
	}

	server := aws.String(string(s.addServer(home, "web1").ID))
	config := must[*awsdrs.GetLaunchConfigurationOutput](t)(client.GetLaunchConfiguration(ctx, &awsdrs.GetLaunchConfigurationInput{SourceServerID: server}))
	if config.LaunchDisposition != types.LaunchDispositionStopped || !aws.ToBool(config.CopyPrivateIp) || aws.ToBool(config.CopyTags) || !aws.ToBool(config.PostLaunchEnabled) {
		t.Errorf("configuration by the template: %+v", config)
	}
	actions := must[*awsdrs.ListLaunchActionsOutput](t)(client.ListLaunchActions(ctx, &awsdrs.ListLaunchActionsInput{ResourceId: server}))
	if len(actions.Items) != 1 || aws.ToString(actions.Items[0].Name) != "Say hello" || actions.Items[0].Type != types.LaunchActionTypeSsmCommand {
		t.Errorf("actions by the template: %+v", actions.Items)
	}

	must[*awsdrs.DeleteLaunchConfigurationTemplateOutput](t)(client.DeleteLaunchConfigurationTemplate(ctx, &awsdrs.DeleteLaunchConfigurationTemplateInput{LaunchConfigurationTemplateID: id}))
	var absent *types.ResourceNotFoundException
	if _, err := client.DescribeLaunchConfigurationTemplates(ctx, &awsdrs.DescribeLaunchConfigurationTemplatesInput{LaunchConfigurationTemplateIDs: []string{*id}}); !errors.As(err, &absent) {
		t.Errorf("describe what was deleted: %v", err)
	}
	if left := must[*awsdrs.DescribeLaunchConfigurationTemplatesOutput](t)(client.DescribeLaunchConfigurationTemplates(ctx, &awsdrs.DescribeLaunchConfigurationTemplatesInput{})); len(left.Items) != 0 {
		t.Errorf("left: %+v", left.Items)
	}
	if actions := must[*awsdrs.ListLaunchActionsOutput](t)(client.ListLaunchActions(ctx, &awsdrs.ListLaunchActionsInput{ResourceId: server})); len(actions.Items) != 1 {
		t.Error("the server lost its copy of the actions")
	}
}

func TestLaunchActions(t *testing.T) {
	s := newSite(t)
	ctx, client := t.Context(), s.sdk(home)
	server := aws.String(string(s.addServer(home, "web1").ID))
	put := func(resource *string, n, order int, change func(*awsdrs.PutLaunchActionInput)) error {
		in := &awsdrs.PutLaunchActionInput{
			ResourceId: resource, ActionId: aws.String(fmt.Sprintf("%08d-0000-0000-0000-000000000000", n)), ActionCode: aws.String("AWS-CreateImage"), ActionVersion: aws.String("1"),
			Name: aws.String(fmt.Sprint("Action ", n)), Description: aws.String(""), Category: types.LaunchActionCategoryValidation, Order: aws.Int32(int32(order)),
			Active: aws.Bool(false), Optional: aws.Bool(true),
			Parameters: map[string]types.LaunchActionParameter{"p": {Type: types.LaunchActionParameterTypeDynamic, Value: aws.String("v")}},
		}
		if change != nil {
			change(in)
		}
		_, err := client.PutLaunchAction(ctx, in)
		return err
	}
	list := func(in *awsdrs.ListLaunchActionsInput) []string {
		t.Helper()
		in.ResourceId = server
		var names []string
		for _, a := range must[*awsdrs.ListLaunchActionsOutput](t)(client.ListLaunchActions(ctx, in)).Items {
			names = append(names, aws.ToString(a.Name))
			if a.Type != types.LaunchActionTypeSsmAutomation || aws.ToString(a.Parameters["p"].Value) != "v" {
				t.Errorf("action %+v", a)
			}
		}
		return names
	}
	for n, order := range []int{900, 2, 10000} {
		if err := put(server, n, order, nil); err != nil {
			t.Fatal(err)
		}
	}
	if got := list(&awsdrs.ListLaunchActionsInput{}); !slices.Equal(got, []string{"Action 1", "Action 0", "Action 2"}) {
		t.Errorf("order: %v", got)
	}
	// One more of the same ID replaces the first; what another has is a conflict.
	if err := put(server, 1, 950, nil); err != nil {
		t.Fatal(err)
	}
	if got := list(&awsdrs.ListLaunchActionsInput{MaxResults: aws.Int32(2)}); !slices.Equal(got, []string{"Action 0", "Action 1"}) {
		t.Errorf("first page: %v", got)
	}
	if got := list(&awsdrs.ListLaunchActionsInput{Filters: &types.LaunchActionsRequestFilters{ActionIds: []string{"00000002-0000-0000-0000-000000000000"}}}); !slices.Equal(got, []string{"Action 2"}) {
		t.Errorf("filtered: %v", got)
	}
	var conflict *types.ConflictException
	if err := put(server, 7, 950, nil); !errors.As(err, &conflict) {
		t.Errorf("an order that is taken: %v", err)
	}
	if err := put(server, 7, 951, func(in *awsdrs.PutLaunchActionInput) { in.Name = aws.String("Action 1") }); !errors.As(err, &conflict) {
		t.Errorf("a name that is taken: %v", err)
	}
	template := must[*awsdrs.CreateLaunchConfigurationTemplateOutput](t)(client.CreateLaunchConfigurationTemplate(ctx, &awsdrs.CreateLaunchConfigurationTemplateInput{})).LaunchConfigurationTemplate
	if err := put(template.LaunchConfigurationTemplateID, 1, 2, nil); !errors.As(err, &conflict) {
		t.Errorf("a template whose actions are off: %v", err)
	}
	var absent *types.ResourceNotFoundException
	foreign := aws.String(string(s.addServer(other, "web2").ID))
	if err := put(foreign, 1, 2, nil); !errors.As(err, &absent) {
		t.Errorf("another account's server: %v", err)
	}
	remove := func(n int) error {
		_, err := client.DeleteLaunchAction(ctx, &awsdrs.DeleteLaunchActionInput{ResourceId: server, ActionId: aws.String(fmt.Sprintf("%08d-0000-0000-0000-000000000000", n))})
		return err
	}
	if err := remove(0); err != nil {
		t.Fatal(err)
	}
	if err := remove(0); !errors.As(err, &absent) {
		t.Errorf("delete again: %v", err)
	}
	for n := 10; n < 10+drs.MaxLaunchActions-2; n++ {
		if err := put(server, n, n, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := put(server, 9999, 9999, nil); !errors.As(err, &conflict) {
		t.Errorf("one action too many: %v", err)
	}
}

func TestUpdateReplicationConfiguration(t *testing.T) {
	s := newSite(t)
	ctx, client := t.Context(), s.sdk(home)
	server := s.addServer(home, "web1")
	id := aws.String(string(server.ID))
	updated := must[*awsdrs.UpdateReplicationConfigurationOutput](t)(client.UpdateReplicationConfiguration(ctx, &awsdrs.UpdateReplicationConfigurationInput{
		SourceServerID: id, BandwidthThrottling: 25, PitPolicy: pitPolicy(30), Name: aws.String("mine"),
		ReplicatedDisks: []types.ReplicationConfigurationReplicatedDisk{
			{DeviceName: aws.String("/dev/vda"), IsBootDisk: aws.Bool(false), StagingDiskType: types.ReplicationConfigurationReplicatedDiskStagingDiskTypeGp3, Iops: 3000},
			{DeviceName: aws.String("/dev/vdb"), IsBootDisk: aws.Bool(true)},
		},
	}))
	if told := s.agents.take(); !slices.Equal(told, []string{"throttle 25 " + *id}) {
		t.Errorf("the agent was told %v", told)
	}
	read := must[*awsdrs.GetReplicationConfigurationOutput](t)(client.GetReplicationConfiguration(ctx, &awsdrs.GetReplicationConfigurationInput{SourceServerID: id}))
	if !reflect.DeepEqual(read.ReplicatedDisks, updated.ReplicatedDisks) || len(read.ReplicatedDisks) != 2 || aws.ToBool(read.ReplicatedDisks[0].IsBootDisk) ||
		!aws.ToBool(read.ReplicatedDisks[1].IsBootDisk) || read.ReplicatedDisks[0].Iops != 3000 || aws.ToString(read.Name) != "mine" {
		t.Errorf("disks: %+v", read.ReplicatedDisks)
	}
	kept, err := s.db.SourceServer(ctx, home, server.ID)
	if err != nil || kept.DisksBootFirst()[0].Device != "/dev/vdb" || kept.ReplicationConfiguration.PITPolicy[2].Retention != 30 {
		t.Errorf("kept: %+v, %v", kept.ReplicationConfiguration, err)
	}
	var invalid *types.ValidationException
	for name, in := range map[string]*awsdrs.UpdateReplicationConfigurationInput{
		"two boot disks": {ReplicatedDisks: []types.ReplicationConfigurationReplicatedDisk{{DeviceName: aws.String("/dev/vda"), IsBootDisk: aws.Bool(true)}}},
		"unknown disk":   {ReplicatedDisks: []types.ReplicationConfigurationReplicatedDisk{{DeviceName: aws.String("/dev/vdz"), IsBootDisk: aws.Bool(true)}}},
		"too many days":  {PitPolicy: pitPolicy(366)},
		"two days":       {PitPolicy: []types.PITPolicyRule{pitPolicy(1)[0], pitPolicy(1)[2], pitPolicy(1)[2]}},
		"other minutes": {PitPolicy: append([]types.PITPolicyRule{
			{RuleID: 1, Units: types.PITPolicyRuleUnitsMinute, Interval: aws.Int32(5), RetentionDuration: aws.Int32(60)},
		}, pitPolicy(1)[1:]...)},
		"key missing": {EbsEncryption: types.ReplicationConfigurationEbsEncryptionCustom},
	} {
		in.SourceServerID = id
		if _, err := client.UpdateReplicationConfiguration(ctx, in); !errors.As(err, &invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if after := must[*awsdrs.GetReplicationConfigurationOutput](t)(client.GetReplicationConfiguration(ctx, &awsdrs.GetReplicationConfigurationInput{SourceServerID: id})); !reflect.DeepEqual(after.PitPolicy, read.PitPolicy) || !reflect.DeepEqual(after.ReplicatedDisks, read.ReplicatedDisks) {
		t.Error("a refused change was kept")
	}
}
