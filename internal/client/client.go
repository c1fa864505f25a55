package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	drsapi "github.com/aws/aws-sdk-go-v2/service/drs"
	"github.com/aws/smithy-go/logging"
)

// Client talks to one server in the name of one account.
type Client struct {
	api      *drsapi.Client
	endpoint string
	http     aws.HTTPClient // shared with api: one pool of connections
	now      func() time.Time
	// poll is the longest pause between two looks at a job, patience how long a
	// server may be away while a job is followed.
	poll, patience time.Duration
}

// Access is what it takes to reach a server.
type Access struct {
	Endpoint  string // https://HOST:PORT
	Authority []byte // PEM: the certificates that the server's may be signed by
	Region    string
	KeyID     string
	Secret    string
}

// requestTimeout bounds the wait for the first byte of an answer. Exports may
// then take as long as they need.
const requestTimeout = 30 * time.Second

// New makes a client of the given access; it does not connect yet.
func New(a Access) (*Client, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(a.Authority) {
		return nil, errors.New("connect: the certificate authority's file holds no certificate")
	}
	return newClient(aws.Config{
		Region:       a.Region,
		BaseEndpoint: aws.String(a.Endpoint),
		Credentials:  credentials.NewStaticCredentialsProvider(a.KeyID, a.Secret, ""),
		HTTPClient: patientTransport().WithTransportOptions(func(t *http.Transport) {
			t.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
		}),
	})
}

// FromEnvironment makes a client of what `lifeboat env` prints, or of anything
// else that the AWS SDK understands, as long as it names an endpoint: without
// one the SDK would turn to AWS itself.
func FromEnvironment(ctx context.Context) (*Client, error) {
	cfg, err := config.LoadDefaultConfig(ctx,
		config.WithHTTPClient(patientTransport()),
		config.WithLogger(logging.Nop{}), // what is missing is told in our own words
		// Keys of the cloud machine that this may run on are never the right ones.
		config.WithEC2IMDSClientEnableState(imds.ClientDisabled))
	if err != nil {
		return nil, fmt.Errorf("read AWS settings: %w. %s", err, getEnvironment)
	}
	return newClient(cfg)
}

func patientTransport() *awshttp.BuildableClient {
	return awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		t.ResponseHeaderTimeout = requestTimeout
	})
}

func newClient(cfg aws.Config) (*Client, error) {
	api := drsapi.NewFromConfig(cfg)
	o := api.Options()
	if o.BaseEndpoint == nil || *o.BaseEndpoint == "" {
		return nil, fmt.Errorf("no server is named: AWS_ENDPOINT_URL_DRS is not set. %s", getEnvironment)
	}
	if o.Region == "" {
		return nil, fmt.Errorf("no region is named: AWS_REGION is not set. %s", getEnvironment)
	}
	return &Client{
		api: api, endpoint: *o.BaseEndpoint, http: o.HTTPClient, now: time.Now,
		poll: time.Second, patience: 5 * time.Minute,
	}, nil
}

// Initialize makes the account ready for all other operations; doing it again
// changes nothing.
func (c *Client) Initialize(ctx context.Context) error {
	_, err := c.api.InitializeService(ctx, &drsapi.InitializeServiceInput{})
	return c.explain(err)
}
