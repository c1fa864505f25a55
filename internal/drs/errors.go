package drs

import (
	"fmt"
	"time"
)

// Kind sorts errors by what the caller can do about them. Package drsapi maps
// each kind to the exception of the DRS API that carries it.
type Kind int

const (
	KindInternal Kind = iota
	KindValidation
	KindNotFound
	KindConflict
	KindQuotaExceeded
	KindAccessDenied
	KindUninitialized
	KindThrottled
)

// Error is a refusal meant for the user: its message is safe to show and names
// the next step.
type Error struct {
	Kind    Kind
	Message string
	// ResourceID and ResourceType name what the refusal is about, where one
	// resource is.
	ResourceID   string
	ResourceType ResourceType
	// Quota is set for KindQuotaExceeded and KindThrottled.
	Quota QuotaCode
	// Fields are set for KindValidation.
	Fields []FieldError
	// RetryAfter is set for KindThrottled, and may be for KindInternal.
	RetryAfter time.Duration
}

// FieldError names one member of a request and what is wrong with it.
type FieldError struct {
	Name    string
	Message string
}

func (e *Error) Error() string { return e.Message }

// Conflict refuses a request because of the state that a resource is in.
func Conflict(t ResourceType, id string, format string, args ...any) *Error {
	return &Error{Kind: KindConflict, ResourceType: t, ResourceID: id, Message: fmt.Sprintf(format, args...)}
}

// NotFound refuses a request for a resource that the account does not have.
func NotFound(t ResourceType, id string) *Error {
	return &Error{
		Kind: KindNotFound, ResourceType: t, ResourceID: id,
		Message: fmt.Sprintf("%s %s does not exist in this account and region.", t, id),
	}
}

// Invalid refuses one member of a request.
func Invalid(field, format string, args ...any) *Error {
	message := fmt.Sprintf(format, args...)
	return &Error{
		Kind: KindValidation, Message: message,
		Fields: []FieldError{{Name: field, Message: message}},
	}
}

// Uninitialized refuses every operation of an account that has not called
// InitializeService.
func Uninitialized() *Error {
	return &Error{
		Kind:    KindUninitialized,
		Message: "The account is not initialized for Elastic Disaster Recovery in this region. Call InitializeService first.",
	}
}
