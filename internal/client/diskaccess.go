package client

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"lifeboat/internal/durable"
)

// DiskAccess is what it takes to read disks of recovery points as block devices.
type DiskAccess struct {
	Address string    // HOST:PORT of the server of disks
	Expires time.Time // of the certificate

	authority, certificate, key []byte // PEM
}

// URI names a disk of a server at a point for programs that speak NBD, which find
// the certificates in dir.
func (a *DiskAccess) URI(server, point string, disk int, dir string) string {
	u := url.URL{
		Scheme: "nbds", Host: a.Address, Path: fmt.Sprintf("/%s/%s/%d", server, point, disk),
		RawQuery: "tls-certificates=" + (&url.URL{Path: dir}).EscapedPath(),
	}
	return u.String()
}

// DiskAccess asks for a certificate of a key that never leaves this machine.
// *Refusal when there is no such disk, and when the server serves none over the network.
func (c *Client) DiskAccess(ctx context.Context, server, point string, disk int) (*DiskAccess, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate request: %w", err)
	}
	body, err := json.Marshal(map[string]any{
		"certificateRequest": string(encodePEM("CERTIFICATE REQUEST", csr)), "server": server, "point": point, "disk": disk,
	})
	if err != nil {
		return nil, err
	}
	answer, err := c.besideWith(ctx, http.MethodPost, body, nil, "disk-access")
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	var granted struct {
		Certificate, Authority, Address string
		Expires                         time.Time
	}
	if err := json.NewDecoder(io.LimitReader(answer.Body, 64<<10)).Decode(&granted); err != nil {
		return nil, fmt.Errorf("read the server's answer: %w", err)
	}
	address, err := c.besides(granted.Address)
	if err != nil {
		return nil, err
	}
	return &DiskAccess{
		Address: address, Expires: granted.Expires,
		authority: []byte(granted.Authority), certificate: []byte(granted.Certificate), key: encodePEM("PRIVATE KEY", der),
	}, nil
}

// besides completes an address of the server that may lack its host.
func (c *Client) besides(address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", fmt.Errorf("the server named %q as its address for disks: %w", address, err)
	}
	if host != "" {
		return address, nil
	}
	endpoint, err := url.Parse(c.endpoint)
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(endpoint.Hostname(), port), nil
}

// Save writes the certificates to dir, under the names by which QEMU, libnbd and
// others look for them. What is there under these names is replaced.
func (a *DiskAccess) Save(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make a directory for certificates: %w", err)
	}
	for _, f := range []struct {
		name string
		text []byte
	}{
		{"ca-cert.pem", a.authority}, {"client-key.pem", a.key}, {"client-cert.pem", a.certificate},
	} {
		if err := (durable.Files{}).WriteFile("keep certificate", filepath.Join(dir, f.name), f.text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
