package recovery_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
	"lifeboat/internal/vault"
)

// configure changes what a server is launched by.
func (s *site) configure(t *testing.T, id drs.SourceServerID, f func(context.Context, db.Tx, *drs.SourceServer) error) {
	t.Helper()
	if _, err := s.db.Configure(t.Context(), account, id, f); err != nil {
		t.Fatal(err)
	}
}

func note(log []drs.JobLogItem, event drs.JobEvent) string {
	for _, l := range log {
		if l.Event == event {
			return l.Note
		}
	}
	return ""
}

func (s *site) server(t *testing.T, id drs.SourceServerID) drs.SourceServer {
	t.Helper()
	server, err := s.db.SourceServer(t.Context(), account, id)
	if err != nil {
		t.Fatal(err)
	}
	return server
}

func TestCopyPrivateIP(t *testing.T) {
	s := newSite(t)
	id, _ := s.protect(t, "web1")
	p := s.server(t, id).Properties
	p.NetworkInterfaces = []drs.NetworkInterface{
		{MAC: "52:54:00:00:00:01", IPs: []string{"10.9.9.9"}},
		{MAC: "52:54:00:00:00:02", IPs: []string{"fe80::1", "192.168.7.2"}, Primary: true},
	}
	if err := s.db.UpdateProperties(t.Context(), id, p); err != nil {
		t.Fatal(err)
	}
	s.configure(t, id, func(_ context.Context, _ db.Tx, server *drs.SourceServer) error {
		server.LaunchConfiguration.CopyPrivateIP = true
		return nil
	})
	_, log := s.launch(t, ask(id))
	specs := s.machines.running()
	if len(specs) != 1 || specs[0].NICs[0].Address != "" || specs[0].NICs[1].Address != "192.168.7.2" {
		t.Errorf("machines: %+v", specs)
	}
	if got := note(log, drs.EventConversionEnd); !strings.Contains(got, "192.168.7.2") {
		t.Errorf("the job's log does not tell of the address: %q", got)
	}
}

// The boot disk is the one that the user names, whatever the agent's order.
func TestBootDisk(t *testing.T) {
	s := newSite(t)
	id, _ := s.protect(t, "web1")
	w, err := s.vault.Writer(t.Context(), id, vault.MainBranch)
	if err != nil {
		t.Fatal(err)
	}
	epoch, err := w.Begin(t.Context(), []vault.Volume{{ID: 0, Device: "/dev/vda", Size: 1 << 20}, {ID: 1, Device: "/dev/vdb", Size: 1 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	point := drs.RecoveryPoint{ID: drs.NewRecoverySnapshotID(), SourceServer: id, Taken: time.Now(), Consistency: drs.CrashConsistent, Method: drs.QuietPass}
	head, err := epoch.Commit(t.Context(), &point)
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	point.Epoch = head.Number
	if err := s.db.AddPoint(t.Context(), point); err != nil {
		t.Fatal(err)
	}
	p := s.server(t, id).Properties
	p.Disks = []drs.Disk{{Device: "/dev/vda", Bytes: 1 << 20}, {Device: "/dev/vdb", Bytes: 1 << 20}}
	if err := s.db.UpdateProperties(t.Context(), id, p); err != nil {
		t.Fatal(err)
	}
	s.configure(t, id, func(_ context.Context, _ db.Tx, server *drs.SourceServer) error {
		server.ReplicationConfiguration.Disks = []drs.ConfiguredDisk{{Device: "/dev/vdb", Boot: true}}
		return nil
	})
	s.launch(t, ask(id))
	specs := s.machines.running()
	if len(specs) != 1 || len(specs[0].Disks) != 2 || !strings.HasSuffix(specs[0].Disks[0].Export, "/1") {
		t.Errorf("machines: %+v", specs)
	}
}

// Actions that were set and not run are never taken for success.
func TestActionsAreNotRun(t *testing.T) {
	for name, optional := range map[string]bool{"optional": true, "required": false} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			id, _ := s.protect(t, "web1")
			s.configure(t, id, func(ctx context.Context, tx db.Tx, server *drs.SourceServer) error {
				server.LaunchConfiguration.PostLaunchEnabled = true
				return errors.Join(
					tx.PutLaunchAction(ctx, string(id), drs.LaunchAction{ID: "a", Name: "first", Order: 2, Active: true, Optional: optional}),
					tx.PutLaunchAction(ctx, string(id), drs.LaunchAction{ID: "b", Name: "off", Order: 3}))
			})
			if err := s.db.AddWebhook(t.Context(), db.Webhook{ID: "hook", Secret: []byte("s"), Account: account, Types: []drs.EventType{drs.EventLaunchResult}}, 1); err != nil {
				t.Fatal(err)
			}
			job, log := s.launch(t, ask(id))
			part := job.Servers[0]
			if part.Status != drs.LaunchLaunched || len(part.Actions) != 1 || part.Actions[0].Status != drs.RunFailed || part.Actions[0].Reason == "" || part.Actions[0].Action.ID != "a" {
				t.Errorf("part: %+v", part)
			}
			if got := note(log, drs.EventLaunchStart); !strings.Contains(got, "not run") {
				t.Errorf("the job's log does not tell: %q", got)
			}
			want := drs.LastLaunchSucceeded
			if !optional {
				want = drs.LastLaunchFailed
			}
			// Who is told of launches is told the same, and so is a plan.
			told, err := s.db.DueDeliveries(t.Context(), time.Now().Add(time.Minute), 10)
			if err != nil || len(told) != 1 || (told[0].Event.Detail["state"] == "RECOVERY_LAUNCH_SUCCEEDED") != optional {
				t.Errorf("events %+v, %v", told, err)
			}
			p := newPlanner(t, s)
			outcome := map[bool]string{true: "COMPLETED COMPLETED", false: "FAILED FAILED"}[optional]
			p.becomes(p.start(p.planOf("p", []drs.SourceServerID{id}).ID).ID, outcome)
			server := s.server(t, id)
			if server.LastLaunchResult != want || server.LifeCycle.LastLaunch.Status != drs.LaunchLaunched {
				t.Errorf("last launch: %s, %+v; want %s", server.LastLaunchResult, server.LifeCycle.LastLaunch, want)
			}
		})
	}
}

// A released instance is not listed, its machine runs on with its disks, and the
// next launch of its server, or a terminate job, ends it.
func TestReleasedInstance(t *testing.T) {
	s := newSite(t)
	id, _ := s.protect(t, "web1")
	job, _ := s.launch(t, ask(id))
	instance := job.Servers[0].Instance
	ctx := t.Context()
	var refused *drs.Error
	if err := s.ReleaseInstance(ctx, account, instance); !errors.As(err, &refused) || refused.Kind != drs.KindConflict {
		t.Errorf("release what is connected: %v", err)
	}
	if err := errors.Join(s.DisconnectInstance(ctx, account, instance), s.ReleaseInstance(ctx, account, instance)); err != nil {
		t.Fatal(err)
	}
	if err := s.DisconnectInstance(ctx, account, instance); !errors.As(err, &refused) || refused.Kind != drs.KindNotFound {
		t.Errorf("disconnect what was released: %v", err)
	}
	listed, _, err := s.db.Instances(ctx, account, db.InstanceFilter{}, db.Page{Limit: 10})
	if err != nil || len(listed) != 0 || len(s.machines.running()) != 1 || s.server(t, id).RecoveryInstance != "" {
		t.Errorf("listed %+v, %v; machines %+v", listed, err, s.machines.running())
	}
	// It survives a restart of the server.
	s.stop()
	s.run(t)
	if len(s.machines.running()) != 1 {
		t.Error("the machine ended with the server")
	}
	again, _ := s.launch(t, ask(id))
	if all := s.machines.running(); len(all) != 1 || all[0].ID != again.Servers[0].Instance {
		t.Errorf("machines after the next launch: %+v", all)
	}
}

// An extended server is launched from the data of the one that it stands for.
func TestExtendedServer(t *testing.T) {
	s := newSite(t)
	ctx := t.Context()
	staging, point := s.protect(t, "web1")
	target := drs.Account{ID: "210987654321", Region: account.Region}
	origin := s.server(t, staging)
	var extended drs.SourceServer
	err := s.db.InTx(ctx, func(ctx context.Context, tx db.Tx) (err error) {
		extended, err = tx.InsertExtended(ctx, drs.SourceServer{Account: target, Properties: origin.Properties, Staging: drs.Staging{Account: account, Server: staging}}, 0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	s.agents[staging] = func(context.Context) (drs.RecoveryPoint, error) {
		asked++
		return s.point(t, staging, drs.CrashConsistent), nil
	}
	for name, request := range map[string]drs.StartRecovery{
		"named point": {Servers: []drs.StartRecoveryServer{{SourceServer: extended.ID, Snapshot: point.ID}}, Drill: true},
		"on demand":   {Servers: []drs.StartRecoveryServer{{SourceServer: extended.ID}}},
	} {
		job, err := s.StartRecovery(ctx, target, request)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		done, log := s.finish(t, job.ID)
		if done.Servers[0].Status != drs.LaunchLaunched {
			t.Fatalf("%s: %s", name, events(log))
		}
		instance, err := s.db.InstanceByID(ctx, done.Servers[0].Instance)
		if err != nil || instance.Account != target || instance.SourceServer != extended.ID || instance.VaultServer != staging {
			t.Errorf("%s: instance %+v, %v", name, instance, err)
		}
		branches, err := s.vault.Branches(ctx, staging)
		if err != nil || len(branches) != 2 {
			t.Errorf("%s: branches %v, %v", name, branches, err)
		}
		ended, err := s.TerminateRecoveryInstances(ctx, target, []drs.RecoveryInstanceID{instance.ID})
		if err != nil {
			t.Fatal(err)
		}
		s.finish(t, ended.ID)
		if branches, err := s.vault.Branches(ctx, staging); err != nil || len(branches) != 1 {
			t.Errorf("%s: branches after termination %v, %v", name, branches, err)
		}
	}
	if asked != 1 {
		t.Errorf("the staging server's agent was asked %d times, want once", asked)
	}
	// Nothing of it concerns the staging account.
	if own := s.server(t, staging); own.LifeCycle.LastLaunch != nil || own.LastLaunchResult != drs.LastLaunchNotStarted {
		t.Errorf("staging server: %+v", own.LifeCycle)
	}
	var refused *drs.Error
	s.MayExtend = func(context.Context, drs.Account, drs.Account) error {
		return &drs.Error{Kind: drs.KindAccessDenied, Message: "no"}
	}
	if _, err := s.StartRecovery(ctx, target, ask(extended.ID)); !errors.As(err, &refused) || refused.Kind != drs.KindConflict {
		t.Errorf("launch without the staging account's trust: %v", err)
	}
	s.MayExtend = nil
	// Without the staging server there is nothing to launch from.
	err = s.db.InTx(ctx, func(ctx context.Context, tx db.Tx) error { return tx.DeleteServer(ctx, origin) })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.StartRecovery(ctx, target, ask(extended.ID)); !errors.As(err, &refused) || refused.Kind != drs.KindConflict {
		t.Errorf("launch of an extension without its server: %v", err)
	}
}
