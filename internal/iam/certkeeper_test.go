package iam

import (
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"
)

// A server that runs for years shows a certificate that is good at any time.
func TestCertKeeper(t *testing.T) {
	dir := t.TempDir()
	authority, err := CreateAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	authority.SetClock(func() time.Time { return now })
	keeper, err := authority.KeepServerCertificate(dir, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", keeper.Serve(&tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{keeper.Certificate()}}))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				go func() { _, _ = io.Copy(conn, conn); conn.Close() }()
			}
		}
	}()
	serials := map[string]bool{}
	for range 40 { // months
		conn, err := tls.Dial("tcp", listener.Addr().String(), &tls.Config{RootCAs: authority.Pool(), Time: func() time.Time { return now }})
		if err != nil {
			t.Fatalf("at %s: %v", now, err)
		}
		serials[conn.ConnectionState().PeerCertificates[0].SerialNumber.String()] = true
		conn.Close()
		now = now.Add(30 * 24 * time.Hour)
		if err := keeper.Renew(); err != nil {
			t.Fatal(err)
		}
	}
	if len(serials) < 3 || len(serials) > 5 {
		t.Errorf("%d certificates in 40 months", len(serials))
	}
}
