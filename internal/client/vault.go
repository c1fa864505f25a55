package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// Tidied says what upkeep of a server's history in the vault has done.
type Tidied struct {
	Server     string `json:"server"`
	Dropped    int    `json:"dropped"` // recovery points
	Objects    int    `json:"objects"` // deleted
	Bytes      int64  `json:"bytes"`   // of those
	Unfinished int    `json:"unfinished"`
	Unknown    int    `json:"unknown"`
}

// Tidy has a server's history made as small as its rules allow.
func (c *Client) Tidy(ctx context.Context, server string) (out Tidied, err error) {
	answer, err := c.beside(ctx, http.MethodPost, nil, "vault", server, "tidy")
	if err != nil {
		return out, err
	}
	err = json.NewDecoder(answer.Body).Decode(&out)
	if err != nil {
		err = fmt.Errorf("read the server's answer: %w", err)
	}
	return out, errors.Join(err, answer.Body.Close())
}

// LockPoint keeps a recovery point until a date.
func (c *Client) LockPoint(ctx context.Context, server, point string, until time.Time) error {
	answer, err := c.beside(ctx, http.MethodPost, func(r *http.Request) {
		r.URL.RawQuery = url.Values{"until": {until.UTC().Format(time.RFC3339)}}.Encode()
	}, "vault", server, "points", point, "lock")
	if err != nil {
		return err
	}
	return answer.Body.Close()
}
