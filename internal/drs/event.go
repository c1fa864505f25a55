package drs

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

// EventType is what the service calls the detail-type of an event.
type EventType string

const (
	EventStalled       EventType = "DRS Source Server Data Replication Stalled Change"
	EventLaunchResult  EventType = "DRS Source Server Launch Result"
	EventFailback      EventType = "DRS Recovery Instance Failback State Change"
	EventSnapshotTaken EventType = "DRS PIT Snapshot Taken"
	// EventWebhookTest is our own: somebody tries whether a webhook works.
	EventWebhookTest EventType = "Lifeboat Webhook Test"
)

// EventTypes are those that webhooks can ask for.
var EventTypes = []EventType{EventStalled, EventLaunchResult, EventFailback, EventSnapshotTaken}

// Frequent events are told only to those who ask for them by name: points are
// taken every few seconds.
func (t EventType) Frequent() bool { return t == EventSnapshotTaken }

// CloudType is the type in the words of CloudEvents, as in
// aws.drs.source-server-launch-result.
func (t EventType) CloudType() string {
	return "aws.drs." + strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(string(t), "DRS ")), " ", "-")
}

// Event is something that happened, in the shape in which EventBridge delivers it.
type Event struct {
	Version   string         `json:"version"`
	ID        string         `json:"id"`
	Type      EventType      `json:"detail-type"`
	Source    string         `json:"source"`
	AccountID string         `json:"account"`
	Time      time.Time      `json:"time"`
	Region    string         `json:"region"`
	Resources []string       `json:"resources"`
	Detail    map[string]any `json:"detail"`
}

// NewEvent makes an event of one resource.
func NewEvent(t EventType, account Account, at time.Time, resource string, detail map[string]any) Event {
	raw := make([]byte, 16)
	rand.Read(raw) // never fails: crypto/rand aborts the program instead
	raw[6], raw[8] = raw[6]&0x0f|0x40, raw[8]&0x3f|0x80
	h := hex.EncodeToString(raw)
	return Event{
		Version: "0", ID: fmt.Sprintf("%s-%s-%s-%s-%s", h[:8], h[8:12], h[12:16], h[16:20], h[20:]),
		Type: t, Source: "aws.drs", AccountID: account.ID, Time: at.UTC().Truncate(time.Second), Region: account.Region,
		Resources: []string{resource}, Detail: detail,
	}
}

// LaunchResult tells how a launch of one server ended.
func LaunchResult(job Job, server SourceServerID, launched bool, at time.Time) Event {
	state, drill := "RECOVERY_LAUNCH_FAILED", "FALSE"
	if launched {
		state = "RECOVERY_LAUNCH_SUCCEEDED"
	}
	if job.Initiated == StartedDrill {
		drill = "TRUE"
	}
	return NewEvent(EventLaunchResult, job.Account, at, job.Account.ARN(TypeSourceServer, string(server)),
		map[string]any{"state": state, "job-id": string(job.ID), "is-drill": drill})
}

// StalledChange tells that replication of a server needs a person, or no longer
// does; nil when it did before as it does now.
func StalledChange(account Account, server SourceServerID, before, now DataReplicationInfo, at time.Time) *Event {
	if before.NeedsPerson() == now.NeedsPerson() {
		return nil
	}
	state := "NOT_STALLED"
	if now.NeedsPerson() {
		state = "STALLED"
	}
	e := NewEvent(EventStalled, account, at, account.ARN(TypeSourceServer, string(server)), map[string]any{"state": state})
	return &e
}

// NeedsPerson tells whether replication does not flow and will not by itself. A
// lost agent leaves the state as it was, so that what is in the vault stays
// recoverable; to whoever waits for events it is a stall, as it is on AWS.
func (d DataReplicationInfo) NeedsPerson() bool {
	return d.State == ReplicationStalled || d.Error != nil && d.Error.Code == AgentNotSeen
}

// SnapshotTaken tells of a new recovery point of a server with these disks.
func SnapshotTaken(account Account, p RecoveryPoint, disks []Disk) Event {
	volumes := make([]string, len(disks))
	for i, d := range disks {
		volumes[i] = VolumeSnapshotID(p.ID, d.Device)
	}
	return NewEvent(EventSnapshotTaken, account, p.Taken, account.ARN(TypeSourceServer, string(p.SourceServer)),
		map[string]any{"DrsSnapshotID": string(p.ID), "EbsSnapshotIDs": strings.Join(volumes, ",")})
}
