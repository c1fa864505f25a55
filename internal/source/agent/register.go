package agent

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/replication"
	"lifeboat/internal/source/inventory"
)

// identify takes the inventory and loads the identity, or registers for one.
func (a *agent) identify(ctx context.Context) error {
	var collector inventory.Collector
	hardware, err := a.takeInventory(ctx, collector)
	if err != nil {
		return err
	}
	a.id, err = loadIdentity(a.cfg.State)
	if err == nil {
		if instance := collector.RecoveryInstance(); instance != "" && a.outside == nil && !hardware.Image && hardware.HardwareID() != a.id.HardwareID {
			return turnedAway(fmt.Errorf("this machine is recovery instance %s of source server %s, whose agent came with its disk: it does not replicate over "+
				"its source. What the instance writes is kept by the server that runs it; to protect it as a source server of its own, "+
				"start the agent with an empty --state directory and a fresh install token", instance, a.id.SourceServerID))
		}
		if err := a.id.checkMachine(hardware.HardwareID(), hardware.Image, hardware.Disks); err != nil {
			return err
		}
		return a.id.checkExpiry(a.cfg.Now())
	}
	if !errors.Is(err, errNoIdentity) {
		return err
	}
	a.id = identity{Version: identityVersion, HardwareID: hardware.HardwareID(), Image: hardware.Image, Disks: hardware.Disks}
	if err := a.register(ctx); err != nil {
		return err
	}
	return a.id.save(a.cfg.State)
}

// takeInventory describes the machine, and tells which one it is.
func (a *agent) takeInventory(ctx context.Context, collector inventory.Collector) (hardware inventory.Identity, err error) {
	if a.outside != nil {
		return a.describeOutside(ctx, collector)
	}
	disks := a.disks.inventory()
	overrides := a.cfg.Overrides
	if overrides.BootMode == drs.BootUnknown && a.cfg.BootMode != nil && inventory.OnlyImages(disks) {
		overrides.BootMode = a.cfg.BootMode(a.disks.all[0].dev, a.disks.all[0].size)
	}
	if a.props, err = collector.Collect(disks, overrides); err != nil {
		return hardware, err
	}
	return collector.Identify(a.props, disks, overrides), nil
}

func (a *agent) register(ctx context.Context) error {
	server, err := url.Parse(a.cfg.Server)
	if err != nil || server.Scheme != "https" || server.Host == "" {
		return fmt.Errorf("--server %q is not an https URL: use the address that `lifeboat env` prints, as in https://127.0.0.1:7443", a.cfg.Server)
	}
	token, err := a.token()
	if err != nil {
		return err
	}
	if token == "" {
		return errors.New("no install token: run `lifeboat env` on the server and pass LIFEBOAT_TOKEN with --token")
	}
	client, err := a.client()
	if err != nil {
		return err
	}
	key, csr, err := newKey()
	if err != nil {
		return fmt.Errorf("register: %w", err)
	}
	body, err := json.Marshal(replication.Registration{
		Token: token, CSR: csr, HardwareID: a.id.HardwareID, AgentVersion: a.cfg.Version, Inventory: a.told(),
	})
	if err != nil {
		return fmt.Errorf("register: %w", err)
	}
	reply, err := a.postUntilHeard(ctx, client, server.JoinPath(replication.RegisterPath).String(), body)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("register at %s: %w", a.cfg.Server, explain(err))
	}
	a.id.SourceServerID = reply.SourceServerID
	a.id.ReplicationAddress = replication.CompleteAddress(reply.ReplicationAddress, server.Hostname())
	a.id.Key, a.id.Certificate, a.id.CA = key, reply.Certificate, reply.CA
	if err := a.id.parse(); err != nil {
		return fmt.Errorf("register at %s: the reply is not usable: %w", a.cfg.Server, err)
	}
	a.log.Info("registered", "server", a.id.SourceServerID)
	return nil
}

// token is the install token, from wherever it was given; empty: none was.
func (a *agent) token() (string, error) {
	if a.cfg.Token != "" || a.cfg.TokenFile == "" {
		return a.cfg.Token, nil
	}
	raw, err := os.ReadFile(a.cfg.TokenFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the install token: %w", err)
	}
	return strings.TrimSpace(string(raw)), nil
}

// forgetToken removes the file of a token that has done its work.
func (a *agent) forgetToken() error {
	if a.cfg.TokenFile == "" {
		return nil
	}
	if err := os.Remove(a.cfg.TokenFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the install token, which is not needed any more: %w", err)
	}
	return nil
}

func (a *agent) client() (*http.Client, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if a.cfg.CAFile != "" {
		raw, err := os.ReadFile(a.cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read --ca-cert: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(raw) {
			return nil, fmt.Errorf("--ca-cert %s holds no PEM certificate: use the file that AWS_CA_BUNDLE of `lifeboat env` names", a.cfg.CAFile)
		}
	}
	return &http.Client{
		Timeout: time.Minute,
		Transport: &http.Transport{
			TLSClientConfig: config, Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: replication.DialTimeout,
			DialContext: (&net.Dialer{Timeout: replication.DialTimeout}).DialContext,
		},
	}, nil
}

// whereabouts asks the API where agents replicate to now, for the case that the
// server has moved since the registration. Without an answer the address stays. An
// error means that another server than ours was named.
func (a *agent) whereabouts(ctx context.Context) error {
	server, err := url.Parse(a.cfg.Server)
	if err != nil || server.Scheme != "https" || server.Host == "" {
		return nil
	}
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: a.id.pool},
		Proxy:             http.ProxyFromEnvironment,
		DisableKeepAlives: true,
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, server.JoinPath(replication.RegisterPath).String(), nil)
	if err != nil {
		return nil
	}
	response, err := client.Do(request)
	var foreign x509.UnknownAuthorityError
	if errors.As(err, &foreign) {
		return fmt.Errorf("%s is not the server that this agent is registered at (%s at %s): name that one with --server, "+
			"or, to replicate to the other one, start with an empty --state directory and a token of its", a.cfg.Server, a.id.SourceServerID, a.id.ReplicationAddress)
	}
	if err != nil {
		a.log.Debug("ask for the replication address", "err", err)
		return nil
	}
	defer response.Body.Close()
	var now replication.Whereabouts
	err = json.NewDecoder(io.LimitReader(response.Body, replication.MaxText)).Decode(&now)
	if err != nil || response.StatusCode != http.StatusOK || now.ReplicationAddress == "" {
		a.log.Debug("ask for the replication address", "status", response.Status, "err", err)
		return nil
	}
	if address := replication.CompleteAddress(now.ReplicationAddress, server.Hostname()); address != a.id.ReplicationAddress {
		a.log.Info("the server replicates at another address now", "from", a.id.ReplicationAddress, "to", address)
		a.id.ReplicationAddress = address
	}
	return nil
}

func newKey() (keyPEM, csrPEM string, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", "", err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return "", "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})), nil
}

func post(ctx context.Context, client *http.Client, url string, body []byte) (reply replication.Registered, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return reply, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return reply, err
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(response.Body, replication.MaxRegistration))
	if err != nil {
		return reply, err
	}
	if response.StatusCode != http.StatusOK && response.StatusCode != http.StatusCreated {
		var refusal replication.RegistrationError
		if json.Unmarshal(raw, &refusal) != nil || refusal.Message == "" {
			return reply, fmt.Errorf("the server answered %s: check that --server is the address of a Lifeboat server's API", response.Status)
		}
		told := errors.New(refusal.Message)
		switch {
		case response.StatusCode == http.StatusTooManyRequests:
			return reply, &busyError{error: told, after: retryAfter(response.Header)}
		case response.StatusCode < http.StatusInternalServerError:
			return reply, turnedAway(told)
		}
		return reply, told
	}
	if err := json.Unmarshal(raw, &reply); err != nil {
		return reply, fmt.Errorf("the reply is not usable: %w", err)
	}
	return reply, nil
}

// registerTries bounds how often a registration is sent that gets no answer. A bad line
// loses one in a row seldom; a wrong address never answers, and that is soon to be told.
const registerTries = 3

// postUntilHeard posts a registration until it is answered by something else than a
// request to wait. To send one again is harmless: it is the same machine's.
func (a *agent) postUntilHeard(ctx context.Context, client *http.Client, url string, body []byte) (replication.Registered, error) {
	unheard := 0
	for {
		reply, err := post(ctx, client, url, body)
		busy := (*busyError)(nil)
		switch {
		case errors.As(err, &busy):
			wait := jitter(busy.after)
			a.log.Info("the server takes no more registrations at this moment", "err", err, "retry_in", wait.Round(time.Millisecond))
			if !sleep(ctx, wait) {
				return reply, err
			}
		case gotLost(err) && unheard < registerTries-1 && ctx.Err() == nil:
			unheard++
			wait := jitter(time.Second)
			a.log.Warn("a registration got no answer and is sent again", "err", err, "tries_left", registerTries-unheard, "retry_in", wait.Round(time.Millisecond))
			if !sleep(ctx, wait) {
				return reply, err
			}
		default:
			return reply, err
		}
	}
}

// gotLost tells of an error that a line has that loses packets, or a peer that was just
// ending; not of a name or a port at which there is nobody.
func gotLost(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// busyError: the server asks to be left alone for a while. Many machines register at
// once where many are installed at once.
type busyError struct {
	error
	after time.Duration
}

func (e *busyError) Unwrap() error { return e.error }

// retryAfter is what the server asks for, between a second and a minute.
func retryAfter(h http.Header) time.Duration {
	seconds, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil {
		return time.Second
	}
	return min(max(time.Duration(seconds)*time.Second, time.Second), time.Minute)
}

// explain adds the next step to the errors of a connection.
func explain(err error) error {
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var expired x509.CertificateInvalidError
	var dns *net.DNSError
	var op *net.OpError
	switch {
	case errors.As(err, &unknown):
		return fmt.Errorf("the server's certificate is not signed by the authority given: pass --ca-cert with the file that AWS_CA_BUNDLE of `lifeboat env` names: %w", err)
	case errors.As(err, &host):
		return fmt.Errorf("the server's certificate is for another name: use a --server address that it names: %w", err)
	case errors.As(err, &expired) && expired.Reason == x509.Expired:
		return fmt.Errorf("the server's certificate has expired: restart the server, and check both clocks: %w", err)
	case errors.As(err, &dns):
		return fmt.Errorf("the server's name does not resolve: check --server: %w", err)
	case errors.Is(err, syscall.ECONNREFUSED), errors.As(err, &op) && op.Op == "dial":
		return fmt.Errorf("the server cannot be reached: check that it runs, that --server is right and that no firewall is in between: %w", err)
	case os.IsTimeout(err), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("what listens there takes the connection and does not answer: check that --server names a Lifeboat server; its log and /readyz tell how it does: %w", err)
	}
	return err
}
