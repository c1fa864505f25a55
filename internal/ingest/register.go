package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/iam"
	"lifeboat/internal/replication"
)

// Registrar answers the registration of agents, POST replication.RegisterPath,
// and with GET where they replicate to.
// All fields but Throttle, Record and Logger must be set.
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
	// Throttle refuses registrations to an account that come too fast, with *drs.Error.
	Throttle func(drs.Account) error
	// Record is told of every registration, refused ones too, before it is answered.
	Record func(RegistrationCall)
	Logger *slog.Logger
}

// RegistrationCall is one registration and what became of it.
type RegistrationCall struct {
	Request *http.Request
	Began   time.Time
	// Account is that of the install token; zero: it was none of ours.
	Account drs.Account
	// Machine is what registered, without its token; zero where that was not understood.
	Machine       replication.Registration
	Server        drs.SourceServerID // empty: refused
	Code, Message string             // of the refusal
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
	call := RegistrationCall{Request: r, Began: time.Now()}
	reply, refusal := g.register(r, &call)
	if refusal != nil {
		call.Code, call.Message = refusal.Code, refusal.Message
	} else {
		call.Server = reply.SourceServerID
	}
	if g.Record != nil {
		g.Record(call)
	}
	w.Header().Set("Content-Type", "application/json")
	if refusal != nil {
		if g.Logger != nil {
			g.Logger.Info("registration refused", "remote", r.RemoteAddr, "code", refusal.Code, "err", refusal.cause)
		}
		if refusal.retry > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(refusal.retry.Seconds())+1))
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
	retry time.Duration // how long to wait; 0: it does not matter
}

func refuse(status int, code string, err error) *refusal {
	return &refusal{status: status, cause: err, RegistrationError: replication.RegistrationError{Code: code, Message: err.Error()}}
}

func (g Registrar) register(r *http.Request, call *RegistrationCall) (*replication.Registered, *refusal) {
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
	call.Account, call.Machine = account, reg
	call.Machine.Token = ""
	if g.Throttle != nil {
		if err := g.Throttle(account); err != nil {
			return nil, g.internal("look at the rate of registrations", err)
		}
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
	case drs.KindThrottled:
		status, code = http.StatusTooManyRequests, "ThrottlingException"
	}
	out := refuse(status, code, shown)
	out.retry = shown.RetryAfter
	return out
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
