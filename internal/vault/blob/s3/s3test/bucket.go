package s3test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"lifeboat/internal/vault/blob/s3"
)

// Bucket is an open store of a bucket of its own, and a way to do to its objects what
// no store may.
type Bucket struct {
	*s3.Store
	Where s3.Location
	t     testing.TB
	raw   *minio.Client
}

// Patient are options that make tests of failures quick.
var Patient = s3.Options{Patience: 2 * time.Second, Delay: time.Millisecond}

// Bucket opens a new, empty bucket until the test ends.
func (s *Server) Bucket() *Bucket {
	s.t.Helper()
	return openBucket(s.t, s.Location())
}

// NewBucket does so on a server that another process started at an endpoint, with the
// keys in the environment.
func NewBucket(t testing.TB, endpoint string) *Bucket {
	t.Helper()
	return openBucket(t, newBucket(t, s3.Location{Region: "us-east-1", Endpoint: endpoint, PathStyle: true}))
}

func openBucket(t testing.TB, l s3.Location) *Bucket {
	t.Helper()
	// Not probed each time, and patient: a machine with other work may stand still for a while.
	store, err := s3.Open(context.Background(), l, s3.Options{Delay: time.Millisecond, Patience: 5 * time.Minute, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() }) // it never fails
	return &Bucket{Store: store, Where: l, t: t, raw: client(l)}
}

// newBucket makes a bucket of a name that nobody has.
func newBucket(t testing.TB, l s3.Location) s3.Location {
	t.Helper()
	l.Bucket = "bucket-" + strings.ToLower(rand.Text())
	if err := client(l).MakeBucket(context.Background(), l.Bucket, minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	return l
}

// Clone returns a new bucket with the same objects.
func (b *Bucket) Clone() *Bucket {
	b.t.Helper()
	c := openBucket(b.t, newBucket(b.t, b.Where))
	for _, name := range b.Names() {
		c.Replace(name, b.Bytes(name))
	}
	return c
}

// client is a plain client of a server of ours.
func client(l s3.Location) *minio.Client {
	u, err := url.Parse(l.Endpoint)
	if err != nil {
		panic(err) // it came from ParseLocation
	}
	var transport *http.Transport
	if l.CACert != "" {
		pool := x509.NewCertPool()
		if text, err := os.ReadFile(l.CACert); err == nil {
			pool.AppendCertsFromPEM(text)
		}
		transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
	}
	options := &minio.Options{
		Creds: credentials.NewStaticV4(AccessKey, SecretKey, ""), Secure: u.Scheme == "https",
		Region: l.Region, BucketLookup: minio.BucketLookupPath,
	}
	if transport != nil {
		options.Transport = transport
	}
	c, err := minio.New(u.Host, options)
	if err != nil {
		panic(err) // likewise
	}
	return c
}

// Names returns the names of all objects, sorted.
func (b *Bucket) Names() []string {
	b.t.Helper()
	var out []string
	for o := range b.raw.ListObjectsIter(context.Background(), b.Where.Bucket, minio.ListObjectsOptions{Recursive: true}) {
		if o.Err != nil {
			b.t.Fatal(o.Err)
		}
		out = append(out, o.Key)
	}
	return out
}

// Bytes returns an object, which must exist.
func (b *Bucket) Bytes(name string) []byte {
	b.t.Helper()
	o, err := b.raw.GetObject(context.Background(), b.Where.Bucket, name, minio.GetObjectOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = o.Close() }() // it was only read
	content, err := io.ReadAll(o)
	if err != nil {
		b.t.Fatal(err)
	}
	return content
}

// Replace does what no store may: it changes an object. Nil removes it.
func (b *Bucket) Replace(name string, content []byte) {
	b.t.Helper()
	var err error
	if content == nil {
		err = b.raw.RemoveObject(context.Background(), b.Where.Bucket, name, minio.RemoveObjectOptions{})
	} else {
		_, err = b.raw.PutObject(context.Background(), b.Where.Bucket, name, bytes.NewReader(content), int64(len(content)), minio.PutObjectOptions{})
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// Drop removes the bucket, which must be empty.
func (b *Bucket) Drop() {
	b.t.Helper()
	if err := b.raw.RemoveBucket(context.Background(), b.Where.Bucket); err != nil {
		b.t.Fatal(err)
	}
}
