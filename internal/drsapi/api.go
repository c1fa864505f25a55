package drsapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
	"lifeboat/internal/iam"
)

// Recovery starts the jobs of an account. It refuses what the state of the
// resources does not allow with *drs.Error. When it returns a job, the job is
// durable and will run, whatever becomes of this process.
type Recovery interface {
	StartRecovery(ctx context.Context, account drs.Account, request drs.StartRecovery) (drs.Job, error)
	TerminateRecoveryInstances(ctx context.Context, account drs.Account, instances []drs.RecoveryInstanceID) (drs.Job, error)
	// DisconnectInstance and ReleaseInstance leave the instance's machine running;
	// a released instance is not listed any more.
	DisconnectInstance(ctx context.Context, account drs.Account, id drs.RecoveryInstanceID) error
	ReleaseInstance(ctx context.Context, account drs.Account, id drs.RecoveryInstanceID) error
}

// Protection carries out orders about the protection of source servers, and
// refuses what their state does not allow with *drs.Error. An order that was taken
// is durable.
type Protection interface {
	Stop(ctx context.Context, account drs.Account, id drs.SourceServerID) (drs.SourceServer, error)
	Start(ctx context.Context, account drs.Account, id drs.SourceServerID) (drs.SourceServer, error)
	Retry(ctx context.Context, account drs.Account, id drs.SourceServerID) (drs.SourceServer, error)
	Disconnect(ctx context.Context, account drs.Account, id drs.SourceServerID) (drs.SourceServer, error)
	Delete(ctx context.Context, account drs.Account, id drs.SourceServerID) error
	// Extend makes a source server of the account that stands for one of another.
	Extend(ctx context.Context, account drs.Account, arn string, tags drs.Tags) (drs.SourceServer, error)
	// MayExtend refuses when the staging account does not let the account do that.
	MayExtend(ctx context.Context, staging, account drs.Account) error
	// Reconfigured makes a changed replication configuration take effect.
	Reconfigured(drs.SourceServer)
}

// Verifier tells which access key signed a request with this body; it refuses
// with *iam.AuthError.
type Verifier interface {
	Verify(ctx context.Context, r *http.Request, body []byte) (iam.AccessKey, error)
}

// Config is what an API is made of. Members are required unless they say what
// leaving them out means.
type Config struct {
	DB         *db.DB
	Recovery   Recovery
	Protection Protection
	Plans      Plans
	Networks   Networks
	Verifier   Verifier
	// PageKey authenticates pagination tokens; it must stay the same for tokens
	// to outlive a restart.
	PageKey []byte
	Log     *slog.Logger
	// Access decides what each caller may do; without it, everything in its account.
	Access Authorizer
	// Throttle refuses requests that come too fast, with *drs.Error; nil lets all
	// through.
	Throttle func(account drs.Account, operation string) error
	// Record is told of every request, once it is answered, refused ones too; nil
	// tells nobody.
	Record func(Call)
	// InstanceType names the instance type recommended for a machine; nil leaves
	// it out.
	InstanceType func(drs.SourceProperties) string
	// Now is the clock; nil means the system's.
	Now func() time.Time
}

// API serves the operations of the DRS API, and its own description at
// GET /openapi.json and ReferencePath, which need no signature. Safe for concurrent use.
type API struct {
	Config
	operations map[route]*operation
	schemas    huma.Registry
	document   []byte        // the OpenAPI document
	page       []byte        // the same for people
	large      chan struct{} // one slot per large body being read
}

// New makes an API. It fails only on a Config that lacks something.
func New(c Config) (*API, error) {
	if c.DB == nil || c.Recovery == nil || c.Protection == nil || c.Plans == nil || c.Networks == nil || c.Verifier == nil || c.Log == nil || len(c.PageKey) < 16 {
		return nil, errors.New("drs api: DB, Recovery, Protection, Plans, Networks, Verifier, Log and a PageKey of at least 16 bytes are required")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.InstanceType == nil {
		c.InstanceType = func(drs.SourceProperties) string { return "" }
	}
	a := &API{Config: c, operations: map[route]*operation{}, schemas: newRegistry(), large: make(chan struct{}, largeBodies)}
	a.register()
	document, err := json.Marshal(a.openAPI())
	if err != nil {
		return nil, fmt.Errorf("drs api: write OpenAPI document: %w", err)
	}
	a.document = document
	if a.page, err = a.reference(); err != nil {
		return nil, fmt.Errorf("drs api: %w", err)
	}
	return a, nil
}

// Call is one request and what became of it.
type Call struct {
	ID        string // of the request
	Request   *http.Request
	Began     time.Time
	Operation string // empty: the request named none
	// Key is who signed it; zero for one that was refused before that was known.
	Key iam.AccessKey
	// Input is the checked input, nil where it was not understood; Output the reply
	// as JSON, nil for a listing that is sent in pieces.
	Input  map[string]any
	Output []byte
	Status int
	// Code and Message tell the refusal; empty when there was none.
	Code, Message string
}

// caller is one request's view of the API: the handlers are its methods, so that
// none can run without an account.
type caller struct {
	*API
	account drs.Account
	host    string // by which the client reached us
}

// ServeHTTP answers every request; nothing that goes wrong inside shows more
// than the request's ID, under which the log has the cause.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := uuid.NewString()
	log := a.Log.With("request", id)
	w.Header().Set("X-Amzn-Requestid", id)
	call := Call{ID: id, Request: r, Began: a.Now()}
	defer func() {
		if cause := recover(); cause != nil {
			log.Error("request panicked", "method", r.Method, "path", r.URL.Path, "cause", cause, "stack", string(debug.Stack()))
			a.refuse(w, log, &call, errors.New("panic"))
		}
	}()
	if r.Method == http.MethodGet && r.URL.Path == "/openapi.json" {
		writeBody(w, log, http.StatusOK, a.document)
		return
	}
	if r.Method == http.MethodGet && r.URL.Path == ReferencePath {
		servePage(w, a.page)
		return
	}
	reply, err := a.serve(w, r, &call)
	if err != nil {
		a.refuse(w, log, &call, err)
		return
	}
	a.record(call)
	writeBody(w, log, call.Status, reply...)
}

func (a *API) refuse(w http.ResponseWriter, log *slog.Logger, call *Call, err error) {
	var body errorBody
	call.Status, body, _ = describe(err)
	if call.Status == 0 {
		call.Status, body = http.StatusInternalServerError, errorBody{Type: exceptions[drs.KindInternal].name, Message: "An internal error occurred."}
	}
	call.Output, call.Code, call.Message = nil, body.Type, body.Message
	a.record(*call)
	WriteError(w, log, err)
}

func (a *API) record(call Call) {
	if a.Record != nil {
		a.Record(call)
	}
}

// serve runs one request up to its encoded reply, which it returns in pieces.
func (a *API) serve(w http.ResponseWriter, r *http.Request, call *Call) ([][]byte, error) {
	ctx := r.Context()
	body, err := a.readBody(w, r)
	if err != nil {
		return nil, err
	}
	key, err := a.Verifier.Verify(ctx, r, body)
	if err != nil {
		return nil, err
	}
	call.Key = key
	op, param, err := a.match(r)
	if err != nil {
		return nil, err
	}
	call.Operation = op.name
	if a.Throttle != nil {
		if err := a.Throttle(key.Account, op.name); err != nil {
			return nil, err
		}
	}
	input, invalid := op.read(r, body, param)
	call.Input = input
	if err := a.authorize(ctx, key.Principal, op, r, input, invalid != nil); err != nil {
		return nil, err
	}
	// Tools take this error for "no DRS here", so it comes before all that follow.
	if !op.beforeInitialize {
		ready, err := a.DB.Initialized(ctx, key.Account)
		if err != nil {
			return nil, err
		}
		if !ready {
			return nil, drs.Uninitialized()
		}
	}
	if invalid != nil {
		return nil, invalid
	}
	output, err := op.run(caller{API: a, account: key.Account, host: r.Host}, ctx, input)
	if err != nil {
		return nil, err
	}
	call.Status = op.status
	if op.output == nil {
		return nil, nil
	}
	if large, ok := output.(inPieces); ok {
		return large.pieces(), nil
	}
	if call.Output, err = json.Marshal(output); err != nil {
		return nil, fmt.Errorf("encode reply of %s: %w", op.name, err)
	}
	return [][]byte{call.Output}, nil
}
