package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/google/uuid"
)

// errNothingThere is the answer to a Range that begins at the present end.
var errNothingThere = errors.New("nothing there yet")

// beside asks for what the server has beside the DRS API, under
// /lifeboat/v1/. The answer is a good one; *Refusal when the server refused.
func (c *Client) beside(ctx context.Context, method string, prepare func(*http.Request), path ...string) (*http.Response, error) {
	return c.besideWith(ctx, method, nil, prepare, path...)
}

// besideWith is beside with a body.
func (c *Client) besideWith(ctx context.Context, method string, body []byte, prepare func(*http.Request), path ...string) (*http.Response, error) {
	target := strings.TrimSuffix(c.endpoint, "/") + "/lifeboat/v1"
	for _, part := range path {
		target += "/" + url.PathEscape(part)
	}
	request, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("ask for %s: %w", strings.Join(path, " "), err)
	}
	if prepare != nil {
		prepare(request)
	}
	if err := c.sign(ctx, request, body); err != nil {
		return nil, err
	}
	answer, err := c.http.Do(request)
	if err != nil {
		return nil, c.unreachable(err)
	}
	switch answer.StatusCode {
	case http.StatusOK, http.StatusPartialContent:
		return answer, nil
	case http.StatusRequestedRangeNotSatisfiable:
		return nil, errors.Join(errNothingThere, answer.Body.Close())
	}
	defer answer.Body.Close()
	return nil, refusedAnswer(answer)
}

func (c *Client) sign(ctx context.Context, r *http.Request, body []byte) error {
	o := c.api.Options()
	keys, err := o.Credentials.Retrieve(ctx)
	if err != nil {
		return fmt.Errorf("no access key is set: %w. %s", err, getEnvironment)
	}
	// A server takes each signature for one change: two of the same second differ by
	// this, as those of the SDK do.
	r.Header.Set("Amz-Sdk-Invocation-Id", uuid.NewString())
	hash := sha256.Sum256(body)
	return v4.NewSigner().SignHTTP(ctx, keys, r, hex.EncodeToString(hash[:]), "drs", o.Region, c.now())
}

// refusedAnswer reads the body of an answer that is not what was asked for.
func refusedAnswer(answer *http.Response) error {
	var body struct{ Message string }
	text, err := io.ReadAll(io.LimitReader(answer.Body, 64<<10))
	if err == nil {
		err = json.Unmarshal(text, &body)
	}
	if err != nil || body.Message == "" {
		return fmt.Errorf("the server answered %s: it is no lifeboat server, or another version", answer.Status)
	}
	if answer.StatusCode >= 500 {
		return fmt.Errorf("the server could not do it: %s", body.Message)
	}
	return &Refusal{Code: answer.Header.Get("X-Amzn-Errortype"), Message: body.Message}
}
