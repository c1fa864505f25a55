package architecture

// A rule says which of our own packages the ones under dir may import, and why
// no others; what lies under dir too is always allowed. A dir covers its
// subdirectories unless they have a rule themselves; so does an entry of may.
type rule struct {
	dir string
	may []string
	why string
}

var rules = []rule{
	{"internal/drs", nil,
		"drs is the vocabulary everyone shares: standard library only, no I/O, so that nothing can import in a circle"},
	{"internal/durable", nil,
		"durable knows files and fsync, nothing of what is in them"},

	{"internal/source/inventory", []string{"internal/drs"},
		"the inventory looks at a machine; it neither sends nor stores"},
	{"internal/qmp", nil,
		"QMP is a protocol, spoken to machines that we run and to machines that we protect"},
	{"internal/source/blocktrack", []string{"internal/drs", "internal/qmp"},
		"trackers find changed blocks; what becomes of them is the agent's business"},
	{"internal/source", []string{"internal/drs", "internal/durable", "internal/qmp", "internal/replication", "internal/vault"},
		"the agent may borrow the vault's chunk digest, which both ends must compute alike; it runs on the protected machine and must not carry the server along"},
	{"internal/replication", []string{"internal/drs"},
		"the wire is spoken by both ends and belongs to neither"},

	{"internal/vault/segment", []string{"internal/drs", "internal/vault/blob", "internal/vault/extent", "internal/vault/seal"},
		"the segment format is a pure codec: a stand-alone reader must be able to use it"},
	{"internal/vault/blob", []string{"internal/drs", "internal/durable"},
		"a blob store keeps named bytes and knows no format"},
	{"internal/vault", []string{"internal/drs", "internal/durable"},
		"the vault is the truth and depends on nobody who writes to it or reads from it"},

	{"internal/recovery/nbd", []string{"internal/drs"},
		"the NBD server serves a device it is given and knows no vault"},
	{"internal/recovery/convert", []string{"internal/drs"},
		"convert looks at a disk through io.ReaderAt, whoever serves it"},
	{"internal/recovery/machine", []string{"internal/drs", "internal/durable", "internal/qmp"},
		"machines take disks by address and know neither vault nor API"},
	{"internal/recovery/plan", []string{"internal/drs", "internal/db"},
		"plans order jobs and meet neither machines nor the vault"},
	{"internal/recovery", []string{"internal/drs", "internal/durable", "internal/db", "internal/qmp", "internal/vault"},
		"recovery turns points into machines; agents and the wire API reach it through server"},
	{"internal/ingest", []string{"internal/drs", "internal/durable", "internal/replication", "internal/vault", "internal/iam"},
		"ingest lets agents into the vault and knows nothing of recovery"},

	{"internal/protection", []string{"internal/drs", "internal/db"},
		"protection records and orders; agents and vault are behind interfaces of its own"},

	{"internal/iam", []string{"internal/drs", "internal/durable"},
		"who may do what is decided without looking at the data"},
	{"internal/iam/directory", []string{"internal/drs", "internal/db", "internal/iam"},
		"the directory keeps identities in the tables and decides nothing about requests"},
	{"internal/iamapi", []string{"internal/drs", "internal/iam"},
		"the IAM and STS protocols are another face of the directory"},
	{"internal/throttle", nil,
		"rates are numbers; whose they are is said by who asks"},
	{"internal/audit", []string{"internal/durable"},
		"the audit log keeps what it is told and asks nobody"},
	{"internal/events", []string{"internal/drs", "internal/db", "internal/iam"},
		"events leave the tables for webhooks; what they mean is said in drs"},
	{"internal/db", []string{"internal/drs"},
		"tables hold the domain; rules and transport live elsewhere"},
	{"internal/drsapi", []string{"internal/drs", "internal/iam", "internal/db"},
		"the wire API reads tables and hands orders to interfaces of its own; it never meets the bytes"},
	{"internal/diskstream", nil,
		"the stream of an exported disk is a pure codec, spoken by server and client"},
	{"internal/client", []string{"internal/drs", "internal/durable", "internal/diskstream"},
		"the human's client uses the API as everyone does and has no private door"},
	{"internal/console", nil,
		"the console is a client like any other and has no private door"},

	{"internal/demo", []string{"internal/drs"},
		"the demo uses Lifeboat from outside, as its users do: own processes and the AWS SDK"},
	{"internal/server", []string{"internal"},
		"the wings meet in server"},
	{"cmd", []string{"internal"},
		"commands wire and print"},
	{"test", []string{"internal"},
		"suites may look anywhere"},
}

// mayNever lists (in may) what even the wiring leaves alone.
var mayNever = []rule{
	{"internal/server", []string{"internal/source", "internal/demo"},
		"the server never runs on the protected machine's side of the wire"},
}
