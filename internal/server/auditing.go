package server

import (
	"crypto/tls"
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"

	"lifeboat/internal/audit"
	"lifeboat/internal/drsapi"
	"lifeboat/internal/iam"
	"lifeboat/internal/iamapi"
	"lifeboat/internal/ingest"
)

// auditEvent is what all calls have in common.
func auditEvent(r *http.Request, at time.Time, key iam.AccessKey, region string) audit.Event {
	e := audit.Event{
		Identity: identityOf(key), Time: at, Region: region, UserAgent: r.UserAgent(), ID: uuid.NewString(), Recipient: key.Account.ID,
	}
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		e.SourceIP = host
	}
	if r.TLS != nil {
		e.TLS = &audit.TLS{Version: tls.VersionName(r.TLS.Version), Cipher: tls.CipherSuiteName(r.TLS.CipherSuite), Host: r.Host}
	}
	return e
}

func identityOf(key iam.AccessKey) audit.Identity {
	p := key.Principal
	if key.ID == "" {
		return audit.Identity{Type: "Unknown"}
	}
	out := audit.Identity{
		Type: string(p.Kind), PrincipalID: p.UserID(), ARN: p.ARN(), AccountID: p.Account.ID, AccessKeyID: key.ID,
	}
	if p.Kind == iam.User {
		out.UserName = p.Name
	}
	if s := p.Session; s != nil {
		out.Session = &audit.Session{SourceIdentity: s.SourceIdentity, Attributes: audit.Attributes{Created: s.Issued, MFA: "false"}}
		if p.Kind == iam.Role {
			out.Session.Issuer = &audit.Issuer{Type: "Role", PrincipalID: p.ID, ARN: p.RoleARN(), AccountID: p.Account.ID, UserName: p.Name}
		}
	}
	return out
}

// recordDRS records a call of the DRS API.
func (s *running) recordDRS(c drsapi.Call) {
	e := auditEvent(c.Request, c.Began, c.Key, s.dir.Settings.Region)
	e.Source, e.RequestID, e.ErrorCode, e.ErrorMessage = "drs.amazonaws.com", c.ID, c.Code, c.Message
	e.Name, e.ReadOnly = named(c.Operation, c.Request), readsOnly(c.Operation)
	if c.Input != nil {
		e.RequestParameters = audit.Redacted(c.Input)
	}
	if !e.ReadOnly && c.Output != nil {
		var reply map[string]any
		if json.Unmarshal(c.Output, &reply) == nil {
			e.ResponseElements = audit.Redacted(reply)
		}
	}
	s.audit.Record(e)
}

// recordIAM records a call of the IAM and STS APIs.
func (s *running) recordIAM(c iamapi.Call) {
	e := auditEvent(c.Request, c.Began, c.Key, s.dir.Settings.Region)
	e.Source, e.RequestID, e.ErrorCode, e.ErrorMessage = c.Service+".amazonaws.com", c.ID, c.Code, c.Message
	e.Name, e.ReadOnly = named(c.Operation, c.Request), c.ReadOnly
	e.RequestParameters = audit.Redacted(parameters(c.Input, "Action", "Version"))
	s.audit.Record(e)
}

// recordBeside records a call of what the server has beside the APIs of AWS.
func (s *running) recordBeside(c besideCall) {
	e := auditEvent(c.request, c.began, c.key, s.dir.Settings.Region)
	e.Source, e.RequestID, e.ErrorCode, e.ErrorMessage = "lifeboat", c.id, c.code, c.message
	e.Name, e.ReadOnly = named(c.action, c.request), c.readOnly
	values := parameters(c.request.URL.Query())
	values["path"] = c.request.URL.Path
	e.RequestParameters = audit.Redacted(values)
	s.audit.Record(e)
}

// recordRegistration records that an agent came with an install token.
func (s *running) recordRegistration(c ingest.RegistrationCall) {
	e := auditEvent(c.Request, c.Began, iam.AccessKey{}, s.dir.Settings.Region)
	e.Source, e.Name, e.ErrorCode, e.ErrorMessage = "drs.amazonaws.com", "CreateSourceServerForDrs", c.Code, c.Message
	if c.Account.ID != "" {
		e.Identity, e.Recipient = audit.Identity{Type: "InstallToken", AccountID: c.Account.ID}, c.Account.ID
		e.RequestParameters = audit.Redacted(map[string]any{
			"hostname": c.Machine.Inventory.Hostname, "hardwareId": c.Machine.HardwareID, "agentVersion": c.Machine.AgentVersion,
		})
	}
	if c.Server != "" {
		e.ResponseElements = audit.Redacted(map[string]any{"sourceServerID": string(c.Server)})
	}
	s.audit.Record(e)
}

// named is what an event is called whose request names no operation.
func named(operation string, r *http.Request) string {
	if operation != "" {
		return operation
	}
	path := strings.Trim(r.URL.Path, "/")
	if path == "" {
		return "Unknown"
	}
	return path[:min(len(path), 128)]
}

func parameters(form url.Values, without ...string) map[string]any {
	out := map[string]any{}
	for name, values := range form {
		if len(values) == 1 {
			out[strings.ToLower(name[:min(1, len(name))])+name[min(1, len(name)):]] = values[0]
		}
	}
	for _, name := range without {
		delete(out, strings.ToLower(name[:1])+name[1:])
	}
	for name := range out { // of a presigned URL, the signature opens what it signs
		if strings.HasPrefix(name, "x-Amz-") {
			delete(out, name)
		}
	}
	return out
}
