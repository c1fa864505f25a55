package ingest_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"lifeboat/internal/drs"
)

// notSeen waits for the error of servers whose agent stays away.
func (r *rig) notSeen(t *testing.T, server drs.SourceServerID) {
	t.Helper()
	r.catalog.await(t, "AGENT_NOT_SEEN", func() bool {
		info := r.catalog.info[server]
		return info.Error != nil && info.Error.Code == drs.AgentNotSeen
	})
}

// An agent that is refused, or about which the catalogue could not decide, leaves
// what is known of its server as it was.
func TestRefusedAgentChangesNothing(t *testing.T) {
	t.Parallel()
	const expected, stopped drs.SourceServerID = someServer, "s-00000000000000002"
	for name, refusal := range map[string]error{
		"undecided": errors.New("database is locked"),
		"refused":   &drs.Error{Kind: drs.KindConflict, Message: "Replication is stopped."},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			r.catalog.refusal = refusal
			was := drs.DataReplicationInfo{
				State: drs.ReplicationContinuous, AsOf: time.Now().Add(-time.Hour).UTC(),
				Disks: []drs.ReplicatedDisk{{Device: "/dev/sda", Total: 7, Replicated: 7}},
			}
			r.catalog.info[expected], r.catalog.info[stopped] = was, was
			r.server.Expect(expected, was)
			for _, server := range []drs.SourceServerID{expected, stopped} {
				if _, _, err := r.greet(t, certificate(t, r.authority, server, time.Hour)); err == nil {
					t.Fatal("admitted")
				}
			}
			r.notSeen(t, expected)
			if now := r.catalog.info[expected]; now.State != was.State || !now.AsOf.Equal(was.AsOf) || len(now.Disks) != 1 {
				t.Errorf("%+v became %+v", was, now)
			}
			// Whatever would be reported of the other is reported before what is of one
			// that is missed later.
			const later drs.SourceServerID = "s-00000000000000003"
			r.server.Expect(later, was)
			r.notSeen(t, later)
			r.catalog.mu.Lock()
			defer r.catalog.mu.Unlock()
			if n := r.catalog.reports[stopped]; n > 0 {
				t.Errorf("%d reports of a server that was not expected: %+v", n, r.catalog.info[stopped])
			}
		})
	}
}

// An agent that comes back while its absence is being reported is not lost.
func TestAgentComesBackWhileReportedLost(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.make(t, someServer)
	reporting := make(chan struct{})
	isReporting := sync.OnceFunc(func() { close(reporting) })
	r.catalog.beforeReport = func(info drs.DataReplicationInfo) {
		if info.Error != nil && info.Error.Code == drs.AgentNotSeen {
			isReporting()
			time.Sleep(300 * time.Millisecond) // a slow write, which the agent's own report must not overtake
		}
	}
	r.server.Expect(someServer, drs.DataReplicationInfo{State: drs.ReplicationContinuous})
	<-reporting
	if _, _, err := r.greet(t, certificate(t, r.authority, someServer, time.Hour)); err != nil {
		t.Fatal(err)
	}
	r.catalog.await(t, "both reports", func() bool { return r.catalog.reports[someServer] >= 2 })
	r.catalog.mu.Lock()
	defer r.catalog.mu.Unlock()
	if info := r.catalog.info[someServer]; info.State != drs.ReplicationInitiating || info.Error != nil {
		t.Errorf("a connected agent's server is %s, with %+v", info.State, info.Error)
	}
}
