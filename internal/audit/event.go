// Package audit keeps the record of every call: who, what, from where, and what
// became of it, in the shape of CloudTrail.
//
// The log is a folder of files of JSON lines, one event each, oldest file first by
// name. An event is handed to the operating system before its call is answered,
// so that it survives the end of this process, and is on disk about a second
// later. Where an event cannot be kept, the call goes on all the same: a full disk
// must not stop a recovery. It is counted, and told to the program's log.
//
// Old files are removed by size and age. The bytes are described in
// docs/formats/audit-log.md.
package audit

import (
	"encoding/json"
	"strings"
	"time"
)

// Event is one call. Its members are those of a CloudTrail record.
type Event struct {
	Version           string          `json:"eventVersion"`
	Identity          Identity        `json:"userIdentity"`
	Time              time.Time       `json:"eventTime"`
	Source            string          `json:"eventSource"` // drs.amazonaws.com
	Name              string          `json:"eventName"`
	Region            string          `json:"awsRegion"`
	SourceIP          string          `json:"sourceIPAddress"`
	UserAgent         string          `json:"userAgent,omitempty"`
	ErrorCode         string          `json:"errorCode,omitempty"`
	ErrorMessage      string          `json:"errorMessage,omitempty"`
	RequestParameters json.RawMessage `json:"requestParameters"` // null: none, or not understood
	ResponseElements  json.RawMessage `json:"responseElements"`  // null for calls that only read
	RequestID         string          `json:"requestID"`
	ID                string          `json:"eventID"`
	ReadOnly          bool            `json:"readOnly"`
	Type              string          `json:"eventType"` // AwsApiCall
	Management        bool            `json:"managementEvent"`
	Recipient         string          `json:"recipientAccountId,omitempty"`
	Category          string          `json:"eventCategory"`
	TLS               *TLS            `json:"tlsDetails,omitempty"`
}

// Identity is who called; a call that was refused before that was known has the
// type Unknown.
type Identity struct {
	Type        string   `json:"type"` // Root, IAMUser, AssumedRole or Unknown
	PrincipalID string   `json:"principalId,omitempty"`
	ARN         string   `json:"arn,omitempty"`
	AccountID   string   `json:"accountId,omitempty"`
	AccessKeyID string   `json:"accessKeyId,omitempty"`
	UserName    string   `json:"userName,omitempty"`
	Session     *Session `json:"sessionContext,omitempty"`
}

// Session tells of temporary credentials.
type Session struct {
	Issuer         *Issuer    `json:"sessionIssuer,omitempty"`
	SourceIdentity string     `json:"sourceIdentity,omitempty"`
	Attributes     Attributes `json:"attributes"`
}

// Issuer is the role of a session.
type Issuer struct {
	Type        string `json:"type"`
	PrincipalID string `json:"principalId"`
	ARN         string `json:"arn"`
	AccountID   string `json:"accountId"`
	UserName    string `json:"userName"`
}

// Attributes are those of a session.
type Attributes struct {
	Created time.Time `json:"creationDate"`
	MFA     string    `json:"mfaAuthenticated"`
}

// TLS is how the connection was secured.
type TLS struct {
	Version string `json:"tlsVersion"`
	Cipher  string `json:"cipherSuite"`
	Host    string `json:"clientProvidedHostHeader"`
}

const (
	eventVersion = "1.11"
	hidden       = "HIDDEN_DUE_TO_SECURITY_REASONS"
	// maxDocument bounds request parameters and response elements, as CloudTrail
	// bounds them.
	maxDocument = 100 << 10
	maxText     = 4 << 10 // of a user agent or an error message
)

// secret are the members whose values are never written, in lower case. Tags and
// parameters may hold what their owner would not have others read, so the model
// of the API calls them sensitive; a policy is no secret.
var secret = map[string]bool{
	"secretaccesskey": true, "sessiontoken": true, "secret": true, "token": true, "nexttoken": true, "password": true,
	"tags": true, "stagingareatags": true, "parameters": true, "certificaterequest": true, "certificate": true,
}

// Redacted returns a document with its secrets hidden; of a map of secrets, the
// keys stay. What is too large is left out, and said so.
func Redacted(v any) json.RawMessage {
	if v == nil {
		return json.RawMessage("null")
	}
	text, err := json.Marshal(hide(v, false))
	if err != nil || len(text) > maxDocument {
		return json.RawMessage(`{"omitted":true}`)
	}
	return text
}

func hide(v any, all bool) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, inner := range v {
			out[key] = hide(inner, all || secret[strings.ToLower(key)])
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, inner := range v {
			out[i] = hide(inner, all)
		}
		return out
	}
	if all && v != nil {
		return hidden
	}
	return v
}

func clip(s string) string {
	if len(s) > maxText {
		s = s[:maxText]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// encoded is the event as a line.
func (e Event) encoded() ([]byte, error) {
	e.Version, e.Type, e.Management, e.Category = eventVersion, "AwsApiCall", true, "Management"
	e.UserAgent, e.ErrorMessage = clip(e.UserAgent), clip(e.ErrorMessage)
	e.Time = e.Time.UTC().Truncate(time.Millisecond)
	if e.RequestParameters == nil {
		e.RequestParameters = json.RawMessage("null")
	}
	if e.ResponseElements == nil {
		e.ResponseElements = json.RawMessage("null")
	}
	line, err := json.Marshal(e)
	return append(line, '\n'), err
}
