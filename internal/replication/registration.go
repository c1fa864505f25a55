package replication

import (
	"net"
	"strconv"

	"lifeboat/internal/drs"
)

// RegisterPath is where an agent registers, on the API address.
const RegisterPath = "/lifeboat/v1/agents"

// MaxRegistration bounds the body of a registration and of its reply, in bytes.
const MaxRegistration = 256 << 10

// Registration is the JSON body with which an agent introduces its machine.
type Registration struct {
	Token string `json:"token"`
	// CSR is a PEM-encoded PKCS #10 request for the agent's certificate; only its
	// key counts.
	CSR          string               `json:"csr"`
	HardwareID   string               `json:"hardwareID"`
	AgentVersion string               `json:"agentVersion"`
	Inventory    drs.SourceProperties `json:"inventory"`
}

// Registered is the reply: who the agent is from now on.
type Registered struct {
	SourceServerID drs.SourceServerID `json:"sourceServerID"`
	Certificate    string             `json:"certificate"` // PEM
	CA             string             `json:"ca"`          // PEM
	// ReplicationAddress is host:port; without a host it is the one that the
	// agent registered at.
	ReplicationAddress string `json:"replicationAddress"`
}

// Whereabouts is the reply to GET RegisterPath: where agents replicate to now. It
// needs no credentials, and tells nothing that a port scan would not.
type Whereabouts struct {
	ReplicationAddress string `json:"replicationAddress"`
}

// RegistrationError is the body of a refusal.
type RegistrationError struct {
	Code    string `json:"code"`
	Message string `json:"message"` // tells the next step
}

// CompleteAddress gives a replication address its port, and the host that the agent
// registered at, where it has none, an unspecified one or the server's own loopback,
// which reaches the server from itself only.
func CompleteAddress(address, host string) string {
	h, port, err := net.SplitHostPort(address)
	if err != nil {
		h, port = address, strconv.Itoa(DefaultPort)
	}
	if ip := net.ParseIP(h); h == "" || ip != nil && (ip.IsUnspecified() || ip.IsLoopback()) {
		h = host
	}
	return net.JoinHostPort(h, port)
}
