package drs

// Staging names the source server of another account that an extended one stands
// for: that one is replicated, this one is recovered.
type Staging struct {
	Account Account
	Server  SourceServerID
	// Error says why the extension cannot be used; empty: it can.
	Error string
}

// ARN names the server in its own account.
func (s Staging) ARN() string { return s.Account.ARN(TypeSourceServer, string(s.Server)) }

// Extended tells whether the server is one of another account, extended to this.
func (s SourceServer) Extended() bool { return s.Staging.Server != "" }

// VaultServer is the server under which the vault keeps the data: its own, but
// for an extended server.
func (s SourceServer) VaultServer() SourceServerID {
	if s.Extended() {
		return s.Staging.Server
	}
	return s.ID
}
