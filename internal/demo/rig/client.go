package rig

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

// Client is the AWS SDK for Go, pointed at our server.
type Client struct {
	*awsdrs.Client
	Endpoint string // URL of the API
	CAFile   string // path of the certificate to trust
	Token    string // an install token for agents
	// HTTP trusts the server and signs nothing.
	HTTP   *http.Client
	extras *extras
}

// connect asks `lifeboat env` how to reach the server, as a user's shell would,
// once the server is ready.
func (r *Rig) connect(ctx context.Context, server *Process) (*Client, error) {
	for {
		if err := server.Ended(); err != nil {
			return nil, err
		}
		if c, err := r.tryConnect(ctx); err == nil {
			return c, nil
		} else if ctx.Err() != nil {
			return nil, fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
		if err := Pause(ctx, 50*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

func (r *Rig) tryConnect(ctx context.Context) (*Client, error) {
	// A port that answers comes before the question, which starts a program.
	if err := dial(ctx, r.api); err != nil {
		return nil, err
	}
	text, err := r.Output(ctx, "env", "--data", r.Data())
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
	c := &Client{Endpoint: env["AWS_ENDPOINT_URL"], CAFile: env["AWS_CA_BUNDLE"], Token: env["LIFEBOAT_TOKEN"]}
	c.extras = &extras{
		next:        &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}},
		consistency: map[string]string{},
	}
	c.HTTP = &http.Client{Transport: c.extras, Timeout: 30 * time.Second}
	c.Client = awsdrs.New(awsdrs.Options{
		BaseEndpoint: aws.String(c.Endpoint),
		Region:       env["AWS_REGION"],
		Credentials:  credentials.NewStaticCredentialsProvider(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], ""),
		HTTPClient:   c.HTTP,
	})
	return c, c.ready(ctx)
}

// ready asks whether the server can serve.
func (c *Client) ready(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.Endpoint+"/readyz", nil)
	if err != nil {
		return err
	}
	response, err := c.HTTP.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s", response.Status)
	}
	return nil
}

// Initialize makes the account ready, which is safe to repeat.
func (c *Client) Initialize(ctx context.Context) error {
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

// Consistency is what Lifeboat says of a recovery point that was listed; AWS's
// model has no word for it.
func (c *Client) Consistency(point string) string {
	e := c.extras
	e.mu.Lock()
	defer e.mu.Unlock()
	if known := e.consistency[point]; known != "" {
		return known
	}
	return "unknown"
}
