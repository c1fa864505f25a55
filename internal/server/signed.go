package server

import (
	"context"
	"log/slog"
	"net/http"

	"lifeboat/internal/drs"
	"lifeboat/internal/drsapi"
	"lifeboat/internal/iam"
)

type callerKey struct{}

// signed lets only requests through that an access key has signed, with the
// key's account in their context. It is for what lies beside the DRS API and has
// no body.
func signed(verifier *iam.Verifier, log *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key, err := verifier.Verify(r.Context(), r, nil)
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
