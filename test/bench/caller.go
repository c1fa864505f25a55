package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awsdrs "github.com/aws/aws-sdk-go-v2/service/drs"

	"lifeboat/internal/demo/rig"
	"lifeboat/internal/drs"
)

// caller sends signed requests and reads replies to their end without looking into
// them, which an SDK would, at more cost than the server's.
type caller struct {
	endpoint string
	region   string
	keys     aws.Credentials
	client   *http.Client
}

func (s *site) caller(ctx context.Context) (*caller, error) {
	options := s.server.Options()
	keys, err := options.Credentials.Retrieve(ctx)
	if err != nil {
		return nil, err
	}
	authority, err := os.ReadFile(s.server.CAFile)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	// Connections are kept, as by any client that asks so often. What it reads at a
	// time is the most that TLS gives.
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, MaxIdleConnsPerHost: 64, MaxConnsPerHost: 64,
		ReadBufferSize: 16 << 10, DisableCompression: true,
	}
	return &caller{s.server.Endpoint, options.Region, keys, &http.Client{Transport: transport, Timeout: time.Minute}}, nil
}

// accountOf is the account that the site's key belongs to: any ARN tells it.
func (s *site) accountOf(ctx context.Context) (drs.Account, error) {
	n, err := s.server.CreateSourceNetwork(ctx, &awsdrs.CreateSourceNetworkInput{
		VpcID: aws.String("vpc-0123456789abcdef0"), OriginAccountID: aws.String("111122223333"), OriginRegion: aws.String("us-east-1"),
	})
	if err != nil {
		return drs.Account{}, err
	}
	list, err := s.server.DescribeSourceNetworks(ctx, &awsdrs.DescribeSourceNetworksInput{})
	if err != nil {
		return drs.Account{}, err
	}
	resource, err := drs.ParseARN(aws.ToString(list.Items[0].Arn))
	if err != nil {
		return drs.Account{}, err
	}
	_, err = s.server.DeleteSourceNetwork(ctx, &awsdrs.DeleteSourceNetworkInput{SourceNetworkID: n.SourceNetworkID})
	return resource.Account, err
}

// time sends one request and tells after how many milliseconds the reply was there.
func (c *caller) time(ctx context.Context, path, body string) (float64, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.endpoint+path, strings.NewReader(body))
	if err != nil {
		return 0, err
	}
	sum := sha256.Sum256([]byte(body))
	if err := v4.NewSigner().SignHTTP(ctx, c.keys, r, hex.EncodeToString(sum[:]), "drs", c.region, time.Now()); err != nil {
		return 0, err
	}
	began := time.Now()
	reply, err := c.client.Do(r)
	if err != nil {
		return 0, err
	}
	defer reply.Body.Close()
	var start strings.Builder
	if _, err := io.CopyN(&start, reply.Body, 300); err != nil && reply.StatusCode >= 300 {
		return 0, fmt.Errorf("%s %s", reply.Status, start.String())
	}
	if reply.StatusCode >= 300 {
		return 0, fmt.Errorf("%s %s", reply.Status, start.String())
	}
	buffer, _ := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	_, err = io.CopyBuffer(writerOnly{io.Discard}, reply.Body, *buffer)
	return 1000 * time.Since(began).Seconds(), err
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// writerOnly hides that io.Discard would rather read by itself, in small pieces.
type writerOnly struct{ io.Writer }

// pace sends requests at a steady rate, whether or not earlier ones are answered,
// and returns what each took, in milliseconds.
func (c *caller) pace(ctx context.Context, perSecond int, span time.Duration, path, body string) ([]float64, error) {
	for range 20 { // connections and caches
		if _, err := c.time(ctx, path, body); err != nil {
			return nil, err
		}
	}
	var (
		mu     sync.Mutex
		took   []float64
		broken error
		asks   sync.WaitGroup
	)
	began, gap := time.Now(), time.Second/time.Duration(perSecond)
	for n := range int(span / gap) {
		if err := rig.Pause(ctx, time.Until(began.Add(time.Duration(n)*gap))); err != nil {
			asks.Wait()
			return nil, err
		}
		asks.Go(func() {
			t, err := c.time(ctx, path, body)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				broken = err
			}
			took = append(took, t)
		})
	}
	asks.Wait()
	return took, broken
}
