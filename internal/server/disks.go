package server

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/drsapi"
	"lifeboat/internal/iam"
	"lifeboat/internal/iam/policy"
	"lifeboat/internal/recovery/nbd"
	"lifeboat/internal/server/export"
)

// disks serves the disks of recovery points as NBD block devices over TLS, to
// those who hold a certificate that POST /lifeboat/v1/disk-access gave them.
type disks struct {
	listener net.Listener
	server   *nbd.Server
}

// readerConns bounds the connections to disks of recovery points.
const readerConns = 256

// listenDisks opens the port; nil without one.
func (s *running) listenDisks(ctx context.Context) (*disks, error) {
	if s.NBDListen == "" {
		return nil, nil
	}
	l, err := listen(ctx, s.NBDListen, "--nbd-listen")
	if err != nil {
		return nil, err
	}
	return &disks{listener: l}, nil
}

// serveDisks answers until ctx ends. The server's parts must be wired.
func (s *running) serveDisks(ctx context.Context, d *disks) error {
	log := s.Log.With("wing", "disks")
	authority := s.dir.Authority
	d.server = nbd.New(nbd.Config{
		TLS: s.certificates.Serve(authority.ReaderTLS(s.certificates.Certificate())), MaxConns: readerConns, Log: log,
		Open: export.Blocks(export.FromVault(s.vault), s.db, func(ctx context.Context) (drs.Account, error) {
			reader, err := authority.VerifyReader(nbd.PeerCertificates(ctx))
			if err != nil {
				return drs.Account{}, err
			}
			reader.Account.Region = s.dir.Settings.Region
			return reader.Account, s.mayRead(ctx, reader)
		}, log),
	})
	return d.server.Serve(ctx, d.listener)
}

// mayRead refuses a reader whose access key, user, role or right is gone since its
// certificate was issued.
func (s *running) mayRead(ctx context.Context, r iam.Reader) error {
	if r.Key != "" {
		key, err := s.directory.AccessKey(ctx, r.Key)
		if errors.Is(err, iam.ErrUnknownKey) || err == nil && key.Principal != r.Principal {
			return iam.ErrNotReader
		}
		if err != nil {
			return err
		}
	}
	all := drs.Resource{Account: r.Account, Type: drs.TypeSourceServer, ID: "*"}
	c := policy.Context{}
	r.Describe(c)
	iam.Moment(c, time.Now())
	c.Set("aws:RequestedRegion", r.Account.Region)
	c.Set("aws:SecureTransport", "true")
	if at := nbd.PeerAddress(ctx); at != nil {
		if host, _, err := net.SplitHostPort(at.String()); err == nil {
			c.Set("aws:SourceIp", host)
		}
	}
	return s.gate.guard.AuthorizeEvery(ctx, r.Principal, iam.Ask{
		Action: besidePrefix + "ExportDisk", Resource: all.Account.ARN(all.Type, all.ID), Context: c,
	})
}

// diskAccess gives whoever signed the request a certificate with which to read
// the disks of the account's recovery points for a while.
//
// Who names a disk learns at once when there is none.
//
//	POST /lifeboat/v1/disk-access {"certificateRequest": "-----BEGIN …", "server": "s-…", "point": "pit-…", "disk": 0}
type diskAccess struct {
	authority *iam.Authority
	check     func(context.Context, drs.Account, drs.SourceServerID, drs.RecoverySnapshotID, int) error
	listener  net.Listener // nil: disks are not served
	log       *slog.Logger
}

// granted is the answer: PEM texts, and where to go. An address without a host
// means that of the API.
type granted struct {
	Certificate string    `json:"certificate"`
	Authority   string    `json:"authority"`
	Address     string    `json:"address"`
	Expires     time.Time `json:"expires"`
}

func (h *diskAccess) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer, err := h.grant(r)
	if err != nil {
		drsapi.WriteError(w, h.log, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer) // a client that left needs no answer
}

func (h *diskAccess) grant(r *http.Request) (g granted, err error) {
	key, ok := r.Context().Value(callerKey{}).(iam.AccessKey)
	if !ok {
		return g, errors.New("a request without an account reached a signed handler")
	}
	if h.listener == nil {
		return g, drs.Conflict("", "", "This server serves no disks over the network: start it with --nbd-listen HOST:PORT, or use `lifeboat export`.")
	}
	var asked struct {
		CertificateRequest string                 `json:"certificateRequest"`
		Server             drs.SourceServerID     `json:"server"`
		Point              drs.RecoverySnapshotID `json:"point"`
		Disk               int                    `json:"disk"`
	}
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
		return g, drs.Invalid("body", "The body is no JSON document with a certificateRequest: %v.", err)
	}
	if asked.Server != "" {
		if err := h.check(r.Context(), key.Account, asked.Server, asked.Point, asked.Disk); err != nil {
			return g, err
		}
	}
	certificate, expires, err := h.authority.IssueReader([]byte(asked.CertificateRequest), key, iam.ReaderCertificateLife)
	if errors.Is(err, iam.ErrBadRequest) {
		return g, drs.Invalid("certificateRequest", "%v.", err)
	}
	if err != nil {
		return g, err
	}
	h.log.Info("gave a certificate for reading disks", "caller", key.ARN(), "expires", expires)
	return granted{string(certificate), string(h.authority.CertPEM()), advertised(h.listener.Addr().String()), expires}, nil
}
