package iam

import (
	"fmt"
	"net/http"
)

// AuthError refuses a request because of its signature. Code, Status and Message
// are those that the clients of the AWS API know.
type AuthError struct {
	Code    string
	Status  int
	Message string
}

func (e *AuthError) Error() string { return e.Code + ": " + e.Message }

// The codes of an AuthError.
const (
	CodeMissingToken       = "MissingAuthenticationTokenException" // 403: not signed at all
	CodeIncomplete         = "IncompleteSignature"                 // 403: the header has no proper form
	CodeUnrecognizedClient = "UnrecognizedClientException"         // 403: unknown access key
	CodeInvalidSignature   = "InvalidSignatureException"           // 403: wrong secret, scope or content
	CodeExpired            = "RequestExpired"                      // 400: the clocks differ too much
	CodeExpiredToken       = "ExpiredTokenException"               // 403: temporary credentials are over
	CodeReplayed           = "InvalidSignatureException"           // 403: the same request came before
)

func refuseAnonymous() *AuthError {
	return &AuthError{CodeMissingToken, http.StatusForbidden, "Missing Authentication Token"}
}

func refuseForm(format string, args ...any) *AuthError {
	return &AuthError{CodeIncomplete, http.StatusForbidden, fmt.Sprintf(format, args...)}
}

func refuseKey(hint string) *AuthError {
	return &AuthError{CodeUnrecognizedClient, http.StatusForbidden, "The security token included in the request is invalid: " + hint + "."}
}

func refuseSignature(format string, args ...any) *AuthError {
	return &AuthError{CodeInvalidSignature, http.StatusForbidden, fmt.Sprintf(format, args...)}
}

func refuseReplay() *AuthError {
	return &AuthError{CodeReplayed, http.StatusForbidden, "This signed request was received before. A signature is good for one change: sign the request anew to make another."}
}

func refuseTime(format string, args ...any) *AuthError {
	return &AuthError{CodeExpired, http.StatusBadRequest, fmt.Sprintf(format, args...)}
}
