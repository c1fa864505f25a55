package drsapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

// MaxBody is the largest request body that is read; the largest valid request
// is far smaller.
const MaxBody = 1 << 20

// Recovery starts the jobs of an account. It refuses what the state of the
// resources does not allow with *drs.Error. When it returns a job, the job is
// durable and will run, whatever becomes of this process.
type Recovery interface {
	StartRecovery(ctx context.Context, account drs.Account, request drs.StartRecovery) (drs.Job, error)
	TerminateRecoveryInstances(ctx context.Context, account drs.Account, instances []drs.RecoveryInstanceID) (drs.Job, error)
}

// Verifier tells which access key signed a request with this body; it refuses
// with *iam.AuthError.
type Verifier interface {
	Verify(ctx context.Context, r *http.Request, body []byte) (iam.AccessKey, error)
}

// Config is what an API is made of. All members but the last two are required.
type Config struct {
	DB       *db.DB
	Recovery Recovery
	Verifier Verifier
	// PageKey authenticates pagination tokens; it must stay the same for tokens
	// to outlive a restart.
	PageKey []byte
	Log     *slog.Logger
	// InstanceType names the instance type recommended for a machine; nil leaves
	// it out.
	InstanceType func(drs.SourceProperties) string
	// Now is the clock; nil means the system's.
	Now func() time.Time
}

// API serves the operations of the DRS API, and its own description at
// GET /openapi.json, which needs no signature. Safe for concurrent use.
type API struct {
	Config
	operations map[route]*operation
	schemas    huma.Registry
	document   []byte // the OpenAPI document
}

// New makes an API. It fails only on a Config that lacks something.
func New(c Config) (*API, error) {
	if c.DB == nil || c.Recovery == nil || c.Verifier == nil || c.Log == nil || len(c.PageKey) < 16 {
		return nil, errors.New("drs api: DB, Recovery, Verifier, Log and a PageKey of at least 16 bytes are required")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.InstanceType == nil {
		c.InstanceType = func(drs.SourceProperties) string { return "" }
	}
	a := &API{Config: c, operations: map[route]*operation{}, schemas: newRegistry()}
	a.register()
	document, err := json.Marshal(a.openAPI())
	if err != nil {
		return nil, fmt.Errorf("drs api: write OpenAPI document: %w", err)
	}
	a.document = document
	return a, nil
}

// caller is one request's view of the API: the handlers are its methods, so that
// none can run without an account.
type caller struct {
	*API
	account drs.Account
}

// ServeHTTP answers every request; nothing that goes wrong inside shows more
// than the request's ID, under which the log has the cause.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := uuid.NewString()
	log := a.Log.With("request", id)
	w.Header().Set("X-Amzn-Requestid", id)
	defer func() {
		if cause := recover(); cause != nil {
			log.Error("request panicked", "method", r.Method, "path", r.URL.Path, "cause", cause, "stack", string(debug.Stack()))
			WriteError(w, log, errors.New("panic"))
		}
	}()
	if r.Method == http.MethodGet && r.URL.Path == "/openapi.json" {
		writeBody(w, log, http.StatusOK, a.document)
		return
	}
	status, reply, err := a.serve(w, r)
	if err != nil {
		WriteError(w, log, err)
		return
	}
	writeBody(w, log, status, reply)
}

// serve runs one request up to its encoded reply.
func (a *API) serve(w http.ResponseWriter, r *http.Request) (status int, reply []byte, err error) {
	ctx := r.Context()
	body, err := readBody(w, r)
	if err != nil {
		return 0, nil, err
	}
	key, err := a.Verifier.Verify(ctx, r, body)
	if err != nil {
		return 0, nil, err
	}
	op, param, err := a.match(r)
	if err != nil {
		return 0, nil, err
	}
	// Tools take this error for "no DRS here", so it comes before all others.
	if !op.beforeInitialize {
		ready, err := a.DB.Initialized(ctx, key.Account)
		if err != nil {
			return 0, nil, err
		}
		if !ready {
			return 0, nil, drs.Uninitialized()
		}
	}
	input, err := op.read(r, body, param)
	if err != nil {
		return 0, nil, err
	}
	output, err := op.run(caller{API: a, account: key.Account}, ctx, input)
	if err != nil {
		return 0, nil, err
	}
	if op.output == nil {
		return op.status, nil, nil
	}
	reply, err = json.Marshal(output)
	if err != nil {
		return 0, nil, fmt.Errorf("encode reply of %s: %w", op.name, err)
	}
	return op.status, reply, nil
}

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return nil, &protocolError{"MalformedHttpRequestException", http.StatusBadRequest,
			fmt.Sprintf("Content-Encoding %q is not supported; send the body as it is.", encoding)}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, &protocolError{"RequestEntityTooLargeException", http.StatusRequestEntityTooLarge,
			fmt.Sprintf("The request body is larger than %d bytes.", tooLarge.Limit)}
	case err != nil:
		return nil, &protocolError{"RequestAbortedException", http.StatusBadRequest, "The request body ended early."}
	}
	return body, nil
}

func writeBody(w http.ResponseWriter, log *slog.Logger, status int, body []byte) {
	if body != nil {
		w.Header().Set("Content-Type", "application/json")
	}
	w.WriteHeader(status)
	if _, err := w.Write(body); err != nil && len(body) > 0 { //nolint:gosec // JSON, and typed as such: nothing renders it
		log.Debug("client went away", "error", err)
	}
}
