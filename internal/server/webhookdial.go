package server

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"lifeboat/internal/drs"
)

// webhookTransport carries events of the account that the server was made with
// anywhere. Those of other accounts do not reach the server's own machine and what
// only that can reach: a webhook must not be a way in for its tenant.
func (s *running) webhookTransport() func(drs.Account) http.RoundTripper {
	dialer := &net.Dialer{Timeout: 10 * time.Second, Control: refuseOwnAddresses}
	outside := &http.Transport{
		DialContext: dialer.DialContext, ForceAttemptHTTP2: true, MaxIdleConns: 100, IdleConnTimeout: 90 * time.Second,
		TLSHandshakeTimeout: 10 * time.Second,
		// No proxy: it would reach in our place what must not be reached.
	}
	return func(account drs.Account) http.RoundTripper {
		if account.ID == s.dir.Settings.Account {
			return http.DefaultTransport
		}
		return outside
	}
}

// refuseOwnAddresses refuses a connection to this machine, or to its link: there
// lie the services that trust whoever is on it, such as a cloud's metadata.
func refuseOwnAddresses(_, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("webhook address %s: %w", address, err)
	}
	ip := to.Addr().Unmap().WithZone("")
	own, err := net.InterfaceAddrs()
	if err != nil {
		return fmt.Errorf("list the addresses of this machine: %w", err)
	}
	isOwn := slices.ContainsFunc(own, func(a net.Addr) bool {
		prefix, err := netip.ParsePrefix(a.String())
		return err == nil && prefix.Addr().Unmap().WithZone("") == ip
	})
	if isOwn || ip.IsLoopback() || ip.IsUnspecified() || ip.IsLinkLocalUnicast() || ip.IsMulticast() {
		return fmt.Errorf("webhooks of this account may not lead to %s, which is the server's own machine or link: name a URL elsewhere", ip)
	}
	return nil
}
