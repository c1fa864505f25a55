package server

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"

	"lifeboat/internal/drs"
	"lifeboat/internal/drsapi"
	"lifeboat/internal/iam"
)

type callerKey struct{}

// maxBody bounds what is read of a request before its signature is known, in bytes.
const maxBody = 64 << 10

// signed lets only requests through that an access key has signed, with the
// key's account in their context. It is for what lies beside the DRS API, whose
// bodies are short.
func signed(verifier *iam.Verifier, log *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			drsapi.WriteError(w, log, drs.Invalid("body", "The request's body cannot be read, or is longer than %d bytes.", maxBody))
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		key, err := verifier.Verify(r.Context(), r, body)
		if err != nil {
			drsapi.WriteError(w, log, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, key.Account)))
	})
}

// caller is the account that signed a request, as signed found it.
func caller(ctx context.Context) (drs.Account, bool) {
	account, ok := ctx.Value(callerKey{}).(drs.Account)
	return account, ok
}
