package drsapi

import (
	"errors"
	"fmt"
	"io"
	"net/http"
)

// MaxBody is the largest request body that is read; the largest valid request
// is far smaller.
const MaxBody = 1 << 20

// A body has to be read before its signature can be checked, so nobody has vouched
// for it yet. Any number may be of up to smallBody bytes, as nearly all are; of
// larger ones, largeBodies are read at a time.
const (
	smallBody   = 64 << 10
	largeBodies = 16
)

// readBody reads the body of a request, in memory that a client cannot multiply.
func (a *API) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return nil, &protocolError{"MalformedHttpRequestException", http.StatusBadRequest,
			fmt.Sprintf("Content-Encoding %q is not supported; send the body as it is.", encoding)}
	}
	limited := http.MaxBytesReader(w, r.Body, MaxBody)
	body, err := io.ReadAll(io.LimitReader(limited, smallBody))
	if err == nil && len(body) == smallBody {
		select {
		case a.large <- struct{}{}:
			defer func() { <-a.large }()
		default:
			return nil, &protocolError{"ServiceUnavailable", http.StatusServiceUnavailable,
				"Too many large requests are being read. Send this one again in a moment."}
		}
		var rest []byte
		rest, err = io.ReadAll(limited)
		body = append(body, rest...)
	}
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, &protocolError{"RequestEntityTooLargeException", http.StatusRequestEntityTooLarge,
			fmt.Sprintf("The request body is larger than %d bytes.", tooLarge.Limit)}
	case err != nil:
		return nil, &protocolError{"RequestAbortedException", http.StatusBadRequest, "The request body ended early."}
	}
	return body, nil
}
