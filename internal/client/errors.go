package client

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/drs/types"
	"github.com/aws/smithy-go"
)

const getEnvironment = "On the server's host, run `eval \"$(lifeboat env --data DIR)\"` first, or give this command --data DIR"

// Refusal is a request that the server understood and turned down, or a name
// that it knows nothing by. Nothing was changed.
type Refusal struct {
	Code    string // the exception of the DRS API; empty when the client found out itself
	Message string // names the next step
}

func (e *Refusal) Error() string {
	if e.Code == "" {
		return e.Message
	}
	return fmt.Sprintf("the server refused: %s (%s)", strings.TrimSuffix(e.Message, "."), e.Code)
}

// accessDenied is the code of what the caller's policies do not allow.
const accessDenied = "AccessDeniedException"

// Refused tells it from work that failed.
func (e *Refusal) Refused() bool { return true }

func refuse(format string, args ...any) *Refusal {
	return &Refusal{Message: fmt.Sprintf(format, args...)}
}

// UnreachableError: no answer came. The request may have been carried out or not.
type UnreachableError struct {
	Endpoint string
	Next     string
	Err      error
}

func (e *UnreachableError) Error() string {
	return fmt.Sprintf("no answer from %s: %v. %s", e.Endpoint, e.Err, e.Next)
}

func (e *UnreachableError) Unwrap() error { return e.Err }

// explain puts an error of the SDK into words for a person.
func (c *Client) explain(err error) error {
	var api smithy.APIError
	switch {
	case err == nil, errors.Is(err, context.Canceled):
		return err
	case errors.As(err, &api):
		return refusalOf(api)
	}
	return c.unreachable(err)
}

func refusalOf(api smithy.APIError) error {
	message := api.ErrorMessage()
	var invalid *types.ValidationException
	if errors.As(api, &invalid) {
		for _, f := range invalid.FieldList {
			if text := deref(f.Message); text != "" && !strings.Contains(message, text) {
				message += " " + text
			}
		}
	}
	switch api.ErrorCode() {
	case "InternalServerException":
		return fmt.Errorf("the server could not do it: %s. Its log has the cause", strings.TrimSuffix(message, "."))
	case "UninitializedAccountException":
		message = strings.TrimSuffix(message, ".") + ": `lifeboat init` does"
	case "InvalidSignatureException", "UnrecognizedClientException", "SignatureDoesNotMatch",
		"MissingAuthenticationTokenException", "IncompleteSignatureException":
		message = strings.TrimSuffix(message, ".") + ". " + getEnvironment
	}
	return &Refusal{Code: api.ErrorCode(), Message: message}
}

func (c *Client) unreachable(err error) error {
	var (
		unknownCA x509.UnknownAuthorityError
		hostname  x509.HostnameError
		signing   *smithy.OperationError
		op        *net.OpError
	)
	u := &UnreachableError{Endpoint: c.endpoint, Err: err}
	switch {
	case errors.As(err, &unknownCA):
		u.Err, u.Next = unknownCA, "It is another server, or AWS_CA_BUNDLE names an old certificate. "+getEnvironment
	case errors.As(err, &hostname):
		u.Err, u.Next = hostname, "Start the server with --listen on the address you use, so that its certificate covers it"
	case errors.As(err, &op):
		u.Err, u.Next = op, "Is `lifeboat server` running there? If it listens elsewhere now: "+getEnvironment
	case errors.As(err, &signing) && strings.Contains(err.Error(), "get credentials"):
		return fmt.Errorf("no access key is set. %s", getEnvironment)
	default:
		u.Next = "Try again; the server's log may have the cause"
	}
	return u
}

func deref[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}
