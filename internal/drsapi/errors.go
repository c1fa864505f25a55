package drsapi

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/iam"
)

// exceptions is the one table from kinds of refusals to exceptions of the API.
// Those that declare a code member say their name in it once more: some clients
// read only that.
var exceptions = map[drs.Kind]struct {
	name   string
	status int
	code   bool
}{
	drs.KindInternal:      {"InternalServerException", http.StatusInternalServerError, false},
	drs.KindValidation:    {"ValidationException", http.StatusBadRequest, true},
	drs.KindNotFound:      {"ResourceNotFoundException", http.StatusNotFound, true},
	drs.KindConflict:      {"ConflictException", http.StatusConflict, true},
	drs.KindQuotaExceeded: {"ServiceQuotaExceededException", http.StatusPaymentRequired, true},
	drs.KindAccessDenied:  {"AccessDeniedException", http.StatusForbidden, true},
	drs.KindUninitialized: {"UninitializedAccountException", http.StatusBadRequest, true},
	drs.KindThrottled:     {"ThrottlingException", http.StatusTooManyRequests, false},
}

// protocolError refuses a request with an error that all AWS services share.
type protocolError struct {
	name    string
	status  int
	message string
}

func (e *protocolError) Error() string { return e.message }

// unparsableError refuses a request that has no meaning at all.
type unparsableError struct{ message string }

func (e *unparsableError) Error() string { return e.message }

func cannotParse(message string) error { return &unparsableError{message} }

// errorBody is the body of every refusal.
type errorBody struct {
	Type         string       `json:"__type"`
	Message      string       `json:"message"`
	Code         string       `json:"code,omitempty"`
	ResourceID   string       `json:"resourceId,omitempty"`
	ResourceType string       `json:"resourceType,omitempty"`
	ServiceCode  string       `json:"serviceCode,omitempty"`
	QuotaCode    string       `json:"quotaCode,omitempty"`
	Reason       string       `json:"reason,omitempty" enum:"unknownOperation,cannotParse,fieldValidationFailed,other"`
	FieldList    []fieldError `json:"fieldList,omitempty"`
}

type fieldError struct {
	Name    string `json:"name"`
	Message string `json:"message"`
}

// WriteError answers a refusal (*drs.Error, *iam.AuthError) in the words of the API. What is no refusal is a
// fault of ours: it goes to the log, and the client learns the request's ID.
func WriteError(w http.ResponseWriter, log *slog.Logger, err error) {
	status, body, retry := describe(err)
	if status == 0 {
		if errors.Is(err, context.Canceled) {
			log.Debug("client went away", "error", err)
		} else {
			log.Error("request failed", "error", err)
		}
		status, body, retry = describe(&drs.Error{
			Kind:    drs.KindInternal,
			Message: "An internal error occurred. The server's log tells the cause under request " + w.Header().Get("X-Amzn-Requestid") + ".",
		})
	}
	w.Header().Set("X-Amzn-Errortype", body.Type)
	if retry > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(retry.Seconds()))))
	}
	text, err := json.Marshal(body)
	if err != nil {
		log.Error("encode error reply", "error", err)
	}
	writeBody(w, log, status, text)
}

// describe puts a refusal into the words of the API; status 0 means that the
// error is none.
func describe(err error) (status int, body errorBody, retry time.Duration) {
	var (
		domain     *drs.Error
		auth       *iam.AuthError
		protocol   *protocolError
		unparsable *unparsableError
	)
	switch {
	case errors.As(err, &auth):
		return auth.Status, errorBody{Type: auth.Code, Message: auth.Message}, 0
	case errors.As(err, &protocol):
		return protocol.status, errorBody{Type: protocol.name, Message: protocol.message}, 0
	case errors.As(err, &unparsable):
		status, body, _ = describe(&drs.Error{Kind: drs.KindValidation, Message: unparsable.message})
		body.Reason = "cannotParse"
		return status, body, 0
	case !errors.As(err, &domain):
		return 0, errorBody{}, 0
	}
	exception := exceptions[domain.Kind]
	body = errorBody{
		Type: exception.name, Message: domain.Message,
		ResourceID: domain.ResourceID, ResourceType: string(domain.ResourceType),
	}
	if exception.code {
		body.Code = exception.name
	}
	switch domain.Kind {
	case drs.KindQuotaExceeded, drs.KindThrottled:
		body.ServiceCode, body.QuotaCode = "drs", string(domain.Quota)
	case drs.KindValidation:
		body.Reason = "other"
		if len(domain.Fields) > 0 {
			body.Reason = "fieldValidationFailed"
		}
		for _, f := range domain.Fields {
			body.FieldList = append(body.FieldList, fieldError{f.Name, f.Message})
		}
	}
	return exception.status, body, domain.RetryAfter
}
