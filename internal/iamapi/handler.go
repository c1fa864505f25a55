// Package iamapi speaks the query protocol of the AWS IAM and STS APIs, as much of
// it as it takes to manage the users, roles, policies and access keys of an
// account and to live on temporary credentials: `aws iam`, `aws sts`, the
// credential chains of the SDKs and infrastructure-as-code tools work with it
// unchanged.
//
// Both services answer on one address; what a request is signed for tells them
// apart. docs/access.md lists the actions.
package iamapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"mime"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"lifeboat/internal/drs"
	"lifeboat/internal/iam"
	"lifeboat/internal/iam/directory"
	"lifeboat/internal/iam/policy"
)

// Config is what a Handler is made of. All but Replays, Throttle, Record and Now
// are required.
type Config struct {
	Directory *directory.Directory
	Guard     *iam.Guard
	Sessions  *iam.Sessions
	Replays   *iam.Replays // nil: a memory of its own
	Region    string
	Log       *slog.Logger
	// Throttle refuses requests that come too fast, with *drs.Error.
	Throttle func(account drs.Account, operation string) error
	// Record is told of every request, once it is answered.
	Record func(Call)
	Now    func() time.Time
}

// Call is one request and what became of it.
type Call struct {
	ID            string
	Request       *http.Request
	Began         time.Time
	Service       string // iam or sts; empty when the request tells neither
	Operation     string // empty: the request named none
	ReadOnly      bool
	Key           iam.AccessKey // zero for a request that was refused before it was known
	Input         url.Values
	Status        int
	Code, Message string // of the refusal
}

// Handler serves requests. Safe for concurrent use.
type Handler struct {
	Config
	verifiers map[string]*iam.Verifier
}

const (
	serviceIAM = "iam"
	serviceSTS = "sts"
	maxBody    = 256 << 10
)

// New makes a Handler.
func New(c Config) *Handler {
	if c.Now == nil {
		c.Now = time.Now
	}
	h := &Handler{Config: c, verifiers: map[string]*iam.Verifier{}}
	for _, service := range []string{serviceIAM, serviceSTS} {
		h.verifiers[service] = &iam.Verifier{
			Service: service, Region: c.Region, Global: true, Keys: c.Directory, Sessions: c.Sessions, Replays: c.Replays, Now: c.Now,
			Once: func(r *http.Request, body []byte) bool {
				form, err := parseForm(r, body)
				return err == nil && service == serviceIAM && !actions[service+":"+form.Get("Action")].readOnly
			},
		}
	}
	return h
}

// Serves tells whether a request is for IAM or STS. Nothing is checked.
func Serves(r *http.Request) bool {
	if r.URL.Path != "/" {
		return false
	}
	switch iam.SignedService(r) {
	case serviceIAM, serviceSTS:
		return true
	}
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && kind == "application/x-www-form-urlencoded" || r.URL.Query().Has("Action")
}

// ServeHTTP answers every request; what goes wrong inside is told to the log only.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	call := &Call{ID: uuid.NewString(), Request: r, Began: h.Now()}
	log := h.Log.With("request", call.ID)
	w.Header().Set("X-Amzn-Requestid", call.ID)
	result, err := h.guarded(w, r, call, log)
	if err != nil {
		refusal := describe(err)
		if refusal.status >= http.StatusInternalServerError && !errors.Is(err, context.Canceled) {
			log.Error("request failed", "error", err)
		}
		call.Status, call.Code, call.Message = refusal.status, refusal.Code, refusal.Message
		if refusal.retry > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(refusal.retry.Seconds())+1))
		}
		h.record(call)
		writeError(w, log, call, refusal)
		return
	}
	call.Status = http.StatusOK
	h.record(call)
	writeResult(w, log, call, result)
}

func (h *Handler) record(call *Call) {
	if h.Record != nil {
		h.Record(*call)
	}
}

// guarded turns a fault of ours into an error.
func (h *Handler) guarded(w http.ResponseWriter, r *http.Request, call *Call, log *slog.Logger) (result any, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			log.Error("request panicked", "cause", cause, "stack", string(debug.Stack()))
			err = errors.New("panic")
		}
	}()
	return h.serve(w, r, call)
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request, call *Call) (any, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return nil, &refusal{status: http.StatusBadRequest, Code: "MalformedInput", Message: fmt.Sprintf("The request body cannot be read, or has more than %d bytes.", maxBody)}
	}
	call.Service = iam.SignedService(r)
	verifier := h.verifiers[call.Service]
	if verifier == nil { // to say what is wrong with the signature
		verifier = h.verifiers[serviceSTS]
	}
	key, err := verifier.Verify(r.Context(), r, body)
	if err != nil {
		return nil, err
	}
	call.Key = key
	if call.Input, err = parseForm(r, body); err != nil {
		return nil, err
	}
	name := call.Input.Get("Action")
	action, ok := actions[call.Service+":"+name]
	if !ok {
		return nil, &refusal{status: http.StatusBadRequest, Code: "InvalidAction", Message: fmt.Sprintf(
			"Could not find operation %.64q of %s: this server has only those that docs/access.md lists.", name, call.Service)}
	}
	call.Operation, call.ReadOnly = name, action.readOnly
	if h.Throttle != nil {
		if err := h.Throttle(key.Account, call.Service+":"+name); err != nil {
			return nil, err
		}
	}
	if call.Input.Has("Tags.member.1.Key") && !action.readOnly {
		return nil, &refusal{status: http.StatusBadRequest, Code: "ValidationError", Message: "Tags of users, roles, groups and policies are not kept here: leave them out."}
	}
	q := &request{Handler: h, Call: call, form: call.Input, account: key.Account.ID}
	if action.resource != nil { // STS decides by itself
		resource := action.resource(q)
		if err := h.Guard.Authorize(r.Context(), key.Principal, iam.Ask{Action: call.Service + ":" + name, Resource: resource, Context: q.context()}); err != nil {
			return nil, err
		}
	}
	return action.run(q)
}

// parseForm reads the parameters of body and query. One that is given twice is
// refused: the signature covers both, but who reads which is anybody's guess.
func parseForm(r *http.Request, body []byte) (url.Values, error) {
	form, err := url.ParseQuery(string(body))
	if err == nil {
		var query url.Values
		query, err = url.ParseQuery(r.URL.RawQuery)
		maps.DeleteFunc(query, func(name string, _ []string) bool { return strings.HasPrefix(name, "X-Amz-") })
		for name, values := range query {
			form[name] = append(form[name], values...)
		}
	}
	if err != nil {
		return nil, &refusal{status: http.StatusBadRequest, Code: "MalformedQueryString", Message: "The parameters are not properly encoded."}
	}
	for name, values := range form {
		if len(values) > 1 {
			return nil, &refusal{status: http.StatusBadRequest, Code: "MalformedQueryString", Message: fmt.Sprintf("Parameter %.64q is given twice.", name)}
		}
	}
	return form, nil
}

// request is one call as its action sees it.
type request struct {
	*Handler
	*Call
	form    url.Values
	account string
}

func (q *request) ctx() context.Context { return q.Request.Context() }

// context is what conditions may ask about the request.
func (q *request) context() policy.Context {
	c := policy.Context{}
	q.Key.Describe(c)
	iam.Moment(c, q.Now())
	c.Set("aws:RequestedRegion", q.Region)
	c.Set("aws:ViaAWSService", "false")
	c.Set("aws:SecureTransport", strconv.FormatBool(q.Request.TLS != nil))
	if host, _, err := net.SplitHostPort(q.Request.RemoteAddr); err == nil {
		c.Set("aws:SourceIp", host)
	}
	if agent := q.Request.UserAgent(); agent != "" {
		c.Set("aws:UserAgent", agent)
	}
	return c
}

// need returns a parameter that must be there.
func (q *request) need(name string) (string, error) {
	value := q.form.Get(name)
	if value == "" {
		return "", &refusal{status: http.StatusBadRequest, Code: "ValidationError", Message: "1 validation error detected: Value at '" + lowerFirst(name) + "' failed to satisfy constraint: Member must not be null"}
	}
	return value, nil
}

func lowerFirst(s string) string { return strings.ToLower(s[:1]) + s[1:] }
