package s3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"

	"github.com/minio/minio-go/v7"

	"lifeboat/internal/vault/blob"
)

var (
	// ErrCredentials and ErrUnreachable are the blob package's.
	ErrCredentials = blob.ErrCredentials
	ErrUnreachable = blob.ErrUnreachable
	// ErrCannotFence: two writers could both believe to have created one object.
	ErrCannotFence = errors.New("the store does not keep what a vault relies on: use one that honours If-None-Match on PutObject " +
		"(Amazon S3, MinIO, Ceph, versitygw), or keep the vault in a directory with --vault file:DIR")
)

// errStalled ends an attempt in which no byte moved for too long.
var errStalled = errors.New("no answer in time")

// kind names the answer of a store as what it means for the caller. The result is
// one of: blob.ErrAbsent, blob.ErrExists, blob.ErrNoSpace, blob.ErrReadOnly,
// ErrCredentials, ErrUnreachable (to be tried again), the context's error, or one
// that asking again will not change.
func kind(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrCredentials) {
		return err
	}
	var answer minio.ErrorResponse
	if !errors.As(err, &answer) {
		return connectionKind(err)
	}
	with := func(kind error) error { return fmt.Errorf("%w (%s)", kind, answerText(answer)) }
	switch answer.Code {
	case "NoSuchBucket":
		return fmt.Errorf("%w: there is no bucket %s: create it, or check the location (%s)", blob.ErrGone, answer.BucketName, answerText(answer))
	case "NoSuchKey":
		return blob.ErrAbsent
	case "PreconditionFailed":
		return blob.ErrExists
	case "ConditionalRequestConflict", "OperationAborted", "RequestTimeout", "SlowDown", "ServiceUnavailable", "InternalError", "Throttling":
		return with(ErrUnreachable)
	case "QuotaExceeded", "NoSpaceLeftOnDevice", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "EntityTooLargeForQuota":
		return with(blob.ErrNoSpace)
	case "InvalidAccessKeyId", "XAdminUserNotFound", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "InvalidClientTokenId", "TokenRefreshRequired":
		return with(fmt.Errorf("%w: the store refuses them: check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile, and start again", ErrCredentials))
	case "RequestTimeTooSkewed":
		return with(fmt.Errorf("%w: set this machine's clock right", blob.ErrClock))
	case "AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException", "InvalidRegion":
		return with(errors.New("the bucket belongs to another region or endpoint: name it with region=NAME in the location"))
	case "AllAccessDisabled", "AccessDenied", "MethodNotAllowed":
		return with(errDenied)
	}
	switch status := answer.StatusCode; {
	case status == http.StatusInsufficientStorage:
		return with(blob.ErrNoSpace)
	case status == http.StatusNotFound:
		return with(errRefused) // by whom? an object that is absent has a name for it
	case status == http.StatusNotImplemented, status == http.StatusHTTPVersionNotSupported:
		return with(fmt.Errorf("%w: the store does not know this request", errRefused))
	case status == http.StatusConflict: // somebody else is at that name or folder right now
		return with(ErrUnreachable)
	case status >= 500, status == http.StatusTooManyRequests, status == http.StatusRequestTimeout, status == 0:
		return with(ErrUnreachable)
	case status == http.StatusForbidden, status == http.StatusUnauthorized:
		return with(errDenied)
	}
	return with(errRefused)
}

// errRefused: the store answered no, for a reason that has no name here.
var errRefused = errors.New("the store refuses the request")

// errDenied: these keys may not do that. For a write it means blob.ErrReadOnly.
var errDenied = fmt.Errorf("%w: allow these credentials to list, read, create and delete objects of the bucket", blob.ErrDenied)

func answerText(a minio.ErrorResponse) string {
	text := fmt.Sprintf("%d %s", a.StatusCode, a.Code)
	if a.Message != "" {
		text += ": " + blob.Short(a.Message, 200)
	}
	return text
}

// connectionKind is kind for errors that no store spoke.
func connectionKind(err error) error {
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	schemes := errors.Is(err, http.ErrSchemeMismatch)
	switch {
	case errors.As(err, &authority):
		return fmt.Errorf("%w: %w: name the file of the store's certificate authority with ca-cert=FILE in the location, or in AWS_CA_BUNDLE", blob.ErrUntrusted, err)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Errorf("%w: it has expired, or one of the two clocks is wrong: renew it: %w", blob.ErrUntrusted, err)
	case errors.As(err, &host), errors.As(err, &invalid):
		return fmt.Errorf("%w: it is not for this endpoint: %w", blob.ErrUntrusted, err)
	case schemes, errors.As(err, &record):
		return fmt.Errorf("%w: the endpoint does not speak TLS: name it with http://", err)
	}
	return fmt.Errorf("%w (%w)", ErrUnreachable, err)
}

// writeKind is kind for requests that change something.
func writeKind(err error) error {
	if errors.Is(err, errDenied) {
		return fmt.Errorf("%w: %w", blob.ErrReadOnly, err)
	}
	return err
}
