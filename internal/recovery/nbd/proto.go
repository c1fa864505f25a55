package nbd

// The numbers of the NBD protocol, named as its document names them:
// https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
// All integers on the wire are big endian.

const (
	magicInit        = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption      = 0x49484156454F5054 // "IHAVEOPT"
	magicOptionReply = 0x0003e889045565a9
	magicRequest     = 0x25609513
	magicSimple      = 0x67446698
	magicStructured  = 0x668e33ef
)

// Handshake flags of the server and of the client; the bits agree.
const (
	flagFixedNewstyle = 1 << 0
	flagNoZeroes      = 1 << 1
)

// Transmission flags.
const (
	flagHasFlags        = 1 << 0
	flagReadOnly        = 1 << 1
	flagSendFlush       = 1 << 2
	flagSendFUA         = 1 << 3
	flagSendTrim        = 1 << 5
	flagSendWriteZeroes = 1 << 6
	flagSendDF          = 1 << 7
	flagCanMultiConn    = 1 << 8
	flagSendCache       = 1 << 10
	flagSendFastZero    = 1 << 11
)

type option uint32

const (
	optExportName      option = 1
	optAbort           option = 2
	optList            option = 3
	optStartTLS        option = 5
	optInfo            option = 6
	optGo              option = 7
	optStructuredReply option = 8
	optListMetaContext option = 9
	optSetMetaContext  option = 10
)

type optionReply uint32

const (
	repAck         optionReply = 1
	repServer      optionReply = 2
	repInfo        optionReply = 3
	repMetaContext optionReply = 4

	repErrUnsup    optionReply = 1<<31 + 1
	repErrPolicy   optionReply = 1<<31 + 2
	repErrInvalid  optionReply = 1<<31 + 3
	repErrTLSReqd  optionReply = 1<<31 + 5
	repErrUnknown  optionReply = 1<<31 + 6
	repErrShutdown optionReply = 1<<31 + 7
	repErrTooBig   optionReply = 1<<31 + 9
)

type infoType uint16

const (
	infoExport      infoType = 0
	infoName        infoType = 1
	infoDescription infoType = 2
	infoBlockSize   infoType = 3
)

type command uint16

const (
	cmdRead        command = 0
	cmdWrite       command = 1
	cmdDisconnect  command = 2
	cmdFlush       command = 3
	cmdTrim        command = 4
	cmdCache       command = 5
	cmdWriteZeroes command = 6
	cmdBlockStatus command = 7
)

func (c command) String() string {
	switch c {
	case cmdRead:
		return "read"
	case cmdWrite:
		return "write"
	case cmdDisconnect:
		return "disconnect"
	case cmdFlush:
		return "flush"
	case cmdTrim:
		return "trim"
	case cmdCache:
		return "cache"
	case cmdWriteZeroes:
		return "write zeroes"
	case cmdBlockStatus:
		return "block status"
	}
	return "unknown command"
}

// Command flags.
const (
	cmdFlagFUA      = 1 << 0
	cmdFlagNoHole   = 1 << 1
	cmdFlagDF       = 1 << 2
	cmdFlagReqOne   = 1 << 3
	cmdFlagFastZero = 1 << 4
)

// Structured replies: flag and chunk types.
const (
	replyFlagDone = 1 << 0

	replyNone        = 0
	replyOffsetData  = 1
	replyOffsetHole  = 2
	replyBlockStatus = 5
	replyError       = 1<<15 + 1
)

// The base:allocation context.
const (
	contextAllocation   = "base:allocation"
	contextAllocationID = 1

	stateHole = 1 << 0
	stateZero = 1 << 1
)

// Sizes on the wire, in bytes.
const (
	requestLen         = 28
	simpleReplyLen     = 16
	structuredReplyLen = 20
	optionHeaderLen    = 16
	exportPadding      = 124
)

// Limits, in bytes.
const (
	minBlock       = 1
	preferredBlock = 4096
	maxPayload     = 32 << 20 // of a read or a write, as every client expects
	maxOptionData  = 64 << 10 // kept in memory; more is skipped and refused
	maxName        = 4096     // of an export or a query, as the protocol says
)
