package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
	"lifeboat/internal/drsapi"
	"lifeboat/internal/vault"
	"lifeboat/internal/vault/retention"
)

// Tidied says what was done to make a server's history as small as its rules allow.
type Tidied struct {
	Server  drs.SourceServerID `json:"server"`
	Dropped int                `json:"dropped"` // recovery points
	Objects int                `json:"objects"` // deleted
	Bytes   int64              `json:"bytes"`   // of those
	// Unfinished objects may be of an epoch that is being written, Unknown ones are not
	// of this version's making: neither was deleted.
	Unfinished int `json:"unfinished"`
	Unknown    int `json:"unknown"`
}

// tidy does all upkeep of a server at once, and looks for garbage that nobody knows of.
func (u *upkeep) tidy(ctx context.Context, server drs.SourceServer) (t Tidied, err error) {
	t.Server = server.ID
	policy := retention.FromPIT(u.journal, server.ReplicationConfiguration.PITPolicy)
	count := func(f vault.Freed) {
		for _, c := range []vault.Count{f.Segments, f.Manifests, f.Checkpoints, f.Packs, f.Runs} {
			t.Objects += c.Objects
			t.Bytes += c.Bytes
		}
	}
	for more := true; more; {
		report, err := u.vault.Maintain(ctx, server.ID, policy, u.vault.Now())
		count(report.Freed)
		t.Dropped += len(report.Dropped)
		if err != nil {
			return t, err
		}
		// What it cannot finish now, it will not the next time either.
		more = report.More && (len(report.Dropped) > 0 || report.Freed.Bytes() > 0)
	}
	freed, err := u.vault.Collect(ctx, server.ID)
	count(freed)
	t.Unfinished, t.Unknown = freed.Unfinished, freed.Unknown
	return t, err
}

// Running tells whether a server runs on a data directory.
func Running(data string) bool { return (&DataDir{Path: data}).locked() }

// Upkeep is work on the vault of a data directory whose server is stopped.
type Upkeep struct {
	s    running
	work *upkeep
	kept *time.Duration // the journal window that the server keeps; nil: not known
	// known is false when nobody has named the window that s.journal is to be.
	known bool
}

// OpenUpkeep locks a data directory and opens its tables and vault. journal overrides the
// window that the directory keeps; nil: it does not.
func OpenUpkeep(ctx context.Context, data string, journal *time.Duration) (u *Upkeep, err error) {
	if err := CheckJournal(journal); err != nil {
		return nil, err
	}
	u = &Upkeep{s: running{Config: Config{Log: slog.New(slog.DiscardHandler)}}}
	dir, err := lockDataDir(data)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, dir.Close())
		}
	}()
	u.s.dir = dir
	kept, known, err := u.s.dir.Journal()
	if err != nil {
		return nil, err
	}
	if known {
		u.kept = &kept
	}
	u.s.journal, u.known = kept, known
	if journal != nil {
		u.s.journal, u.known = *journal, true
	}
	if err := u.s.openStores(ctx); err != nil {
		return nil, err
	}
	u.work = newUpkeep(&u.s)
	return u, nil
}

// Close ends it.
func (u *Upkeep) Close() error { return errors.Join(u.s.closeStores(), u.s.dir.Close()) }

// Servers are the servers that the tables know.
func (u *Upkeep) Servers(ctx context.Context) ([]drs.SourceServer, error) {
	return u.s.db.AllServers(ctx)
}

// Journal returns the journal window that Tidy goes by, and the one that the server
// keeps; nil: the data directory does not say.
func (u *Upkeep) Journal() (window time.Duration, kept *time.Duration) { return u.s.journal, u.kept }

// MayTidy refuses upkeep by a window that nobody has named.
func (u *Upkeep) MayTidy() error {
	if !u.known {
		return errJournalUnknown
	}
	return nil
}

// Tidy does all upkeep of a server; MayTidy comes first.
func (u *Upkeep) Tidy(ctx context.Context, server drs.SourceServer) (Tidied, error) {
	return u.work.tidy(ctx, server)
}

// Lock keeps a recovery point until a date.
func (u *Upkeep) Lock(ctx context.Context, server drs.SourceServerID, point drs.RecoverySnapshotID, until time.Time) error {
	return u.s.vault.LockPoint(ctx, server, point, until)
}

// vaultHandler serves what the verbs of `lifeboat vault` ask of a running server.
//
//	POST /lifeboat/v1/vault/{s-…}/tidy
//	POST /lifeboat/v1/vault/{s-…}/points/{pit-…}/lock?until=TIME    RFC 3339
func vaultHandler(u *upkeep, tables *db.DB, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	serve := func(do func(r *http.Request, server drs.SourceServer) (any, error)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			account, ok := caller(r.Context())
			if !ok {
				drsapi.WriteError(w, log, errors.New("a request without an account reached a signed handler"))
				return
			}
			id := drs.SourceServerID(r.PathValue("server"))
			server, err := tables.SourceServer(r.Context(), account, id)
			if errors.Is(err, db.ErrAbsent) {
				err = drs.NotFound(drs.TypeSourceServer, string(id))
			}
			var out any
			if err == nil {
				out, err = do(r, server)
			}
			if err != nil {
				drsapi.WriteError(w, log, err)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(out) // a client that left needs no answer
		}
	}
	mux.HandleFunc("POST /lifeboat/v1/vault/{server}/tidy", serve(func(r *http.Request, server drs.SourceServer) (any, error) {
		return u.tidy(r.Context(), server)
	}))
	mux.HandleFunc("POST /lifeboat/v1/vault/{server}/points/{point}/lock", serve(func(r *http.Request, server drs.SourceServer) (any, error) {
		until, err := time.Parse(time.RFC3339, r.URL.Query().Get("until"))
		if err != nil {
			return nil, drs.Invalid("until", "Name the date as RFC 3339 has it, such as 2030-01-31T00:00:00Z.")
		}
		point := drs.RecoverySnapshotID(r.PathValue("point"))
		err = u.vault.LockPoint(r.Context(), server.ID, point, until)
		switch {
		case errors.Is(err, vault.ErrAbsent):
			return nil, drs.NotFound(drs.TypeRecoverySnapshot, string(point))
		case errors.Is(err, vault.ErrLocked):
			return nil, drs.Conflict(drs.TypeRecoverySnapshot, string(point), "%v", err)
		}
		return map[string]string{"point": string(point), "until": until.UTC().Format(time.RFC3339)}, err
	}))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		drsapi.WriteError(w, log, &drs.Error{Kind: drs.KindNotFound, Message: fmt.Sprintf("Nothing is served at %s %s.", r.Method, r.URL.Path)})
	})
	return mux
}

// onVault says what a caller must be allowed to do for a request to vaultHandler.
func onVault(r *http.Request, account drs.Account) need {
	action := "TidyVault"
	if pathPart(r, 4) == "points" {
		action = "LockRecoveryPoint"
	}
	return onServer(action)(r, account)
}
