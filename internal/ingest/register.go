package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"

	"lifeboat/internal/drs"
	"lifeboat/internal/iam"
	"lifeboat/internal/replication"
)

// Registrar answers the registration of agents, POST replication.RegisterPath,
// and with GET where they replicate to.
// All fields but Logger must be set.
type Registrar struct {
	// CheckToken returns the account that an install token registers to. Its
	// errors are shown to the user and tell the next step.
	CheckToken func(token string) (drs.Account, error)
	// Register returns the account's source server for the machine: a known one
	// when the hardware ID is. *drs.Error refusals are shown to the user.
	Register func(ctx context.Context, account drs.Account, r replication.Registration) (drs.SourceServerID, error)
	// CreateServer makes the server's place in the vault, where there is none.
	CreateServer func(ctx context.Context, server drs.SourceServerID) error
	// IssueAgent signs the key of a PEM request; iam.ErrBadRequest is the requester's
	// fault. From then on the certificate alone speaks for the server.
	IssueAgent func(ctx context.Context, csr []byte, account string, server drs.SourceServerID) (certPEM []byte, err error)
	CA         []byte // PEM of the authority that agents trust
	// Address is where agents replicate to, host:port; without a host they use
	// the one they registered at.
	Address string
	Logger  *slog.Logger
}

// limits of an inventory, as the DRS API has them
const (
	maxInterfaces = 32
	maxProcessors = 256
	maxHardwareID = 256
)

func (g Registrar) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet {
		w.Header().Set("Content-Type", "application/json")
		// Here and below, an answer that does not arrive is the peer's loss.
		_ = json.NewEncoder(w).Encode(replication.Whereabouts{ReplicationAddress: g.Address})
		return
	}
	reply, refusal := g.register(r)
	w.Header().Set("Content-Type", "application/json")
	if refusal != nil {
		if g.Logger != nil {
			g.Logger.Info("registration refused", "remote", r.RemoteAddr, "code", refusal.Code, "err", refusal.cause)
		}
		w.WriteHeader(refusal.status)
		_ = json.NewEncoder(w).Encode(refusal.RegistrationError)
		return
	}
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(reply)
}

type refusal struct {
	status int
	cause  error
	replication.RegistrationError
}

func refuse(status int, code string, err error) *refusal {
	return &refusal{status, err, replication.RegistrationError{Code: code, Message: err.Error()}}
}

func (g Registrar) register(r *http.Request) (*replication.Registered, *refusal) {
	if r.Method != http.MethodPost {
		return nil, refuse(http.StatusMethodNotAllowed, "MethodNotAllowed", errors.New("register with POST"))
	}
	raw, err := io.ReadAll(io.LimitReader(r.Body, replication.MaxRegistration+1))
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "ValidationException", err)
	}
	if len(raw) > replication.MaxRegistration {
		return nil, refuse(http.StatusRequestEntityTooLarge, "ValidationException",
			fmt.Errorf("a registration has at most %d bytes", replication.MaxRegistration))
	}
	var reg replication.Registration
	if err := json.Unmarshal(raw, &reg); err != nil {
		return nil, refuse(http.StatusBadRequest, "ValidationException", fmt.Errorf("the registration is not JSON of the expected form: %w", err))
	}
	account, err := g.CheckToken(reg.Token)
	if err != nil {
		return nil, refuse(http.StatusUnauthorized, "AccessDeniedException", err)
	}
	if err := checkRegistration(reg); err != nil {
		return nil, refuse(http.StatusBadRequest, "ValidationException", err)
	}
	server, err := g.Register(r.Context(), account, reg)
	if err != nil {
		return nil, g.internal("register source server", err)
	}
	if err := g.CreateServer(r.Context(), server); err != nil {
		return nil, g.internal("make room in the vault", err)
	}
	cert, err := g.IssueAgent(r.Context(), []byte(reg.CSR), account.ID, server)
	if errors.Is(err, iam.ErrBadRequest) {
		return nil, refuse(http.StatusBadRequest, "ValidationException", err)
	}
	if err != nil {
		return nil, g.internal("issue a certificate", err)
	}
	return &replication.Registered{
		SourceServerID: server, Certificate: string(cert), CA: string(g.CA), ReplicationAddress: g.Address,
	}, nil
}

// internal shows refusals that are meant for the user, and no other cause.
func (g Registrar) internal(what string, err error) *refusal {
	var shown *drs.Error
	if !errors.As(err, &shown) {
		out := refuse(http.StatusInternalServerError, "InternalServerException",
			fmt.Errorf("the server could not %s: see its log, and register again", what))
		out.cause = err
		if g.Logger != nil {
			g.Logger.Error("registration", "step", what, "err", err)
		}
		return out
	}
	status, code := http.StatusBadRequest, "ValidationException"
	switch shown.Kind {
	case drs.KindUninitialized:
		code = "UninitializedAccountException"
	case drs.KindQuotaExceeded:
		status, code = http.StatusPaymentRequired, "ServiceQuotaExceededException"
	case drs.KindConflict:
		status, code = http.StatusConflict, "ConflictException"
	case drs.KindAccessDenied:
		status, code = http.StatusForbidden, "AccessDeniedException"
	case drs.KindNotFound:
		status, code = http.StatusNotFound, "ResourceNotFoundException"
	}
	return refuse(status, code, shown)
}

func checkRegistration(r replication.Registration) error {
	p := r.Inventory
	switch {
	case r.HardwareID == "" || len(r.HardwareID) > maxHardwareID:
		return fmt.Errorf("hardwareID must have 1 to %d characters", maxHardwareID)
	case p.Hostname == "" || len(p.Hostname) > 256:
		return errors.New("inventory.hostname must have 1 to 256 characters")
	case len(p.Disks) == 0 || len(p.Disks) > replication.MaxDisks:
		return fmt.Errorf("inventory.disks must have 1 to %d members", replication.MaxDisks)
	case len(p.NetworkInterfaces) > maxInterfaces:
		return fmt.Errorf("inventory.networkInterfaces must have at most %d members", maxInterfaces)
	case len(p.CPUs) > maxProcessors || p.RAMBytes < 0:
		return errors.New("inventory.cpus or inventory.ramBytes is out of range")
	}
	for _, d := range p.Disks {
		if d.Device == "" || len(d.Device) > replication.MaxDevice || d.Bytes <= 0 {
			return errors.New("inventory.disks: each needs a device and a size in bytes")
		}
	}
	return nil
}
