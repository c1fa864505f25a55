package demo

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awsdrs "github.com/aws/aws-sdk-go-v2/service/drs"
)

// client is the AWS SDK for Go, pointed at our server.
type client struct {
	*awsdrs.Client
	endpoint string
	caFile   string
	token    string
	extras   *extras
	http     *http.Client
}

// connect asks `lifeboat env` how to reach the server, as a user's shell would,
// once the server is ready.
func (s *stage) connect(ctx context.Context, address string) (*client, error) {
	for {
		if err := s.server.ended(); err != nil {
			return nil, err
		}
		if c, err := s.tryConnect(ctx, address); err == nil {
			return c, nil
		} else if ctx.Err() != nil {
			return nil, fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

func (s *stage) tryConnect(ctx context.Context, address string) (*client, error) {
	// A port that answers comes before the question, which starts a program.
	if err := dial(ctx, address); err != nil {
		return nil, err
	}
	text, err := s.output(ctx, "env", "--data", s.path("data"))
	if err != nil {
		return nil, err
	}
	env := parseExports(text)
	authority, err := os.ReadFile(env["AWS_CA_BUNDLE"])
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		return nil, fmt.Errorf("%s holds no certificate", env["AWS_CA_BUNDLE"])
	}
	c := &client{endpoint: env["AWS_ENDPOINT_URL"], caFile: env["AWS_CA_BUNDLE"], token: env["LIFEBOAT_TOKEN"]}
	c.extras = &extras{
		next:        &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}},
		consistency: map[string]string{},
	}
	c.http = &http.Client{Transport: c.extras, Timeout: 30 * time.Second}
	c.Client = awsdrs.New(awsdrs.Options{
		BaseEndpoint: aws.String(c.endpoint),
		Region:       env["AWS_REGION"],
		Credentials:  credentials.NewStaticCredentialsProvider(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], ""),
		HTTPClient:   c.http,
	})
	return c, c.ready(ctx)
}

// ready asks whether the server can serve.
func (c *client) ready(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.endpoint+"/readyz", nil)
	if err != nil {
		return err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s", response.Status)
	}
	return nil
}

func (c *client) initialize(ctx context.Context) error {
	if _, err := c.InitializeService(ctx, &awsdrs.InitializeServiceInput{}); err != nil {
		return fmt.Errorf("initialise the account: %w", err)
	}
	return nil
}

// parseExports reads lines of the form export NAME='VALUE'.
func parseExports(text string) map[string]string {
	env := map[string]string{}
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "export "), "=")
		if ok {
			value = strings.TrimSuffix(strings.TrimPrefix(value, "'"), "'")
			env[name] = strings.ReplaceAll(value, `'\''`, "'")
		}
	}
	return env
}

// extras keeps what Lifeboat answers beyond AWS's model, and the SDK skips: how
// consistent each recovery point is.
type extras struct {
	next http.RoundTripper

	mu          sync.Mutex
	consistency map[string]string // by recovery snapshot ID, guarded by mu
}

func (e *extras) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := e.next.RoundTrip(request)
	if err != nil || !strings.HasSuffix(request.URL.Path, "/DescribeRecoverySnapshots") {
		return response, err
	}
	body, err := io.ReadAll(response.Body)
	if closeErr := response.Body.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return nil, err
	}
	response.Body = io.NopCloser(bytes.NewReader(body))
	var answer struct {
		Items []struct{ SnapshotID, Consistency string }
	}
	if json.Unmarshal(body, &answer) == nil { // an error answer has no items, and is the SDK's to read
		e.mu.Lock()
		defer e.mu.Unlock()
		for _, item := range answer.Items {
			e.consistency[item.SnapshotID] = item.Consistency
		}
	}
	return response, nil
}

func (e *extras) consistencyOf(point string) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c := e.consistency[point]; c != "" {
		return c
	}
	return "unknown"
}
