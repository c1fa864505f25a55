// Package s3 keeps a vault's objects in an S3 bucket.
//
// What it guarantees, given a store that passes the probe of Open:
//
//   - PutIfAbsent creates an object by a conditional PutObject, so that of many
//     writers of one name, in any number of processes, one wins.
//   - A put whose answer was lost is settled: every put carries a random tag, and
//     one that finds the name taken looks whose tag is there.
//   - Overload, time-outs and cut connections are tried again a bounded number of
//     times and then reported as ErrUnreachable, never as absence or damage.
//   - What arrives at the store is what was sent: the signature covers a SHA-256
//     of the bytes.
package s3

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"lifeboat/internal/vault/blob"
)

// Store is a bucket, or what lies under a prefix in one. Safe for concurrent use,
// also from several processes.
type Store struct {
	client   *minio.Core
	bucket   string
	prefix   string
	where    string // the location, for messages
	keys     string // where the credentials were found
	patience time.Duration
	delay    time.Duration
	close    func()
}

var _ blob.Store = (*Store)(nil)

// Options tune a store in this process.
type Options struct {
	// ReadOnly does not probe for what only writers rely on, so that a bucket which
	// may only be read can be opened.
	ReadOnly bool
	// Patience is how long a request may go without a byte moving; 0: 20 s.
	Patience time.Duration
	// Delay is the first pause before a request is repeated, doubled each time; 0:
	// 100 ms.
	Delay time.Duration
}

// Open connects to the store at a location and probes it: a few small requests
// that find out whether the bucket is there and writable and whether the store
// keeps what a vault relies on. ErrCredentials, ErrUnreachable, ErrCannotFence and
// blob.ErrReadOnly say what is wrong.
func Open(ctx context.Context, l Location, opt Options) (*Store, error) {
	s, err := connect(ctx, l, opt)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", l, err)
	}
	if err := s.probe(ctx, opt.ReadOnly); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", l, err), s.Close())
	}
	return s, nil
}

func connect(ctx context.Context, l Location, opt Options) (*Store, error) {
	if opt.Patience <= 0 {
		opt.Patience = 20 * time.Second
	}
	if opt.Delay <= 0 {
		opt.Delay = firstDelay
	}
	keys, err := findKeys(ctx, l.Profile)
	if err != nil {
		return nil, err
	}
	source, err := keys.check(ctx)
	if err != nil {
		return nil, err
	}
	endpoint := &url.URL{Scheme: "https", Host: "s3." + l.Region + ".amazonaws.com"}
	if l.Endpoint != "" {
		if endpoint, err = url.Parse(l.Endpoint); err != nil {
			return nil, err
		}
	}
	connections, err := transport(l.CACert, opt.Patience)
	if err != nil {
		return nil, err
	}
	lookup := minio.BucketLookupDNS
	if l.PathStyle {
		lookup = minio.BucketLookupPath
	}
	client, err := minio.NewCore(endpoint.Host, &minio.Options{
		Creds: credentials.New(keys), Secure: endpoint.Scheme == "https", Transport: connections,
		Region: l.Region, BucketLookup: lookup,
		MaxRetries: 1, // retry knows which attempts may have left something behind
	})
	if err != nil {
		return nil, err
	}
	return &Store{
		client: client, bucket: l.Bucket, prefix: l.Prefix, where: l.String(), keys: source,
		patience: opt.Patience, delay: opt.Delay, close: connections.CloseIdleConnections,
	}, nil
}

// Close releases the connections.
func (s *Store) Close() error {
	s.close()
	return nil
}

// CredentialsFrom says where the credentials were found, without showing them.
func (s *Store) CredentialsFrom() string { return s.keys }

func (s *Store) String() string { return s.where }

// Size implements blob.Store.
func (s *Store) Size(ctx context.Context, name string) (int64, error) {
	if err := blob.CheckName(name); err != nil {
		return 0, err
	}
	info, err := s.stat(ctx, name)
	if err != nil {
		return 0, fmt.Errorf("size of %s: %w", name, err)
	}
	return info.Size, nil
}

func (s *Store) stat(ctx context.Context, name string) (info minio.ObjectInfo, err error) {
	err = s.retry(ctx, func(ctx context.Context, _ func()) error {
		info, err = s.client.StatObject(ctx, s.bucket, s.prefix+name, minio.StatObjectOptions{})
		if err != nil {
			return kind(err)
		}
		return nil
	})
	if errors.Is(err, blob.ErrAbsent) {
		// The answer to HEAD has no body: it may be the bucket that is gone.
		return info, s.reallyAbsent(ctx)
	}
	return info, err
}

// reallyAbsent returns blob.ErrAbsent if the bucket is there.
func (s *Store) reallyAbsent(ctx context.Context) error {
	there := false
	err := s.retry(ctx, func(ctx context.Context, _ func()) (err error) {
		if there, err = s.client.BucketExists(ctx, s.bucket); err != nil {
			return kind(err)
		}
		return nil
	})
	switch {
	case errors.Is(err, errDenied): // may read objects, may not ask about the bucket
		return blob.ErrAbsent
	case err != nil:
		return err
	case !there:
		return fmt.Errorf("there is no bucket %s: create it, or check the location", s.bucket)
	}
	return blob.ErrAbsent
}

// List implements blob.Store.
func (s *Store) List(ctx context.Context, folder string) ([]string, error) {
	if folder != "" {
		if err := blob.CheckName(strings.TrimSuffix(folder, "/")); err != nil || !strings.HasSuffix(folder, "/") {
			return nil, fmt.Errorf("list %q: not a folder name", folder)
		}
	}
	names, err := s.list(ctx, folder)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", folder, err)
	}
	return names, nil
}

// Delete implements blob.Store. S3 does not tell whether there was anything to delete:
// of two callers at the same moment both may be told that it was theirs.
func (s *Store) Delete(ctx context.Context, name string) error {
	if err := blob.CheckName(name); err != nil {
		return err
	}
	_, err := s.stat(ctx, name)
	if err == nil {
		err = s.remove(ctx, s.prefix+name)
	}
	if err != nil {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	return nil
}

func (s *Store) remove(ctx context.Context, key string) error {
	return s.retry(ctx, func(ctx context.Context, _ func()) error {
		if err := s.client.RemoveObject(ctx, s.bucket, key, minio.RemoveObjectOptions{}); err != nil {
			return writeKind(kind(err))
		}
		return nil
	})
}

func newTag() string {
	var tag [16]byte
	rand.Read(tag[:])
	return hex.EncodeToString(tag[:])
}
