package replication

import (
	"time"
)

// Kind is the first byte of a frame and tells which message it carries.
// Numbers are never used again for something else.
type Kind uint8

const (
	KindHello         Kind = 1
	KindWelcome       Kind = 2
	KindDisks         Kind = 3
	KindVolumes       Kind = 4
	KindDigestRequest Kind = 5
	KindDigests       Kind = 6
	KindBegin         Kind = 7
	KindData          Kind = 8
	KindZero          Kind = 9
	KindCommit        Kind = 10
	KindAck           Kind = 11
	KindRefused       Kind = 12
	KindCredit        Kind = 13
	KindPointRequest  Kind = 14
	KindConfig        Kind = 15
	KindHeartbeat     Kind = 16
	KindProgress      Kind = 17
	KindInventory     Kind = 18
	KindError         Kind = 19
	KindBye           Kind = 20
	KindRenewal       Kind = 21
	KindCertificate   Kind = 22
	KindCreditRequest Kind = 23
)

// Message is one of the structs below.
type Message interface {
	kind() Kind
	// encode writes the payload; decode reads it and must consume all of it.
	encode(*encoder)
	decode(*decoder)
}

// Hello opens a session, agent to server. Its layout is the same in all versions.
type Hello struct {
	MinVersion, MaxVersion uint16
	Software               string // name and version of the agent, for logs
	Instance               [16]byte
}

// Welcome answers Hello and settles the version.
type Welcome struct {
	Version    uint16
	HeadNumber uint64 // commits of the server's main branch so far
	HeadHash   [32]byte
	DigestSeed uint64
	// Author is the Instance of the session that made the head; zeros: not known. What
	// that session found at its beginning and the head lie apart by its commits alone.
	Author [16]byte
	// Sealed: the head is a consistent recovery point, taken at PointTaken.
	Sealed     bool
	PointTaken time.Time
	// Credit is how many bytes of Data the agent may have unprocessed at the server.
	Credit   uint32
	Settings Config
	Software string
}

// Config is sent in Welcome and whenever the user changes it.
type Config struct {
	EpochSpacing time.Duration // milliseconds on the wire; 0: the agent's choice
	ThrottleMbps uint32        // 0: unlimited
	// HoldNewDisks: disks that are new to an agent of a whole machine are told, and not
	// replicated by themselves. Since version 3; a server leaves it out before.
	HoldNewDisks bool
}

// Disks tells the disks that the following epochs are about, agent to server.
// It is sent again when a disk grew, between epochs.
type Disks struct {
	Disks []Disk
	// DropOthers: disks of the server that are not named have left. Else they are
	// refused. Since ApartVersion.
	DropOthers bool
}

// Disk is one disk of the source.
type Disk struct {
	Device string
	Size   int64
	// Identity tells the disk from others, whatever it is called; empty: nothing does.
	// Since version 2; an agent leaves it out before.
	Identity string
	// State is how the disk stands, since ApartVersion.
	State DiskState
}

// DiskState is how a disk stands, by its agent's word.
type DiskState uint8

const (
	// DiskPresent: it is replicated. Whether points hold it the server decides, and tells
	// with Volume.Apart.
	DiskPresent DiskState = iota
	// DiskComplete: what was sent of it is all of it, so points can hold it.
	DiskComplete
	// DiskLeft: the machine has lost it, and points go on without it.
	DiskLeft
)

// Volumes answers Disks, in the same order.
type Volumes struct{ Volumes []Volume }

// Volume is where a disk goes in the vault.
type Volume struct {
	ID uint32
	// Known: the vault holds data of this disk, so its digests are worth asking for.
	Known bool
	// Apart: points do not hold the disk until its agent says that it is complete.
	// Since ApartVersion.
	Apart bool
}

// DigestRequest asks for the content digests of chunks, agent to server.
type DigestRequest struct {
	Volume uint32
	First  uint64 // chunk number
	Count  uint32 // 1 to MaxDigests
}

// Digests answers a DigestRequest.
type Digests struct {
	Volume  uint32
	First   uint64
	Digests [][16]byte
}

// Begin opens an epoch. IDs count up by one within a session, from 1. Only one
// epoch is open at a time, but the next may begin before the last is acknowledged.
type Begin struct {
	Epoch uint64
	// Restart must be set on the first epoch after a Refused; until then the
	// server passes over everything that was on its way.
	Restart bool
}

// Codecs of Data; the numbers are the vault's.
const (
	CodecRaw  uint8 = 0
	CodecZstd uint8 = 1
	CodecS2   uint8 = 2
)

// Extent is a run of 4 KiB blocks.
type Extent struct {
	Block uint64
	Count uint32
}

// Data carries the content of at most 16 blocks of one volume.
type Data struct {
	Volume  uint32
	Codec   uint8
	RawLen  uint32 // bytes before compression: 4096 times the counts of Extents
	Digest  [16]byte
	Extents []Extent
	Payload []byte

	buf *[]byte // what Payload lies in when received; see Release
}

// Zero says that a run of blocks of one volume is all zeros.
type Zero struct {
	Volume uint32
	Block  uint64
	Count  uint32
}

// Consistency of a Point, in the terms of package drs.
const (
	ConsistencyFuzzy       uint8 = 1
	ConsistencyCrash       uint8 = 2
	ConsistencyFilesystem  uint8 = 3
	ConsistencyApplication uint8 = 4
)

// Methods of a Point, in the terms of package drs.
const (
	MethodNone            uint8 = 0
	MethodQuietPass       uint8 = 1
	MethodFrozen          uint8 = 2
	MethodCopyBeforeWrite uint8 = 3
)

// Commit closes the open epoch, agent to server.
type Commit struct {
	Epoch uint64
	// Point is false for durable progress that is no recovery point.
	Point       bool
	Consistency uint8
	Method      uint8
	// Request is the PointRequest that this answers, 0 for none.
	Request  uint64
	Expected time.Time
	Taken    time.Time
	// Freeze is for how long filesystems were held still; nanoseconds on the wire.
	// Since version 3; an agent leaves it 0 before.
	Freeze time.Duration
}

// Ack says that the epoch is durable in the vault: the agent may forget it.
type Ack struct {
	Epoch      uint64
	HeadNumber uint64
	HeadHash   [32]byte
	Point      string // ID of the recovery point, empty for progress
}

// Refused says that the epoch and all after it are not in the vault, for a
// cause that may pass. The session lives on; the agent begins again, with
// Begin.Restart, after RetryAfter.
type Refused struct {
	Epoch      uint64
	RetryAfter time.Duration // milliseconds on the wire
	Text       string
	NextStep   string
}

// Credit gives back bytes that were taken by Data messages, server to agent.
type Credit struct{ Bytes uint32 }

// CreditRequest tells that there is something to send and no credit for it, agent to
// server. Where the line is long rather than the vault slow, the answer is a Credit
// that gives nothing back, but more. Since version 5.
type CreditRequest struct{}

// PointRequest asks for a recovery point now, server to agent.
type PointRequest struct{ Request uint64 }

// Heartbeat is sent by both ends when they have nothing else to say.
type Heartbeat struct {
	// AsOf: the disks were equal to the vault's newest point at this moment.
	// Zero when that is not known, and from the server.
	AsOf time.Time
}

// Phase is what the agent is at.
type Phase uint8

const (
	PhaseScanning   Phase = 1 // the first pass over the disks in this session
	PhaseContinuous Phase = 2
	PhaseBacklog    Phase = 3 // changes are known that no point holds yet
	PhaseStalled    Phase = 4 // replication cannot go on; Text and NextStep tell why
)

// Progress tells how far the agent is, at most about once a second.
type Progress struct {
	Phase    Phase
	Disks    []DiskProgress // in the order of Disks
	Text     string
	NextStep string
}

// DiskProgress counts bytes of one disk.
type DiskProgress struct {
	Scanned int64 // of the first pass
	Backlog int64 // known to differ from the vault and not acknowledged
}

// Inventory carries drs.SourceProperties as JSON, after Hello and on change.
type Inventory struct{ JSON []byte }

// Renewal asks for a new certificate, agent to server. CSR is as in a Registration.
// Since version 2.
type Renewal struct{ CSR string }

// Certificate answers Renewal. Without one, Text tells why. The agent's
// certificate stays good until a session begins with the new one.
type Certificate struct {
	PEM  string
	Text string
}

// Code sorts the errors that end a session.
type Code uint16

const (
	CodeInternal    Code = 1  // try again
	CodeProtocol    Code = 2  // the peer broke the protocol
	CodeVersion     Code = 3  // no common version
	CodeSuperseded  Code = 4  // another agent with this identity took over
	CodeShrunk      Code = 5  // a disk is smaller than its volume
	CodeForbidden   Code = 6  // this agent may not replicate (deleted, disconnected)
	CodeDamaged     Code = 7  // the vault's copy does not pass its checks
	CodeBusy        Code = 8  // try again later
	CodeDiskMissing Code = 9  // a disk of the head was not named
	CodeStopped     Code = 10 // replication was stopped by an order: ask again now and then
)

// Error ends the session. As a Go error it is what Receive returns.
type Error struct {
	Code     Code
	Text     string
	NextStep string
}

func (e *Error) Error() string {
	if e.NextStep == "" {
		return e.Text
	}
	return e.Text + ": " + e.NextStep
}

// Bye ends the session in peace.
type Bye struct{ Reason string }
