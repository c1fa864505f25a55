package client

import (
	"net"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	drsapi "github.com/aws/aws-sdk-go-v2/service/drs"

	"lifeboat/internal/iam"
)

// toClosedPort is an API client of a server that is not there.
func (c *Client) toClosedPort(t *testing.T) *drsapi.Client {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	address := listener.Addr().String()
	must(t, listener.Close())
	o := c.api.Options()
	o.BaseEndpoint, o.Retryer = aws.String("https://"+address), aws.NopRetryer{}
	return drsapi.New(o)
}

func TestErrorsSayWhatToDo(t *testing.T) {
	s := newSite(t)
	with := func(change func(*drsapi.Options)) *Client {
		c := *s.client
		o := c.api.Options()
		o.Retryer = aws.NopRetryer{}
		change(&o)
		c.api = drsapi.New(o)
		return &c
	}
	foreign := iam.NewAccessKey(home)
	closed := *s.client
	closed.api = closed.toClosedPort(t)
	_, stranger := newSite(t), s.server.URL
	for name, c := range map[string]struct {
		client *Client
		words  []string
	}{
		"nobody listens": {&closed, []string{"no answer from", "connection refused", "lifeboat server"}},
		"unknown key": {with(func(o *drsapi.Options) {
			o.Credentials = credentials.NewStaticCredentialsProvider(foreign.ID, foreign.Secret.Reveal(), "")
		}), []string{"UnrecognizedClientException", "lifeboat env"}},
		"wrong secret": {with(func(o *drsapi.Options) {
			keys, err := o.Credentials.Retrieve(t.Context())
			must(t, err)
			o.Credentials = credentials.NewStaticCredentialsProvider(keys.AccessKeyID, foreign.Secret.Reveal(), "")
		}), []string{"InvalidSignatureException", "lifeboat env"}},
		"wrong region": {with(func(o *drsapi.Options) { o.Region = "us-east-1" }), []string{"AWS_REGION"}},
		"foreign certificate": {func() *Client {
			other := newSite(t).client
			c := with(func(o *drsapi.Options) { o.HTTPClient = other.api.Options().HTTPClient })
			return c
		}(), []string{"certificate", "AWS_CA_BUNDLE", stranger}},
	} {
		_, err := c.client.Servers(t.Context())
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		for _, word := range c.words {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%s: %q lacks %q", name, err, word)
			}
		}
	}
}

func TestFromEnvironmentNeedsAnEndpoint(t *testing.T) {
	clean := func(t *testing.T) {
		for _, name := range []string{"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_DRS", "AWS_CA_BUNDLE", "AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} {
			t.Setenv(name, "")
		}
		none := t.TempDir() + "/none"
		t.Setenv("AWS_CONFIG_FILE", none)
		t.Setenv("AWS_SHARED_CREDENTIALS_FILE", none)
		t.Setenv("AWS_REGION", "us-east-1")
	}
	t.Run("none", func(t *testing.T) {
		clean(t)
		if _, err := FromEnvironment(t.Context()); err == nil || !strings.Contains(err.Error(), "lifeboat env --data DIR") {
			t.Errorf("got %v, want advice: AWS itself must not be called", err)
		}
	})
	t.Run("no keys", func(t *testing.T) {
		clean(t)
		t.Setenv("AWS_ENDPOINT_URL_DRS", "https://127.0.0.1:1")
		c, err := FromEnvironment(t.Context())
		must(t, err)
		if _, err := c.Servers(t.Context()); err == nil || !strings.Contains(err.Error(), "no access key is set") {
			t.Errorf("got %v, want advice about keys", err)
		}
	})
	t.Run("no region", func(t *testing.T) {
		clean(t)
		t.Setenv("AWS_ENDPOINT_URL_DRS", "https://127.0.0.1:1")
		t.Setenv("AWS_REGION", "")
		t.Setenv("AWS_DEFAULT_REGION", "")
		if _, err := FromEnvironment(t.Context()); err == nil || !strings.Contains(err.Error(), "AWS_REGION") {
			t.Errorf("got %v, want advice about the region", err)
		}
	})
}
