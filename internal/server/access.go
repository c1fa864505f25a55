package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"lifeboat/internal/audit"
	"lifeboat/internal/drs"
	"lifeboat/internal/drsapi"
	"lifeboat/internal/iam"
	"lifeboat/internal/iam/directory"
	"lifeboat/internal/iamapi"
	"lifeboat/internal/throttle"
)

const (
	auditDir       = "audit"
	signaturesFile = "signatures"
)

// openAccess makes what decides on requests and records them. The tables must be
// open.
func (s *running) openAccess() (err error) {
	if s.limits, err = s.dir.readLimits(); err != nil {
		return err
	}
	if s.audit, err = audit.Open(s.dir.file(auditDir), s.limits.Audit.limits(), s.Log.With("wing", "audit"), nil); err != nil {
		return err
	}
	if s.directory, err = directory.New(s.db, s.dir.master, s.dir.AdminKey); err != nil {
		return err
	}
	sessions, err := iam.NewSessions(s.dir.master, nil)
	if err != nil {
		return err
	}
	if s.replays, err = iam.OpenReplays(s.dir.file(signaturesFile), time.Now(), s.Log.With("wing", "api")); err != nil {
		return err
	}
	s.throttle = throttle.New(s.limits.Rates.of, nil)
	guard := &iam.Guard{Policies: s.directory}
	verifier := &iam.Verifier{
		Service: "drs", Region: s.dir.Settings.Region, Keys: s.directory, Sessions: sessions, Replays: s.replays,
		Once: func(r *http.Request, _ []byte) bool {
			return r.Method != http.MethodGet && !readsOnly(strings.TrimPrefix(r.URL.Path, "/"))
		},
	}
	s.gate = &gate{
		verifier: verifier, guard: guard, db: s.db, throttle: throttled(s.throttle), record: s.recordBeside, log: s.Log.With("wing", "api"),
	}
	s.iam = iamapi.New(iamapi.Config{
		Directory: s.directory, Guard: guard, Sessions: sessions, Replays: s.replays, Region: s.dir.Settings.Region,
		Throttle: throttled(s.throttle), Record: s.recordIAM, Log: s.Log.With("wing", "iam"),
	})
	return nil
}

// accountHandler serves accounts to the account that the server was made with:
//
//	GET  /lifeboat/v1/accounts
//	POST /lifeboat/v1/accounts {"name": …, "id": …}      the secret is told this once
//	POST /lifeboat/v1/accounts/{number}/keys            another key of the account's root
func (s *running) accountHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /lifeboat/v1/accounts", s.gate.signed(onNothing("ListAccounts"), s.managing(func(w http.ResponseWriter, r *http.Request) error {
		list, err := s.directory.Accounts(r.Context())
		return replied(w, err, map[string]any{"accounts": list})
	})))
	mux.Handle("POST /lifeboat/v1/accounts", s.gate.signed(onNothing("CreateAccount"), s.managing(func(w http.ResponseWriter, r *http.Request) error {
		var asked struct{ ID, Name string }
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
			return drs.Invalid("body", "The body is no JSON document with a name: %v.", err)
		}
		account, root, err := s.directory.CreateAccount(r.Context(), asked.ID, asked.Name)
		return replied(w, err, map[string]any{"account": account, "accessKey": keyReply(root)})
	})))
	mux.Handle("POST /lifeboat/v1/accounts/{number}/keys", s.gate.signed(onNothing("CreateRootAccessKey"), s.managing(func(w http.ResponseWriter, r *http.Request) error {
		key, err := s.directory.CreateRootKey(r.Context(), r.PathValue("number"))
		return replied(w, err, map[string]any{"accessKey": keyReply(key)})
	})))
	return mux
}

func keyReply(key iam.AccessKey) map[string]string {
	return map[string]string{"accessKeyId": key.ID, "secretAccessKey": key.Secret.Reveal(), "account": key.Account.ID}
}

// managing is for what only the account that the server was made with may do.
func (s *running) managing(do func(http.ResponseWriter, *http.Request) error) http.Handler {
	return s.answering(func(w http.ResponseWriter, r *http.Request) error {
		if account, _ := caller(r.Context()); account.ID != s.dir.Settings.Account {
			return &drs.Error{Kind: drs.KindAccessDenied, Message: fmt.Sprintf(
				"Accounts are managed by account %s, which this server was made with, and not by %s.", s.dir.Settings.Account, account.ID)}
		}
		return do(w, r)
	})
}

// answering writes the refusal that a handler returns.
func (s *running) answering(do func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := do(w, r); err != nil {
			drsapi.WriteError(w, s.Log, inWords(err))
		}
	})
}

// inWords puts refusals of the directory into the words of the DRS API.
func inWords(err error) error {
	var refused *directory.Error
	if !errors.As(err, &refused) {
		return err
	}
	kind := drs.KindValidation
	switch refused.Code {
	case directory.CodeAbsent:
		kind = drs.KindNotFound
	case directory.CodeExists, directory.CodeConflict, directory.CodeLimit:
		kind = drs.KindConflict
	}
	return &drs.Error{Kind: kind, Message: refused.Message}
}

func replied(w http.ResponseWriter, err error, reply any) error {
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(reply) // a client that left needs no answer
	return nil
}

// lookupEvents serves the audit log, to each account its own. Calls that nobody
// signed are told to the account that the server was made with.
//
//	GET /lifeboat/v1/audit?since=…&until=…&user=…&event=…&about=…&changes=true&errors=true&limit=N
func (s *running) lookupEvents(w http.ResponseWriter, r *http.Request) error {
	account, _ := caller(r.Context())
	form := r.URL.Query()
	q := audit.Query{
		Account: account.ID, User: form.Get("user"), Name: form.Get("event"), Resource: form.Get("about"),
		Changes: form.Get("changes") == "true", Errors: form.Get("errors") == "true", Most: 50,
	}
	if form.Get("unsigned") == "true" && account.ID == s.dir.Settings.Account {
		q.Account, q.Unsigned = "", true
	}
	for name, at := range map[string]*time.Time{"since": &q.Since, "until": &q.Until} {
		text := form.Get(name)
		if text == "" {
			continue
		}
		var err error
		if *at, err = time.Parse(time.RFC3339, text); err != nil {
			return drs.Invalid(name, "%s is no moment: want one like 2026-11-23T12:00:00Z.", name)
		}
	}
	if text := form.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxEvents {
			return drs.Invalid("limit", "limit must be 1 to %d.", maxEvents)
		}
		q.Most = n
	}
	events, err := s.audit.Search(r.Context(), q)
	damaged := errors.Is(err, audit.ErrUnreadable)
	if damaged {
		err = nil
	}
	if events == nil {
		events = []audit.Event{}
	}
	return replied(w, err, map[string]any{"events": events, "incomplete": damaged})
}

const maxEvents = 10_000

// createInstallToken gives a token with which agents register to the caller's
// account.
//
//	POST /lifeboat/v1/install-tokens
func (s *running) createInstallToken(w http.ResponseWriter, r *http.Request) error {
	account, _ := caller(r.Context())
	tokens, err := s.dir.InstallTokens()
	if err != nil {
		return err
	}
	return replied(w, nil, map[string]any{
		"token": tokens.Issue(account, iam.InstallTokenLife).Reveal(), "expires": time.Now().Add(iam.InstallTokenLife).UTC().Truncate(time.Second),
	})
}
