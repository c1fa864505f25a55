package iam

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	serverFile = "server.pem" // certificate and key in one, so that they change together

	serverCertLife  = 397 * 24 * time.Hour
	serverCertRenew = 60 * 24 * time.Hour // left over when it is replaced
)

// DefaultHosts are the names by which a server is always known: the loopback
// ones, and the host of QEMU's user networks as their guests see it.
var DefaultHosts = []string{"localhost", "127.0.0.1", "::1", "10.0.2.2"}

// ServerCertificate returns the server's TLS certificate for DefaultHosts and
// the given DNS names and IP addresses. The one kept in dir is used when it is of
// this authority, names the same hosts and has more than 60 days left; else a
// new one replaces it. A damaged one is replaced too: clients trust the
// authority, so nothing is lost by it.
//
// The hosts "", "0.0.0.0" and "::" name no host and are left out.
func (a *Authority) ServerCertificate(dir string, hosts []string) (tls.Certificate, error) {
	names, ips := splitHosts(slices.Concat(DefaultHosts, hosts))
	path := filepath.Join(dir, serverFile)
	pair, err := loadPair(path, path)
	var damaged *DamagedError
	switch {
	case err == nil:
		if a.serves(pair.Leaf, names, ips) {
			return pair, nil
		}
	case !errors.Is(err, fs.ErrNotExist) && !errors.As(err, &damaged):
		return tls.Certificate{}, err
	}

	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("issue server certificate: %w", err)
	}
	der, err := a.issue(&x509.Certificate{
		Subject:     pkix.Name{Organization: []string{"Lifeboat"}, CommonName: "Lifeboat server"},
		DNSNames:    names,
		IPAddresses: ips,
		NotAfter:    a.now().Add(serverCertLife),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, key.Public())
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("issue server certificate: %w", err)
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("issue server certificate: %w", err)
	}
	if err := files.WriteFile("keep server certificate", path, append(encodeCert(der), keyPEM...), private); err != nil {
		return tls.Certificate{}, err
	}
	return loadPair(path, path)
}

// serves tells whether a certificate is still good for a server of these hosts.
func (a *Authority) serves(cert *x509.Certificate, names []string, ips []net.IP) bool {
	_, err := cert.Verify(x509.VerifyOptions{
		Roots: a.pool, CurrentTime: a.now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	return err == nil && cert.NotAfter.Sub(a.now()) > serverCertRenew &&
		slices.Equal(cert.DNSNames, names) && slices.EqualFunc(cert.IPAddresses, ips, net.IP.Equal)
}

// splitHosts sorts hosts into DNS names and addresses, each once, in order.
func splitHosts(hosts []string) (names []string, ips []net.IP) {
	for _, host := range hosts {
		host = strings.ToLower(strings.Trim(strings.TrimSpace(host), "[]"))
		ip := net.ParseIP(host)
		switch {
		case host == "" || ip != nil && ip.IsUnspecified():
		case ip == nil && !slices.Contains(names, host):
			names = append(names, host)
		case ip != nil && !slices.ContainsFunc(ips, ip.Equal):
			ips = append(ips, ip)
		}
	}
	return names, ips
}
