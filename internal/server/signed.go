package server

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"

	"lifeboat/internal/drs"
	"lifeboat/internal/iam"
)

type callerKey struct{}

// signed lets only requests through that an access key has signed, with the
// key's account in their context. It is for what lies beside the DRS API and has
// no body.
func signed(verifier *iam.Verifier, log *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key, err := verifier.Verify(r.Context(), r, nil)
		var refused *iam.AuthError
		switch {
		case errors.As(err, &refused):
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("X-Amzn-Errortype", refused.Code)
			w.WriteHeader(refused.Status)
			_ = json.NewEncoder(w).Encode(map[string]string{"__type": refused.Code, "message": refused.Message})
		case err != nil:
			log.Error("signature was not checked", "err", err)
			http.Error(w, "internal error", http.StatusInternalServerError)
		default:
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, key.Account)))
		}
	})
}

// caller is the account that signed a request, as signed found it.
func caller(ctx context.Context) (drs.Account, bool) {
	account, ok := ctx.Value(callerKey{}).(drs.Account)
	return account, ok
}
