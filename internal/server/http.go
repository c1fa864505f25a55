package server

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"lifeboat/internal/iamapi"
	"lifeboat/internal/replication"
)

// handler puts what the API address serves in its places. Whatever is not ours
// is an operation of the DRS API.
func (s *running) handler() http.Handler {
	ours := http.NewServeMux()
	ours.Handle(replication.RegisterPath, s.registration)
	ours.Handle("/lifeboat/v1/source-servers/", s.export)
	ours.Handle("/lifeboat/v1/recovery-instances/", s.instances)
	ours.Handle("/lifeboat/v1/vault/", s.vaultWork)
	ours.Handle("/lifeboat/v1/source-networks/", s.templates)
	ours.Handle("POST /lifeboat/v1/disk-access", s.diskAccess)
	ours.Handle("/lifeboat/v1/accounts", s.accountHandler())
	ours.Handle("/lifeboat/v1/accounts/", s.accountHandler())
	webhooks := s.webhookHandler()
	ours.Handle("/lifeboat/v1/webhooks", webhooks)
	ours.Handle("/lifeboat/v1/webhooks/", webhooks)
	ours.Handle("GET /lifeboat/v1/audit", s.gate.signed(onNothing("LookupEvents"), s.answering(s.lookupEvents)))
	ours.Handle("POST /lifeboat/v1/install-tokens", s.gate.signed(onNothing("CreateInstallToken"), s.answering(s.createInstallToken)))
	ours.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, nil) })
	ours.HandleFunc("GET /readyz", s.ready)
	ours.Handle("GET /metrics", promhttp.HandlerFor(s.metrics, promhttp.HandlerOpts{}))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// A mux would redirect paths that it finds unclean, and what the API answers
		// to them is the API's business.
		switch path := r.URL.Path; {
		case strings.HasPrefix(path, "/lifeboat/"), path == "/healthz", path == "/readyz", path == "/metrics":
			ours.ServeHTTP(w, r)
		case iamapi.Serves(r):
			s.iam.ServeHTTP(w, r)
		case path == "/" && (r.Method == http.MethodGet || r.Method == http.MethodHead):
			root(w, r)
		default:
			s.api.ServeHTTP(w, r)
		}
	})
}

// ready tells whether requests and agents can be served: the database answers, and the
// vault can be read. A vault that is only full or read-only is a hint: machines can
// still be recovered out of it.
func (s *running) ready(w http.ResponseWriter, r *http.Request) {
	if _, err := s.db.Initialized(r.Context(), s.dir.Account()); err != nil {
		s.Log.Warn("not ready", "err", err)
		answer(w, http.StatusServiceUnavailable, err)
		return
	}
	troubles, away := s.watch.troubles()
	if away {
		answer(w, http.StatusServiceUnavailable, errors.New(troubles[0]), append(troubles[1:], s.scrubber.hints()...)...)
		return
	}
	answer(w, http.StatusOK, nil, append(troubles, s.scrubber.hints()...)...)
}

// answer tells how it stands; hints are what should be looked at although all is well.
func answer(w http.ResponseWriter, status int, err error, hints ...string) {
	reply := map[string]any{"status": "ok"}
	if err != nil {
		reply = map[string]any{"status": "failing", "reason": err.Error()}
	}
	if len(hints) > 0 {
		reply["hints"] = hints
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(reply) // a client that left needs no answer
}

// httpServer bounds what a slow or idle client may hold.
func (s *running) httpServer() *http.Server {
	return &http.Server{
		Handler:           bounded(s.handler()),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       60 * time.Second,
		IdleTimeout:       120 * time.Second,
		MaxHeaderBytes:    64 << 10,
		// It complains mostly of handshakes of port scanners.
		ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
}
