package s3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/smithy-go/logging"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// awsKeys asks the AWS SDK for keys: environment, shared files, SSO, roles of the
// container or machine. The SDK caches them and renews those that end.
type awsKeys struct {
	provider aws.CredentialsProvider
}

var _ credentials.Provider = awsKeys{}

func findKeys(ctx context.Context, profile string) (awsKeys, error) {
	// What is missing is told in our own words, by check.
	options := []func(*config.LoadOptions) error{config.WithLogger(logging.Nop{})}
	if profile != "" {
		options = append(options, config.WithSharedConfigProfile(profile))
	}
	found, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return awsKeys{}, fmt.Errorf("look for credentials: %w", err)
	}
	return awsKeys{found.Credentials}, nil
}

// check makes sure that there are keys, before a request is signed with none.
func (k awsKeys) check(ctx context.Context) (source string, err error) {
	keys, err := k.provider.Retrieve(ctx)
	if err != nil && strings.Contains(err.Error(), "EC2 IMDS") { // the last place of all, where few machines have any
		return "", fmt.Errorf("%w: none found in the environment, in ~/.aws or in a role of this machine: set AWS_ACCESS_KEY_ID and "+
			"AWS_SECRET_ACCESS_KEY for each start of the server, or write them to ~/.aws/credentials", ErrCredentials)
	}
	if err != nil {
		return "", fmt.Errorf("%w: none found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for each start of the server, "+
			"or write them to ~/.aws/credentials (%w)", ErrCredentials, err)
	}
	return keys.Source, nil
}

// RetrieveWithCredContext implements credentials.Provider.
func (k awsKeys) RetrieveWithCredContext(*credentials.CredContext) (credentials.Value, error) {
	return k.Retrieve()
}

// Retrieve implements credentials.Provider.
func (k awsKeys) Retrieve() (credentials.Value, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second) // the interface passes none
	defer cancel()
	keys, err := k.provider.Retrieve(ctx)
	if err != nil {
		return credentials.Value{}, fmt.Errorf("%w: %w", ErrCredentials, err)
	}
	return credentials.Value{
		AccessKeyID: keys.AccessKeyID, SecretAccessKey: keys.SecretAccessKey, SessionToken: keys.SessionToken,
		SignerType: credentials.SignatureV4,
	}, nil
}

// IsExpired implements credentials.Provider: the SDK's cache knows better.
func (k awsKeys) IsExpired() bool { return true }

// transport keeps enough connections for many requests in flight, and gives up on
// servers that do not answer at all.
func transport(caCert string, patience time.Duration) (*http.Transport, error) {
	if caCert == "" {
		caCert = os.Getenv("AWS_CA_BUNDLE")
	}
	trusted, err := x509.SystemCertPool()
	if err != nil {
		trusted = x509.NewCertPool()
	}
	if caCert != "" {
		pem, err := os.ReadFile(caCert)
		if err != nil {
			return nil, fmt.Errorf("read the certificates to trust: %w", err)
		}
		if !trusted.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no PEM certificate: name the file of the authority that signed the store's certificate", caCert)
		}
	}
	dialer := &net.Dialer{Timeout: min(patience, 10*time.Second), KeepAlive: 15 * time.Second}
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: dialer.DialContext,
		TLSClientConfig:     &tls.Config{RootCAs: trusted, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: min(patience, 10*time.Second),
		MaxIdleConnsPerHost: 64, MaxIdleConns: 64, IdleConnTimeout: 90 * time.Second,
		DisableCompression: true, // of a part of an object it would be nonsense
	}, nil
}
