package client

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	drsapi "github.com/aws/aws-sdk-go-v2/service/drs"
	"github.com/aws/aws-sdk-go-v2/service/drs/types"
)

// Server is a protected machine.
type Server struct {
	Hostname string `json:"hostname"`
	ID       string `json:"id"`
	FQDN     string `json:"fqdn,omitempty"`
	// State is the data replication state of the DRS API.
	State string `json:"state"`
	// Recoverable tells whether any consistent recovery point exists.
	Recoverable bool `json:"recoverable"`
	// LagSeconds is how far the newest state in the vault is behind; absent before
	// the first point.
	LagSeconds *float64 `json:"lagSeconds,omitempty"`
	// SyncedPercent is set while a first sync or a rescan runs.
	SyncedPercent *float64   `json:"syncedPercent,omitempty"`
	SyncEnds      *time.Time `json:"syncEnds,omitempty"`
	// Step is what a server that is initiating does.
	Step       string      `json:"step,omitempty"`
	Problem    *Problem    `json:"problem,omitempty"`
	OS         string      `json:"os,omitempty"`
	CPUs       int64       `json:"cpus"`
	RAMBytes   int64       `json:"ramBytes"`
	Disks      []Disk      `json:"disks"`
	LastSeen   *time.Time  `json:"lastSeen,omitempty"`
	LastLaunch *LastLaunch `json:"lastLaunch,omitempty"`
	// Instance is the machine of the latest launch that is still there.
	Instance string `json:"instance,omitempty"`
}

// Problem says why replication does not flow.
type Problem struct {
	Code    string `json:"code"`
	Message string `json:"message,omitempty"`
}

// Disk is one replicated disk.
type Disk struct {
	Device          string `json:"device"`
	Bytes           int64  `json:"bytes"`
	ReplicatedBytes int64  `json:"replicatedBytes"`
	BackloggedBytes int64  `json:"backloggedBytes"`
}

// LastLaunch is the latest drill or recovery of a server.
type LastLaunch struct {
	Drill  bool       `json:"drill"`
	At     *time.Time `json:"at,omitempty"`
	Job    string     `json:"job,omitempty"`
	Status string     `json:"status"`
}

// Bytes is the size of all disks.
func (s Server) Bytes() (n int64) {
	for _, d := range s.Disks {
		n += d.Bytes
	}
	return n
}

// Servers lists the protected machines of the account by hostname.
func (c *Client) Servers(ctx context.Context) ([]Server, error) {
	servers := []Server{}
	pages := drsapi.NewDescribeSourceServersPaginator(c.api, &drsapi.DescribeSourceServersInput{})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, c.explain(err)
		}
		for _, s := range page.Items {
			servers = append(servers, serverOf(s))
		}
	}
	slices.SortStableFunc(servers, func(a, b Server) int {
		return cmp.Or(cmp.Compare(strings.ToLower(a.Hostname), strings.ToLower(b.Hostname)), cmp.Compare(a.ID, b.ID))
	})
	return servers, nil
}

func serverOf(s types.SourceServer) Server {
	out := Server{ID: deref(s.SourceServerID), Instance: deref(s.RecoveryInstanceId), Disks: []Disk{}}
	if p := s.SourceProperties; p != nil {
		if hints := p.IdentificationHints; hints != nil {
			out.Hostname, out.FQDN = deref(hints.Hostname), deref(hints.Fqdn)
		}
		if p.Os != nil {
			out.OS = deref(p.Os.FullString)
		}
		for _, cpu := range p.Cpus {
			out.CPUs += cpu.Cores
		}
		out.RAMBytes = p.RamBytes
	}
	if l := s.LifeCycle; l != nil {
		out.LastSeen = timeOf(l.LastSeenByServiceDateTime)
		if launch := l.LastLaunch; launch != nil {
			out.LastLaunch = &LastLaunch{Status: string(launch.Status)}
			if by := launch.Initiated; by != nil {
				out.LastLaunch.Drill = by.Type == types.LastLaunchTypeDrill
				out.LastLaunch.At, out.LastLaunch.Job = timeOf(by.ApiCallDateTime), deref(by.JobID)
			}
		}
	}
	if r := s.DataReplicationInfo; r != nil {
		out.addReplication(r)
	}
	return out
}

func (s *Server) addReplication(r *types.DataReplicationInfo) {
	s.State = string(r.DataReplicationState)
	if lag, ok := parseISODuration(deref(r.LagDuration)); ok {
		seconds := lag.Seconds()
		s.LagSeconds, s.Recoverable = &seconds, true
	}
	switch r.DataReplicationState {
	case types.DataReplicationStateStopped, types.DataReplicationStateDisconnected:
		s.Recoverable = false // their points are gone, or going
	}
	s.SyncEnds = timeOf(r.EtaDateTime)
	var total, replicated, rescanned int64
	for _, d := range r.ReplicatedDisks {
		s.Disks = append(s.Disks, Disk{
			Device: deref(d.DeviceName), Bytes: d.TotalStorageBytes,
			ReplicatedBytes: d.ReplicatedStorageBytes, BackloggedBytes: d.BackloggedStorageBytes,
		})
		total, replicated, rescanned = total+d.TotalStorageBytes, replicated+d.ReplicatedStorageBytes, rescanned+d.RescannedStorageBytes
	}
	switch r.DataReplicationState {
	case types.DataReplicationStateInitialSync:
		s.SyncedPercent = percent(replicated, total)
	case types.DataReplicationStateRescan:
		s.SyncedPercent = percent(rescanned, total)
	}
	if r.DataReplicationState == types.DataReplicationStateInitiating && r.DataReplicationInitiation != nil {
		for _, step := range r.DataReplicationInitiation.Steps {
			if step.Status == types.DataReplicationInitiationStepStatusInProgress {
				s.Step = string(step.Name)
			}
		}
	}
	if e := r.DataReplicationError; e != nil {
		s.Problem = &Problem{Code: string(e.Error), Message: deref(e.RawError)}
	}
}

func percent(part, whole int64) *float64 {
	p := 100.0
	if whole > 0 {
		p = 100 * float64(part) / float64(whole)
	}
	return &p
}
