package drs

import (
	"slices"
	"strings"
)

// ReplicationOrder is what a user may order about the replication of a source
// server, by the name of the operation.
type ReplicationOrder string

const (
	OrderStop       ReplicationOrder = "StopReplication"
	OrderStart      ReplicationOrder = "StartReplication"
	OrderRetry      ReplicationOrder = "RetryDataReplication"
	OrderDisconnect ReplicationOrder = "DisconnectSourceServer"
	OrderDelete     ReplicationOrder = "DeleteSourceServer"
)

// live are the states of a server that replicates, or tries to.
var live = []ReplicationState{
	ReplicationInitiating, ReplicationInitialSync, ReplicationCreatingSnapshot, ReplicationContinuous,
	ReplicationBacklog, ReplicationRescan, ReplicationPaused, ReplicationStalled,
}

// replicationOrders says in which states an order is taken, and where it leads.
//
//	live            --StopReplication-->        STOPPED
//	STOPPED         --StartReplication-->       INITIATING
//	STALLED, ended  --RetryDataReplication-->   INITIATING
//	any             --DisconnectSourceServer--> DISCONNECTED
//	DISCONNECTED    --DeleteSourceServer-->     gone
var replicationOrders = map[ReplicationOrder]struct {
	from []ReplicationState
	to   ReplicationState
}{
	OrderStop:       {live, ReplicationStopped},
	OrderStart:      {[]ReplicationState{ReplicationStopped}, ReplicationInitiating},
	OrderRetry:      {[]ReplicationState{ReplicationStalled, ReplicationStopped, ReplicationDisconnected}, ReplicationInitiating},
	OrderDisconnect: {slices.Concat(live, []ReplicationState{ReplicationStopped, ReplicationDisconnected}), ReplicationDisconnected},
	OrderDelete:     {[]ReplicationState{ReplicationDisconnected}, ReplicationDisconnected},
}

// Of returns the state that the order leads a server in this state to, or a
// refusal: a conflict, but for RetryDataReplication, which the API gives none.
func (o ReplicationOrder) Of(server SourceServerID, now ReplicationState) (ReplicationState, error) {
	rule := replicationOrders[o]
	if slices.Contains(rule.from, now) {
		return rule.to, nil
	}
	var names []string
	for _, s := range rule.from {
		names = append(names, string(s))
	}
	err := Conflict(TypeSourceServer, string(server), "Replication of source server %s is %s. %s needs it to be %s.",
		server, now, o, strings.Join(names, ", "))
	if o == OrderRetry {
		err = Invalid("sourceServerID", "%s", err.Message)
	}
	return now, err
}

// Ended tells whether a server in this state has no agent and no data.
func (s ReplicationState) Ended() bool {
	return s == ReplicationStopped || s == ReplicationDisconnected
}

// After is how replication stands once it has come to the state by an order:
// nothing is said of what was replicated before.
func (i DataReplicationInfo) After(to ReplicationState) DataReplicationInfo {
	out := DataReplicationInfo{State: to}
	for _, d := range i.Disks {
		left := ReplicatedDisk{Device: d.Device, Total: d.Total}
		if to == ReplicationDisconnected {
			left.Total = 0
		}
		out.Disks = append(out.Disks, left)
	}
	return out
}
