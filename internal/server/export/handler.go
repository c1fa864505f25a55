package export

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"

	"lifeboat/internal/db"
	"lifeboat/internal/diskstream"
	"lifeboat/internal/drs"
	"lifeboat/internal/vault"
)

// Servers looks up a source server; db.ErrAbsent when the account has none of
// this ID.
type Servers interface {
	SourceServer(ctx context.Context, account drs.Account, id drs.SourceServerID) (drs.SourceServer, error)
}

// Handler serves disks of the servers of the account that caller finds in a
// request's context. Requests must have been authenticated before; without an
// account they are refused.
func Handler(open OpenDisk, servers Servers, caller func(context.Context) (drs.Account, bool), log *slog.Logger) http.Handler {
	h := &handler{open: open, servers: servers, caller: caller, log: log}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /lifeboat/v1/source-servers/{server}/points/{point}/disks/{disk}", h.serve)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, http.StatusNotFound, "UnknownOperationException",
			"Nothing is served here. Disks are at GET /lifeboat/v1/source-servers/{s-…}/points/{pit-…}/disks/{n}.")
	})
	return mux
}

type handler struct {
	open    OpenDisk
	servers Servers
	caller  func(context.Context) (drs.Account, bool)
	log     *slog.Logger
}

func (h *handler) serve(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	account, ok := h.caller(ctx)
	if !ok {
		refuse(w, http.StatusForbidden, "AccessDeniedException", "The request carries no account. Sign it with an access key of this server.")
		return
	}
	want, err := parseTarget(r)
	if err != nil {
		refuse(w, http.StatusBadRequest, "ValidationException", err.Error())
		return
	}
	log := h.log.With("server", want.server, "point", want.point, "disk", want.disk)
	disk, err := h.find(ctx, account, want)
	var refusal *drs.Error
	switch {
	case errors.As(err, &refusal):
		refuse(w, http.StatusNotFound, "ResourceNotFoundException", refusal.Message)
		return
	case err != nil:
		log.Error("disk cannot be opened for export", "err", err)
		refuse(w, http.StatusInternalServerError, "InternalServerException",
			"The disk cannot be opened: "+advice(err))
		return
	}
	defer func() {
		if err := disk.Close(); err != nil {
			log.Warn("exported disk was not closed", "err", err)
		}
	}()

	bytes, err := send(ctx, w, disk, acceptsZstd(r))
	if err != nil {
		if ctx.Err() == nil {
			log.Error("export ended early", "bytes", bytes, "err", err)
		}
		panic(http.ErrAbortHandler) // closes the connection, so that no proxy takes it for complete
	}
	log.Info("exported disk", "bytes", bytes)
}

// Check returns what tells whether an account has a disk: nil, or a *drs.Error that
// says which there are.
func Check(open OpenDisk, servers Servers) func(context.Context, drs.Account, drs.SourceServerID, drs.RecoverySnapshotID, int) error {
	h := &handler{open: open, servers: servers}
	return func(ctx context.Context, account drs.Account, server drs.SourceServerID, point drs.RecoverySnapshotID, n int) error {
		disk, err := h.find(ctx, account, target{server, point, n})
		if err != nil {
			return err
		}
		return disk.Close()
	}
}

// target is what a request names.
type target struct {
	server drs.SourceServerID
	point  drs.RecoverySnapshotID
	disk   int
}

func parseTarget(r *http.Request) (t target, err error) {
	if t.server, err = drs.ParseSourceServerID(r.PathValue("server")); err != nil {
		return t, err
	}
	if t.point, err = drs.ParseRecoverySnapshotID(r.PathValue("point")); err != nil {
		return t, err
	}
	if t.disk, err = strconv.Atoi(r.PathValue("disk")); err != nil || t.disk < 0 {
		return t, fmt.Errorf("%q is not the number of a disk: they count from 0", r.PathValue("disk"))
	}
	return t, nil
}

// find opens the disk, or refuses with *drs.Error what does not exist for the
// account.
func (h *handler) find(ctx context.Context, account drs.Account, t target) (Disk, error) {
	server, err := h.servers.SourceServer(ctx, account, t.server)
	if errors.Is(err, db.ErrAbsent) {
		return nil, drs.NotFound(drs.TypeSourceServer, string(t.server))
	}
	if err != nil {
		return nil, err
	}
	disk, err := h.open(ctx, server, t.point, t.disk)
	var none *NoDiskError
	switch {
	case errors.Is(err, vault.ErrAbsent):
		refusal := drs.NotFound(drs.TypeRecoverySnapshot, string(t.point))
		refusal.Message = fmt.Sprintf("Source server %s has no recovery point %s (any more): `lifeboat points %s` lists those it has.", t.server, t.point, t.server)
		return nil, refusal
	case errors.As(err, &none):
		refusal := drs.NotFound(drs.TypeRecoverySnapshot, string(t.point))
		refusal.Message = none.Error()
		return nil, refusal
	}
	return disk, err
}

// send streams the disk and returns how many bytes of it were sent. An error
// before the client has anything of it, or after, ends the connection: the
// status was sent, so the reason goes into the stream.
func send(ctx context.Context, w http.ResponseWriter, disk Disk, compress bool) (int64, error) {
	w.Header().Set("Content-Type", diskstream.MediaType)
	buffered := bufio.NewWriterSize(w, 64<<10)
	var out io.Writer = buffered
	closeOut := func() error { return nil }
	if compress {
		w.Header().Set("Content-Encoding", "zstd")
		encoder, err := zstd.NewWriter(buffered, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2))
		if err != nil {
			return 0, fmt.Errorf("start compressing: %w", err)
		}
		out, closeOut = encoder, encoder.Close
	}
	stream, err := diskstream.NewWriter(out, disk.Size())
	if err != nil {
		return 0, errors.Join(err, closeOut())
	}
	bytes, err := copyData(ctx, stream, disk)
	if err != nil {
		// The client is told before the connection breaks; if it is gone, this
		// fails too and nothing is lost.
		_ = stream.Fail(advice(err))
	} else {
		err = stream.End()
	}
	return bytes, errors.Join(err, closeOut(), buffered.Flush(), flush(w))
}

func flush(w http.ResponseWriter) error {
	err := http.NewResponseController(w).Flush()
	if errors.Is(err, http.ErrNotSupported) {
		return nil
	}
	return err
}

func acceptsZstd(r *http.Request) bool {
	for part := range strings.SplitSeq(strings.Join(r.Header.Values("Accept-Encoding"), ","), ",") {
		name, quality, _ := strings.Cut(part, ";")
		if strings.TrimSpace(name) == "zstd" && strings.ReplaceAll(quality, " ", "") != "q=0" {
			return true
		}
	}
	return false
}

// advice says to the user at the other end what broke and what to do.
func advice(err error) string {
	var corrupt *vault.CorruptError
	if errors.As(err, &corrupt) {
		return fmt.Sprintf("%v. The vault holds a damaged object: export another point, or restore the named object from a copy of the vault.", err)
	}
	return fmt.Sprintf("%v. The server's log has more.", err)
}

// refuse answers as the DRS API does.
func refuse(w http.ResponseWriter, status int, kind, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Amzn-Errortype", kind)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"__type": kind, "message": message}) // a client that left needs no answer
}
