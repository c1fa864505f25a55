package iamapi

import (
	"bytes"
	"encoding/xml"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/iam"
	"lifeboat/internal/iam/directory"
)

var namespaces = map[string]string{
	serviceIAM: "https://iam.amazonaws.com/doc/2010-05-08/",
	serviceSTS: "https://sts.amazonaws.com/doc/2011-06-15/",
}

// refusal is an error in the words of the query protocol.
type refusal struct {
	status  int
	retry   time.Duration
	Code    string
	Message string
}

func (r *refusal) Error() string { return r.Message }

// queryCodes are the words of the query protocol for errors that the JSON
// protocols name otherwise.
var queryCodes = map[string]string{
	iam.CodeMissingToken:       "MissingAuthenticationToken",
	iam.CodeUnrecognizedClient: "InvalidClientTokenId",
	iam.CodeInvalidSignature:   "SignatureDoesNotMatch",
	iam.CodeExpired:            "SignatureDoesNotMatch",
	iam.CodeExpiredToken:       "ExpiredToken",
}

var statuses = map[string]int{
	directory.CodeAbsent: http.StatusNotFound, directory.CodeExists: http.StatusConflict,
	directory.CodeLimit: http.StatusConflict, directory.CodeConflict: http.StatusConflict,
	"AccessDenied": http.StatusForbidden,
}

// describe puts any error into the words of the protocol.
func describe(err error) *refusal {
	var (
		own    *refusal
		auth   *iam.AuthError
		domain *drs.Error
		kept   *directory.Error
	)
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &auth):
		code := auth.Code
		if other, ok := queryCodes[code]; ok {
			code = other
		}
		return &refusal{status: http.StatusForbidden, Code: code, Message: auth.Message}
	case errors.As(err, &kept):
		status := statuses[kept.Code]
		if status == 0 {
			status = http.StatusBadRequest
		}
		return &refusal{status: status, Code: kept.Code, Message: kept.Message}
	case errors.As(err, &domain) && domain.Kind == drs.KindAccessDenied:
		return &refusal{status: http.StatusForbidden, Code: "AccessDenied", Message: domain.Message}
	case errors.As(err, &domain) && domain.Kind == drs.KindThrottled:
		return &refusal{status: http.StatusTooManyRequests, retry: domain.RetryAfter, Code: "Throttling", Message: domain.Message}
	}
	return &refusal{status: http.StatusInternalServerError, Code: "ServiceFailure", Message: "An internal error occurred. The server's log tells the cause."}
}

func writeError(w http.ResponseWriter, log *slog.Logger, call *Call, r *refusal) {
	type inner struct{ Type, Code, Message string }
	kind := "Sender"
	if r.status >= http.StatusInternalServerError {
		kind = "Receiver"
	}
	space := namespaces[call.Service]
	if space == "" {
		space = namespaces[serviceSTS]
	}
	write(w, log, r.status, struct {
		XMLName   xml.Name `xml:"ErrorResponse"`
		Space     string   `xml:"xmlns,attr"`
		Error     inner
		RequestID string `xml:"RequestId"`
	}{Space: space, Error: inner{kind, r.Code, r.Message}, RequestID: call.ID})
}

// writeResult wraps a result as the protocol does; nil is one without content.
func writeResult(w http.ResponseWriter, log *slog.Logger, call *Call, result any) {
	type metadata struct {
		RequestID string `xml:"RequestId"`
	}
	var text bytes.Buffer
	encoder := xml.NewEncoder(&text)
	outer := xml.StartElement{Name: xml.Name{Local: call.Operation + "Response"}, Attr: []xml.Attr{{Name: xml.Name{Local: "xmlns"}, Value: namespaces[call.Service]}}}
	err := encoder.EncodeToken(outer)
	if err == nil && result != nil {
		err = encoder.EncodeElement(result, xml.StartElement{Name: xml.Name{Local: call.Operation + "Result"}})
	}
	if err == nil {
		err = encoder.EncodeElement(metadata{call.ID}, xml.StartElement{Name: xml.Name{Local: "ResponseMetadata"}})
	}
	if err == nil {
		err = errors.Join(encoder.EncodeToken(outer.End()), encoder.Flush())
	}
	if err != nil {
		log.Error("encode reply", "operation", call.Operation, "error", err)
		writeError(w, log, call, describe(err))
		return
	}
	send(w, log, http.StatusOK, text.Bytes())
}

func write(w http.ResponseWriter, log *slog.Logger, status int, v any) {
	text, err := xml.Marshal(v)
	if err != nil {
		log.Error("encode reply", "error", err)
	}
	send(w, log, status, text)
}

func send(w http.ResponseWriter, log *slog.Logger, status int, text []byte) {
	w.Header().Set("Content-Type", "text/xml")
	w.WriteHeader(status)
	if _, err := w.Write(text); err != nil {
		log.Debug("client went away", "error", err)
	}
}

// stampOf writes a moment as both services do.
func stampOf(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }
