package s3

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/minio/minio-go/v7"

	"lifeboat/internal/vault/blob"
)

// tagKey is the user metadata that holds the tag of the put that made an object.
const tagKey = "Lifeboat-Put"

// PutIfAbsent implements blob.Store: a conditional PutObject.
func (s *Store) PutIfAbsent(ctx context.Context, name string, parts ...[]byte) error {
	if err := blob.CheckName(name); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return fmt.Errorf("put %s: %w", name, context.Cause(ctx))
	}
	if err := s.put(ctx, name, newTag(), parts); err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	return nil
}

// put creates an object, and settles what became of attempts whose answer was lost.
func (s *Store) put(ctx context.Context, name, tag string, parts [][]byte) error {
	hash := sha256.New()
	for _, p := range parts {
		hash.Write(p)
	}
	sum := hex.EncodeToString(hash.Sum(nil))
	err := s.retry(ctx, func(ctx context.Context, moved func()) error {
		return s.putOnce(ctx, s.prefix+name, tag, sum, parts, moved)
	})
	switch {
	case errors.Is(err, blob.ErrExists):
		// Another's, or ours: a repeated attempt, also one that something between us
		// and the store repeated, finds what the first one made.
	case errors.Is(err, ErrUnreachable):
		// It may have been stored all the same; if nobody can tell, the error stands.
	default:
		return err
	}
	info, statErr := s.stat(ctx, name)
	switch {
	case statErr == nil && info.UserMetadata[tagKey] == tag:
		return nil
	case statErr == nil && errors.Is(err, blob.ErrExists):
		return blob.ErrExists
	case errors.Is(statErr, blob.ErrAbsent) && errors.Is(err, blob.ErrExists):
		return fmt.Errorf("%w (another object of that name came and went)", ErrUnreachable)
	case statErr != nil && errors.Is(err, blob.ErrExists):
		return statErr
	}
	return err
}

func (s *Store) putOnce(ctx context.Context, key, tag, sum string, parts [][]byte, moved func()) error {
	b := newBody(parts, moved)
	defer b.release()
	opt := minio.PutObjectOptions{
		ContentType: "application/octet-stream", UserMetadata: map[string]string{tagKey: tag},
		DisableContentSha256: true, // of chunks: the sum of the whole is signed instead
	}
	opt.SetMatchETagExcept("*")
	if _, err := s.client.PutObject(ctx, s.bucket, key, b, b.size, "", sum, opt); err != nil {
		return writeKind(kind(err))
	}
	return nil
}

// body reads parts one behind the other until it is released: a connection may go
// on sending after an early answer, when the parts are the caller's again.
type body struct {
	size  int64
	moved func()

	mu    sync.Mutex
	parts [][]byte // what is left; guarded by mu
	done  bool     // guarded by mu
}

func newBody(parts [][]byte, moved func()) *body {
	b := &body{parts: slices.Clone(parts), moved: moved}
	for _, p := range parts {
		b.size += int64(len(p))
	}
	return b
}

func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.done {
		return 0, errors.New("the request is over")
	}
	for len(b.parts) > 0 && len(b.parts[0]) == 0 {
		b.parts = b.parts[1:]
	}
	if len(b.parts) == 0 {
		return 0, io.EOF
	}
	n := copy(p, b.parts[0])
	b.parts[0] = b.parts[0][n:]
	b.moved()
	return n, nil
}

func (b *body) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.done, b.parts = true, nil
}
