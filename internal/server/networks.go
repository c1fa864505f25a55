package server

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
	"lifeboat/internal/drsapi"
)

// templateHandler serves the CloudFormation templates that
// ExportSourceNetworkCfnTemplate wrote. Requests are signed.
//
//	GET /lifeboat/v1/source-networks/{sn-…}/template.json
func templateHandler(d *db.DB, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+drsapi.TemplatePath("{network}"), func(w http.ResponseWriter, r *http.Request) {
		account, ok := caller(r.Context())
		if !ok {
			drsapi.WriteError(w, log, errors.New("a request without an account"))
			return
		}
		id := drs.SourceNetworkID(r.PathValue("network"))
		template, err := d.NetworkTemplate(r.Context(), account, id)
		if errors.Is(err, db.ErrAbsent) {
			err = &drs.Error{Kind: drs.KindNotFound, ResourceType: drs.TypeSourceNetwork, ResourceID: string(id),
				Message: fmt.Sprintf("Source network %s has no template here. Write it with ExportSourceNetworkCfnTemplate.", id)}
		}
		if err != nil {
			drsapi.WriteError(w, log, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		_, _ = w.Write(template) //nolint:gosec // JSON, which no browser takes for a page; a client that left needs no answer
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		drsapi.WriteError(w, log, &drs.Error{Kind: drs.KindNotFound, Message: fmt.Sprintf(
			"Nothing is served at %s %s. Source networks have GET …/template.json.", r.Method, r.URL.Path)})
	})
	return mux
}
