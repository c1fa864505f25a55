// Package replication is the wire between an agent and the vault: typed
// messages in checksummed frames over TLS 1.3 with mutual authentication. Both
// ends live here; what the messages make happen lives in packages agent and
// ingest.
//
// What it guarantees: a message that Receive returns arrived whole, passed its
// checksum and keeps the limits of its kind; no length of the peer's is trusted
// before it is bounded; a peer that falls silent is noticed within IdleTimeout.
//
// What it does not: it does not order epochs nor decide what is durable. An Ack
// means what the sender of it promises, see docs/formats/replication.md, which
// describes every byte.
package replication

import "time"

const (
	// ALPN names the protocol in the TLS handshake.
	ALPN = "lifeboat-replication"
	// MinVersion and MaxVersion are the versions this program speaks.
	MinVersion uint16 = 1
	MaxVersion uint16 = 7

	// RenewalVersion is the first version with Renewal and Certificate, and
	// IdentityVersion that with the identities of disks.
	RenewalVersion  uint16 = 2
	IdentityVersion uint16 = 2
	// HostVersion is the first version that tells how long a point's freeze took,
	// and whether new disks are to be replicated.
	HostVersion uint16 = 3
	// AuthorVersion is the first version that names the session that made the head.
	AuthorVersion uint16 = 4
	// CreditVersion is the first version with CreditRequest.
	CreditVersion uint16 = 5
	// LobbyVersion is the first version in which heartbeats may come before the welcome.
	LobbyVersion uint16 = 6
	// ApartVersion is the first version with disks that points do not hold.
	ApartVersion uint16 = 7

	// DefaultPort is where a replication server listens.
	DefaultPort = 1500

	// HeartbeatEvery is the pause after which an end that has nothing to say
	// sends a Heartbeat.
	HeartbeatEvery = 8 * time.Second
	// IdleTimeout is how long nothing at all may get through, either way, until the
	// peer counts as gone. A message may take longer.
	IdleTimeout = 25 * time.Second
	// DialTimeout bounds finding and reaching the peer, and then the handshake of TLS.
	DialTimeout = 15 * time.Second
	// WelcomeTimeout is how long an agent waits for a welcome from a server that lives.
	WelcomeTimeout = 5 * time.Minute
)

// Limits of the protocol. Both ends hold them before they allocate.
const (
	// MaxPayload bounds the payload of any frame, in bytes.
	MaxPayload = 256 << 10
	// MaxData bounds the compressed bytes of one Data message.
	MaxData = 64 << 10
	// MaxExtents bounds the extents of one Data message.
	MaxExtents = 16
	// MaxDisks bounds the disks of one server, as the DRS API does.
	MaxDisks = 60
	// MaxDevice and MaxText bound device names and texts for people, in bytes.
	MaxDevice = 1024
	MaxText   = 4096
	// MaxFreeze bounds the freeze of a point.
	MaxFreeze = time.Hour
	// MaxIdentity bounds identities of disks, in bytes.
	MaxIdentity = 256
	// MaxDigests bounds the chunks of one DigestRequest.
	MaxDigests = 8192
	// MaxInventory bounds the JSON document of an Inventory message.
	MaxInventory = 128 << 10
)
