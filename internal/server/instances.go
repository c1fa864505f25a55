package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"

	"lifeboat/internal/drs"
	"lifeboat/internal/drsapi"
	"lifeboat/internal/recovery"
)

// instanceHandler serves what EC2 does for recovery instances on AWS, and the DRS
// API therefore lacks: power and the serial console. Requests are signed; see
// docs/drs-compatibility.md.
//
//	POST /lifeboat/v1/recovery-instances/{i-…}/start
//	POST /lifeboat/v1/recovery-instances/{i-…}/start-from-vault  likewise, on disks made again of what was shipped
//	POST /lifeboat/v1/recovery-instances/{i-…}/stop     begins it; the state tells
//	GET  /lifeboat/v1/recovery-instances/{i-…}/console  text, with Range
func instanceHandler(service *recovery.Service, log *slog.Logger) http.Handler {
	h := &instances{service, log}
	mux := http.NewServeMux()
	const one = "/lifeboat/v1/recovery-instances/{instance}/"
	mux.HandleFunc("POST "+one+"start", h.power(service.StartInstance))
	mux.HandleFunc("POST "+one+"start-from-vault", h.power(service.StartFromVault))
	mux.HandleFunc("POST "+one+"stop", h.power(service.StopInstance))
	mux.HandleFunc("GET "+one+"console", h.console)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		drsapi.WriteError(w, log, &drs.Error{Kind: drs.KindNotFound, Message: fmt.Sprintf(
			"Nothing is served at %s %s. Recovery instances have POST …/start, POST …/start-from-vault, POST …/stop and GET …/console.", r.Method, r.URL.Path)})
	})
	return mux
}

type instances struct {
	service *recovery.Service
	log     *slog.Logger
}

type powerSwitch func(context.Context, drs.Account, drs.RecoveryInstanceID) (drs.RecoveryInstance, error)

func (h *instances) power(change powerSwitch) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		account, id, err := h.named(r)
		if err != nil {
			drsapi.WriteError(w, h.log, err)
			return
		}
		instance, err := change(r.Context(), account, id)
		if err != nil {
			drsapi.WriteError(w, h.log, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]string{ // a client that left needs no answer
			"recoveryInstanceID": string(instance.ID), "ec2InstanceState": string(instance.State),
		})
	}
}

// console sends the console's output so far; http.ServeContent answers ranges, so
// that a client can follow it.
func (h *instances) console(w http.ResponseWriter, r *http.Request) {
	account, id, err := h.named(r)
	if err != nil {
		drsapi.WriteError(w, h.log, err)
		return
	}
	path, err := h.service.Console(r.Context(), account, id)
	if err != nil {
		drsapi.WriteError(w, h.log, err)
		return
	}
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = drs.Conflict(drs.TypeRecoveryInstance, string(id), "Recovery instance %s was not started yet and has no console.", id)
	}
	if err != nil {
		drsapi.WriteError(w, h.log, err)
		return
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		drsapi.WriteError(w, h.log, err)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	http.ServeContent(w, r, "", info.ModTime(), file)
}

func (h *instances) named(r *http.Request) (drs.Account, drs.RecoveryInstanceID, error) {
	account, ok := caller(r.Context())
	if !ok {
		return account, "", errors.New("a request without an account reached a signed handler")
	}
	id, err := drs.ParseRecoveryInstanceID(r.PathValue("instance"))
	if err != nil {
		return account, "", drs.Invalid("recoveryInstanceID", "%v", err)
	}
	return account, id, nil
}
