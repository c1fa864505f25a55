package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/minio/minio-go/v7"

	"lifeboat/internal/vault/blob"
)

// ReadAt implements blob.Store: one ranged GetObject, gone on with where a
// connection broke off.
func (s *Store) ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error) {
	if err := blob.CheckName(name); err != nil {
		return 0, err
	}
	n, err := s.readAt(ctx, s.prefix+name, p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return n, fmt.Errorf("read %s at %d: %w", name, off, err)
	}
	return n, err
}

func (s *Store) readAt(ctx context.Context, key string, p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, errors.New("negative offset")
	}
	if len(p) == 0 {
		_, err := s.stat(ctx, strings.TrimPrefix(key, s.prefix))
		return 0, err
	}
	end := false // the object ends before p is full
	err = s.retry(ctx, func(ctx context.Context, moved func()) error {
		k, total, err := s.readOnce(ctx, key, p[n:], off+int64(n), moved)
		n += k
		end = err == nil && off+int64(n) >= total
		return err
	})
	if err == nil && n < len(p) {
		if !end {
			return n, io.ErrUnexpectedEOF
		}
		err = io.EOF
	}
	return n, err
}

// readOnce reads as much of p as there is, and returns the size of the whole object.
func (s *Store) readOnce(ctx context.Context, key string, p []byte, off int64, moved func()) (n int, total int64, err error) {
	var opt minio.GetObjectOptions
	if err := opt.SetRange(off, off+int64(len(p))-1); err != nil {
		return 0, 0, err
	}
	body, _, header, err := s.client.GetObject(ctx, s.bucket, key, opt)
	if err != nil {
		var answer minio.ErrorResponse
		if errors.As(err, &answer) && answer.StatusCode == http.StatusRequestedRangeNotSatisfiable {
			return 0, 0, nil // it ends before off
		}
		return 0, 0, kind(err)
	}
	defer body.Close()
	first, total, err := contentRange(header)
	if err != nil {
		return 0, 0, err
	}
	if first != off {
		return 0, 0, fmt.Errorf("the store answers with byte %d instead of %d: it does not keep to the range asked for", first, off)
	}
	p = p[:min(int64(len(p)), max(0, total-off))]
	for n < len(p) {
		k, err := body.Read(p[n:])
		n += k
		if k > 0 {
			moved()
		}
		if err != nil && n < len(p) {
			return n, total, fmt.Errorf("%w (cut off after %d of %d bytes: %w)", ErrUnreachable, n, len(p), noEOF(err))
		}
	}
	// Whatever is left decides only whether the connection can be used again.
	_, _ = body.Read(make([]byte, 1))
	return n, total, nil
}

// noEOF keeps the end of a connection from being taken for the end of an object.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// contentRange reads "bytes 0-9/100", or, for a whole object, its length.
func contentRange(header http.Header) (first, total int64, err error) {
	text := header.Get("Content-Range")
	if text == "" {
		if total, err = strconv.ParseInt(header.Get("Content-Length"), 10, 64); err != nil {
			return 0, 0, fmt.Errorf("the store does not say how long its answer is: %w", err)
		}
		return 0, total, nil
	}
	var last int64
	if _, err := fmt.Sscanf(text, "bytes %d-%d/%d", &first, &last, &total); err != nil || first < 0 || last < first || total <= last {
		return 0, 0, fmt.Errorf("the store answers with an impossible range %q", text)
	}
	return first, total, nil
}
