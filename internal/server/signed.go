package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
	"lifeboat/internal/drsapi"
	"lifeboat/internal/iam"
	"lifeboat/internal/iam/policy"
)

type callerKey struct{}

// maxBody bounds what is read of a request before its signature is known, in bytes.
const maxBody = 64 << 10

// gate stands before what lies beside the DRS API: it lets only requests through
// that an access key has signed and whose principal may do what they ask for, and
// records them all.
type gate struct {
	verifier *iam.Verifier
	guard    *iam.Guard
	db       *db.DB
	throttle func(drs.Account, string) error
	record   func(besideCall)
	log      *slog.Logger
}

// need is what a caller must be allowed to do for a request.
type need struct {
	action string // without its prefix lifeboat:
	// resource is what it is done to; its ID * stands for any, the zero value for
	// actions that know no resources.
	resource drs.Resource
}

const besidePrefix = "lifeboat:"

// besideCall is one request beside the DRS API and what became of it.
type besideCall struct {
	id       string
	request  *http.Request
	began    time.Time
	action   string
	key      iam.AccessKey
	status   int
	code     string // of the refusal
	message  string
	readOnly bool
}

// signed puts next behind the gate, with the caller's account in the context of
// its requests. Bodies are short.
func (g *gate) signed(needs func(*http.Request, drs.Account) need, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		call := besideCall{id: uuid.NewString(), request: r, began: time.Now()}
		out := &answered{ResponseWriter: w, status: http.StatusOK}
		out.Header().Set("X-Amzn-Requestid", call.id)
		defer func() {
			call.status, call.code = out.status, out.Header().Get("X-Amzn-Errortype")
			g.record(call)
		}()
		inner, err := g.admit(out, r, needs, &call)
		if err != nil {
			call.message = err.Error()
			drsapi.WriteError(out, g.log, err)
			return
		}
		next.ServeHTTP(out, inner)
	})
}

// admit checks a request and returns it with its account.
func (g *gate) admit(w http.ResponseWriter, r *http.Request, needs func(*http.Request, drs.Account) need, call *besideCall) (*http.Request, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return nil, drs.Invalid("body", "The request's body cannot be read, or is longer than %d bytes.", maxBody)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	key, err := g.verifier.Verify(r.Context(), r, body)
	if err != nil {
		return nil, err
	}
	call.key = key
	n := needs(r, key.Account)
	call.action, call.readOnly = n.action, r.Method == http.MethodGet
	if err := g.throttle(key.Account, besidePrefix+n.action); err != nil {
		return nil, err
	}
	ask, err := g.ask(r, key.Principal, n)
	if err != nil {
		return nil, err
	}
	if n.resource.ID == "*" {
		err = g.guard.AuthorizeEvery(r.Context(), key.Principal, ask)
	} else {
		err = g.guard.Authorize(r.Context(), key.Principal, ask)
	}
	if err != nil {
		return nil, err
	}
	return r.WithContext(context.WithValue(r.Context(), callerKey{}, key)), nil
}

func (g *gate) ask(r *http.Request, p iam.Principal, n need) (iam.Ask, error) {
	c := policy.Context{}
	p.Describe(c)
	iam.Moment(c, time.Now())
	c.Set("aws:RequestedRegion", p.Account.Region)
	c.Set("aws:SecureTransport", strconv.FormatBool(r.TLS != nil))
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		c.Set("aws:SourceIp", host)
	}
	ask := iam.Ask{Action: besidePrefix + n.action, Resource: "*", Context: c}
	if n.resource.ID == "" {
		return ask, nil
	}
	ask.Resource = n.resource.Account.ARN(n.resource.Type, n.resource.ID)
	tags, err := g.db.Tags(r.Context(), n.resource)
	if err != nil && !errors.Is(err, db.ErrAbsent) {
		return ask, err
	}
	for name, value := range tags {
		key := "aws:resourcetag/" + strings.ToLower(name)
		c[key] = append(c[key], value)
	}
	return ask, nil
}

// answered remembers the status of an answer.
type answered struct {
	http.ResponseWriter
	status int
}

func (w *answered) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController through.
func (w *answered) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// caller is the account that signed a request, as the gate found it.
func caller(ctx context.Context) (drs.Account, bool) {
	key, ok := ctx.Value(callerKey{}).(iam.AccessKey)
	return key.Account, ok
}

// onServer, onNetwork and onInstance find the resource in a path below /lifeboat/v1/.
func onServer(action string) func(*http.Request, drs.Account) need {
	return func(r *http.Request, account drs.Account) need {
		return need{action, drs.Resource{Account: account, Type: drs.TypeSourceServer, ID: pathPart(r, 3)}}
	}
}

func onNetwork(action string) func(*http.Request, drs.Account) need {
	return func(r *http.Request, account drs.Account) need {
		return need{action, drs.Resource{Account: account, Type: drs.TypeSourceNetwork, ID: pathPart(r, 3)}}
	}
}

// anyServer is for what reaches all servers of the account.
func anyServer(action string) func(*http.Request, drs.Account) need {
	return func(_ *http.Request, account drs.Account) need {
		return need{action, drs.Resource{Account: account, Type: drs.TypeSourceServer, ID: "*"}}
	}
}

func onInstance(r *http.Request, account drs.Account) need {
	action := "GetRecoveryInstanceConsole"
	switch pathPart(r, 4) {
	case "start", "start-from-vault":
		action = "StartRecoveryInstance"
	case "stop":
		action = "StopRecoveryInstance"
	}
	return need{action, drs.Resource{Account: account, Type: drs.TypeRecoveryInstance, ID: pathPart(r, 3)}}
}

// onNothing is for actions that know no resources.
func onNothing(action string) func(*http.Request, drs.Account) need {
	return func(*http.Request, drs.Account) need { return need{action: action} }
}

// pathPart is the nth part of a path, counted from 0; "none" where there is none.
func pathPart(r *http.Request, n int) string {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if n >= len(parts) || parts[n] == "" {
		return "none"
	}
	return parts[n]
}
