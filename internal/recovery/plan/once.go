package plan

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"time"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

// once makes a request that is sent again with its client token find what the
// first one made.
type once struct{ db.ClientToken }

func newOnce(operation string, account drs.Account, token string, request any) once {
	text, err := json.Marshal(request)
	if err != nil {
		panic(err) // requests are strings, numbers and lists of them
	}
	sum := sha256.Sum256(text)
	return once{db.ClientToken{Account: account, Operation: operation, Token: token, Digest: hex.EncodeToString(sum[:])}}
}

// made returns the ID of what the request made before, or nothing.
func (o once) made(ctx context.Context, tx db.Tx) (string, error) {
	if o.Token == "" {
		return "", nil
	}
	kept, err := tx.ClientToken(ctx, o.Account, o.Operation, o.Token)
	switch {
	case errors.Is(err, db.ErrAbsent):
		return "", nil
	case err != nil:
		return "", err
	case kept.Digest != o.Digest:
		return "", &drs.Error{Kind: drs.KindConflict, ResourceID: kept.Resource,
			Message: "The clientToken was used for another " + o.Operation + " request. Use a new one for each request."}
	}
	return kept.Resource, nil
}

func (o once) remember(ctx context.Context, tx db.Tx, made string, now time.Time) error {
	if o.Token == "" {
		return nil
	}
	o.Resource, o.Created = made, now
	return tx.RememberToken(ctx, o.ClientToken)
}
