package iam

import (
	"context"
	"crypto/tls"
	"log/slog"
	"sync/atomic"
	"time"
)

// CertKeeper holds a server's TLS certificate and replaces it in time, while the
// server runs: new connections have the new one. Safe for concurrent use.
type CertKeeper struct {
	authority *Authority
	dir       string
	hosts     []string
	log       *slog.Logger
	current   atomic.Pointer[tls.Certificate]
}

// renewEvery spaces the looks at the certificate's age; it has two months left
// when it is replaced.
const renewEvery = 12 * time.Hour

// KeepServerCertificate returns the keeper of the certificate that
// ServerCertificate makes.
func (a *Authority) KeepServerCertificate(dir string, hosts []string, log *slog.Logger) (*CertKeeper, error) {
	k := &CertKeeper{authority: a, dir: dir, hosts: hosts, log: log}
	return k, k.Renew()
}

// Renew replaces the certificate if it is time.
func (k *CertKeeper) Renew() error {
	pair, err := k.authority.ServerCertificate(k.dir, k.hosts)
	if err != nil {
		return err
	}
	old := k.current.Swap(&pair)
	if old != nil && !old.Leaf.Equal(pair.Leaf) {
		k.log.Info("the server has a new certificate", "until", pair.Leaf.NotAfter)
	}
	return nil
}

// Run renews the certificate until ctx ends. What fails is tried again: there are
// two months to mend it.
func (k *CertKeeper) Run(ctx context.Context) error {
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := k.Renew(); err != nil {
				k.log.Error("the server's certificate was not renewed", "until", k.current.Load().Leaf.NotAfter, "err", err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// Certificate is the present one.
func (k *CertKeeper) Certificate() tls.Certificate { return *k.current.Load() }

// Serve makes a TLS configuration show the present certificate on each connection.
func (k *CertKeeper) Serve(config *tls.Config) *tls.Config {
	config.Certificates = nil // or GetCertificate would not be asked
	config.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return k.current.Load(), nil }
	return config
}
